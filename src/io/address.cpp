// SPDX-License-Identifier: Apache-2.0
//
// What reads errno is out of line: see operation.hpp.
#include "io/address.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <ostream>

#include "io/descriptor.hpp"

namespace tendril::net {
namespace {

bool parse_address(std::string_view text, std::array<std::uint8_t, 16>& bytes, std::uint32_t& scope,
                   endpoint::family& family) noexcept {
  scope = 0;
  bytes = {};
  char zone[IF_NAMESIZE] = {};
  const auto percent = text.find('%');
  if (percent != std::string_view::npos) {
    const auto name = text.substr(percent + 1);
    if (name.empty() || name.size() >= sizeof zone) return false;
    name.copy(zone, sizeof zone);
    text = text.substr(0, percent);
  }
  char copy[INET6_ADDRSTRLEN] = {};
  if (text.empty() || text.size() >= sizeof copy) return false;
  text.copy(copy, sizeof copy);
  if (percent == std::string_view::npos && ::inet_pton(AF_INET, copy, bytes.data()) == 1) {
    family = endpoint::family::v4;
    return true;
  }
  if (::inet_pton(AF_INET6, copy, bytes.data()) != 1) return false;
  family = endpoint::family::v6;
  if (zone[0] == 0) return true;
  scope = ::if_nametoindex(zone);
  if (scope != 0) return true;
  const char* end = zone + std::strlen(zone);
  const auto [last, error] = std::from_chars(zone, end, scope);
  return error == std::errc() && last == end;
}

}  // namespace

endpoint::endpoint(std::string_view address, std::uint16_t port) : port_(port) {
  if (!parse_address(address, bytes_, scope_, family_))
    throw std::system_error(std::make_error_code(std::errc::invalid_argument),
                            "not an IP address: '" + std::string(address) + "'");
}

endpoint::endpoint(const std::array<std::uint8_t, 4>& v4, std::uint16_t port) noexcept
    : port_(port), family_(family::v4) {
  std::memcpy(bytes_.data(), v4.data(), v4.size());
}

endpoint::endpoint(const std::array<std::uint8_t, 16>& v6, std::uint16_t port,
                   std::uint32_t scope) noexcept
    : bytes_(v6), scope_(scope), port_(port), family_(family::v6) {}

endpoint endpoint::parse(std::string_view text, std::error_code& ec) noexcept {
  ec = std::make_error_code(std::errc::invalid_argument);
  std::string_view address;
  std::string_view port;
  if (!text.empty() && text.front() == '[') {
    const auto end = text.find("]:");
    if (end == std::string_view::npos) return {};
    address = text.substr(1, end - 1);
    port = text.substr(end + 2);
    if (address.find(':') == std::string_view::npos) return {};
  } else {
    const auto colon = text.rfind(':');
    if (colon == std::string_view::npos) return {};
    address = text.substr(0, colon);
    port = text.substr(colon + 1);
    if (address.find(':') != std::string_view::npos) return {};  // IPv6 wants brackets
  }
  endpoint e;
  const auto [last, error] = std::from_chars(port.data(), port.data() + port.size(), e.port_);
  if (port.empty() || error != std::errc() || last != port.data() + port.size()) return {};
  if (!parse_address(address, e.bytes_, e.scope_, e.family_)) return {};
  ec.clear();
  return e;
}

endpoint endpoint::parse(std::string_view text) {
  std::error_code ec;
  endpoint e = parse(text, ec);
  if (ec) throw std::system_error(ec, "not an address and port: '" + std::string(text) + "'");
  return e;
}

endpoint endpoint::loopback(std::uint16_t port) noexcept {
  return endpoint(std::array<std::uint8_t, 4>{127, 0, 0, 1}, port);
}

endpoint endpoint::any(std::uint16_t port) noexcept {
  return endpoint(std::array<std::uint8_t, 4>{0, 0, 0, 0}, port);
}

std::string endpoint::address() const {
  if (family_ == family::none) return "(none)";
  char text[INET6_ADDRSTRLEN];
  ::inet_ntop(is_v4() ? AF_INET : AF_INET6, bytes_.data(), text, sizeof text);
  std::string result = text;
  if (scope_ != 0) {
    char name[IF_NAMESIZE];
    result += '%';
    result +=
        ::if_indextoname(scope_, name) != nullptr ? std::string(name) : std::to_string(scope_);
  }
  return result;
}

std::string endpoint::to_string() const {
  if (family_ == family::none) return "(none)";
  const std::string host = is_v6() ? '[' + address() + ']' : address();
  return host + ':' + std::to_string(port_);
}

std::ostream& operator<<(std::ostream& out, const endpoint& e) { return out << e.to_string(); }

}  // namespace tendril::net

