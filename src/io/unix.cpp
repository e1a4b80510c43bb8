// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include <tendril/net.hpp>

#include "io/address.hpp"
#include "io/operation.hpp"

namespace tendril::net {

using detail::descriptor_kind;
using detail::socket_address;

namespace {

/// Of streams, too: where descriptors are passed along, a read ends although there is more, so the short-read rule does
/// not hold.
constexpr descriptor_kind of_streams = descriptor_kind::other;

socket_address unix_address(std::string_view path, std::error_code& ec) noexcept {
  socket_address a;
  auto& un = reinterpret_cast<sockaddr_un&>(a.storage);
  un.sun_family = AF_UNIX;
  ec.clear();
  if (path.empty() || path.size() >= sizeof un.sun_path) {
    ec = std::make_error_code(path.empty() ? std::errc::invalid_argument
                                           : std::errc::filename_too_long);
    return a;
  }
  std::memcpy(un.sun_path, path.data(), path.size());
  // An abstract name is as long as the length says; a path ends with a zero.
  a.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() +
                                    (path[0] != 0 ? 1 : 0));
  return a;
}

std::string printable(std::string_view path) {
  std::string text(path);
  if (!text.empty() && text[0] == 0) text[0] = '@';
  return text;
}

}  // namespace

unix_stream unix_stream::from_native(int fd) {
  return unix_stream(detail::adopt_descriptor(fd, of_streams));
}

unix_stream unix_stream::connect(std::string_view path, std::error_code& ec,
                                 const connect_options& options) {
  const socket_address address = unix_address(path, ec);
  if (ec) return {};
  unix_stream stream(detail::open_socket(AF_UNIX, SOCK_STREAM, of_streams, ec));
  if (ec) return {};
  detail::connect_socket(stream.ref_, address.get(), address.length, detail::deadline_of(options),
                         ec);
  if (ec) return {};
  return stream;
}

unix_stream unix_stream::connect(std::string_view path, const connect_options& options) {
  std::error_code ec;
  unix_stream stream = connect(path, ec, options);
  if (ec) throw std::system_error(ec, "connect to " + printable(path));
  return stream;
}

std::pair<unix_stream, unix_stream> unix_stream::pair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
    throw std::system_error(errno, std::system_category(), "socketpair");
  std::error_code ec;
  unix_stream first(detail::adopt_or_close(fds[0], of_streams, ec));
  unix_stream second(detail::adopt_or_close(fds[1], of_streams, ec));
  if (ec) throw std::system_error(ec, "socketpair");
  return {std::move(first), std::move(second)};
}

unix_listener::unix_listener(std::string_view path, int backlog) {
  std::error_code ec;
  const socket_address address = unix_address(path, ec);
  if (!ec) ref_ = detail::open_socket(AF_UNIX, SOCK_STREAM, descriptor_kind::other, ec);
  if (!ec && ::bind(ref_.fd, address.get(), address.length) != 0)
    ec = {errno, std::system_category()};
  if (!ec && ::listen(ref_.fd, backlog) != 0) ec = {errno, std::system_category()};
  if (ec) {
    close();
    throw std::system_error(ec, "listen on " + printable(path));
  }
}

unix_stream unix_listener::accept(std::error_code& ec) {
  // Unlike a TCP listener it does not say that resources have run out: it serves one machine, whose
  // owner sees that elsewhere.
  const int fd = detail::accept_descriptor(
      ref_, nullptr, [](std::error_code) {}, ec);
  if (fd < 0) return {};
  return unix_stream(detail::adopt_or_close(fd, of_streams, ec));
}

unix_stream unix_listener::accept() {
  return detail::or_throw("accept", ref_, [&](std::error_code& ec) { return accept(ec); });
}

}  // namespace tendril::net
