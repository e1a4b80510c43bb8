// SPDX-License-Identifier: Apache-2.0
#include "examples/client.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>

namespace examples {
namespace {

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

client::client(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  if (fd_ < 0) fail("socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const timeval patience{60, 0};
  const int on = 1;
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    const int error = errno;
    ::close(fd_);
    errno = error;
    fail("connect");
  }
}

client::~client() {
  if (fd_ >= 0) ::close(fd_);
}

bool client::try_send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

void client::send(std::string_view bytes) {
  if (!try_send(bytes)) fail("send");
}

void client::end_sending() { ::shutdown(fd_, SHUT_WR); }

std::string client::receive_some() {
  if (!unread_.empty()) return std::exchange(unread_, {});
  std::string data(64 * 1024, '\0');
  const ssize_t n = ::recv(fd_, data.data(), data.size(), 0);
  if (n < 0) fail("recv");
  data.resize(static_cast<std::size_t>(n));
  return data;
}

std::string client::receive(std::size_t bytes) {
  std::string all;
  while (all.size() < bytes) {
    const std::string more = receive_some();
    if (more.empty()) throw std::runtime_error("the connection ended early, after: " + all);
    all += more;
  }
  unread_ = all.substr(bytes);
  all.resize(bytes);
  return all;
}

std::string client::receive_all() {
  std::string all;
  for (;;) {
    const std::string more = receive_some();
    if (more.empty()) return all;
    all += more;
  }
}

bool client::is_readable(int milliseconds) const {
  pollfd one{fd_, POLLIN, 0};
  return !unread_.empty() || ::poll(&one, 1, milliseconds) > 0;
}

http_response client::response(bool head_only) {
  http_response r;
  std::size_t end;
  while ((end = r.head.find("\r\n\r\n")) == r.head.npos) {
    const std::string more = receive_some();
    if (more.empty()) throw std::runtime_error("the connection ended early, after: " + r.head);
    r.head += more;
  }
  unread_ = r.head.substr(end + 4);
  r.head.resize(end + 4);
  if (!r.head.starts_with("HTTP/1.1 ")) throw std::runtime_error("no response: " + r.head);
  r.status = std::stoi(r.head.substr(9, 3));
  constexpr std::string_view length = "\r\nContent-Length: ";
  const std::size_t at = r.head.find(length);
  if (at != r.head.npos && !head_only)
    r.body = receive(std::stoul(r.head.substr(at + length.size())));
  return r;
}

}  // namespace examples