namespace tendril::detail {

socket_address::socket_address(const net::endpoint& e) noexcept {
  if (e.is_v4()) {
    auto& in = reinterpret_cast<sockaddr_in&>(storage);
    in.sin_family = AF_INET;
    in.sin_port = htons(e.port());
    std::memcpy(&in.sin_addr, e.bytes().data(), 4);
    length = sizeof in;
  } else if (e.is_v6()) {
    auto& in = reinterpret_cast<sockaddr_in6&>(storage);
    in.sin6_family = AF_INET6;
    in.sin6_port = htons(e.port());
    in.sin6_scope_id = e.scope();
    std::memcpy(&in.sin6_addr, e.bytes().data(), 16);
    length = sizeof in;
  } else {
    storage.ss_family = AF_UNSPEC;
    length = sizeof(sockaddr);
  }
}

net::endpoint to_endpoint(const sockaddr* address) noexcept {
  if (address->sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, address, sizeof in);
    std::array<std::uint8_t, 4> bytes;
    std::memcpy(bytes.data(), &in.sin_addr, 4);
    return net::endpoint(bytes, ntohs(in.sin_port));
  }
  if (address->sa_family == AF_INET6) {
    sockaddr_in6 in;
    std::memcpy(&in, address, sizeof in);
    std::array<std::uint8_t, 16> bytes;
    std::memcpy(bytes.data(), &in.sin6_addr, 16);
    return net::endpoint(bytes, ntohs(in.sin6_port), in.sin6_scope_id);
  }
  return {};
}

[[gnu::noinline]] std::string describe_socket(descriptor_ref ref) {
  descriptor_use use(ref);
  if (!use) return "a closed socket";
  for (const auto ask : {&::getpeername, &::getsockname}) {
    socket_address a;
    if (ask(use->fd(), a.get(), &a.length) != 0) continue;
    if (a.family() == AF_UNIX) {
      const auto& un = reinterpret_cast<const sockaddr_un&>(a.storage);
      const std::size_t size = a.length > offsetof(sockaddr_un, sun_path) + 1
                                   ? a.length - offsetof(sockaddr_un, sun_path)
                                   : 0;
      if (size == 0) continue;
      return un.sun_path[0] == 0 ? '@' + std::string(un.sun_path + 1, size - 1)
                                 : std::string(un.sun_path, ::strnlen(un.sun_path, size));
    }
    if (const net::endpoint e = to_endpoint(a.get()); e.get_family() != net::endpoint::family::none)
      return e.to_string();
  }
  return "socket " + std::to_string(use->fd());
}

descriptor_ref adopt_or_close(int fd, descriptor_kind kind, std::error_code& ec) noexcept {
  try {
    return adopt_descriptor(fd, kind);
  } catch (const std::system_error& e) {
    ec = e.code();
  } catch (const std::bad_alloc&) {
    ec = std::make_error_code(std::errc::not_enough_memory);
  }
  ::close(fd);
  return {};
}

[[gnu::noinline]] descriptor_ref open_socket(int family, int type, descriptor_kind kind,
                                             std::error_code& ec) {
  const int fd = ::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    ec = {errno, std::system_category()};
    return {};
  }
  ec.clear();
  return adopt_or_close(fd, kind, ec);
}

[[gnu::noinline]] void set_option(descriptor_ref ref, int level, int name, int value,
                                  const char* what) {
  std::error_code ec = std::make_error_code(std::errc::bad_file_descriptor);
  {
    descriptor_use use(ref);
    if (use) {
      ec.clear();
      if (::setsockopt(use->fd(), level, name, &value, sizeof value) != 0)
        ec = {errno, std::system_category()};
    }
  }
  if (ec) throw std::system_error(ec, std::string(what) + " on " + describe_socket(ref));
}

[[gnu::noinline]] net::endpoint endpoint_of(descriptor_ref ref, socket_end which,
                                            std::error_code& ec) noexcept {
  descriptor_use use(ref);
  if (!use) {
    ec = std::make_error_code(std::errc::bad_file_descriptor);
    return {};
  }
  socket_address a;
  const int result = which == socket_end::local ? ::getsockname(use->fd(), a.get(), &a.length)
                                                : ::getpeername(use->fd(), a.get(), &a.length);
  if (result != 0) {
    ec = {errno, std::system_category()};
    return {};
  }
  ec.clear();
  return to_endpoint(a.get());
}

}  // namespace tendril::detail
