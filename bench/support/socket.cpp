// SPDX-License-Identifier: Apache-2.0
#include "bench/support/socket.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <stdexcept>
#include <string>
#include <system_error>

namespace bench {
namespace {

void check(bool ok, const std::string& what) {
  if (!ok) throw std::system_error(errno, std::generic_category(), what);
}

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

}  // namespace

listening_socket listen_on_loopback(std::uint16_t port, int extra_flags) {
  const std::string where = "listen on 127.0.0.1:" + std::to_string(port);
  unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | extra_flags, 0));
  check(static_cast<bool>(fd), where);
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address = loopback(port);
  check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, where);
  check(::listen(fd.get(), 4096) == 0, where);
  socklen_t size = sizeof address;
  check(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0, where);
  return {std::move(fd), ntohs(address.sin_port)};
}

unique_fd connect_to_loopback(std::uint16_t port, unsigned source) {
  const std::string where = "connect to 127.0.0.1:" + std::to_string(port);
  unique_fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  check(static_cast<bool>(fd), where);
  if (source != 0) {
    const int on = 1;  // the port is found when both ends are known
    ::setsockopt(fd.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    sockaddr_in from = loopback(0);
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + source);
    check(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&from), sizeof from) == 0,
          "bind to 127.0.0.1 + " + std::to_string(source));
  }
  const sockaddr_in address = loopback(port);
  check(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0,
        where);
  set_no_delay(fd.get());
  return fd;
}

void set_no_delay(int fd) {
  const int on = 1;
  check(::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "TCP_NODELAY");
}

void want_descriptors(unsigned needed) {
  rlimit limit{};
  check(::getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_max < needed)
    throw std::runtime_error("needs " + std::to_string(needed) + " open files, the hard limit is " +
                             std::to_string(limit.rlim_max) + " (ulimit -Hn)");
}

}  // namespace bench
