// SPDX-License-Identifier: Apache-2.0
#include "io/operation.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "io/address.hpp"
#include "platform/socket_calls.hpp"

// Every function here must stay out of line, see the header.
#define TENDRIL_OUT_OF_LINE [[gnu::noinline]]

namespace tendril::detail {
namespace {

template <class Call>
long uninterrupted(Call call) noexcept {
  for (;;) {
    const auto n = call();
    if (n >= 0) return static_cast<long>(n);
    if (errno != EINTR) return errno == EWOULDBLOCK ? -EAGAIN : -errno;
  }
}

}  // namespace

TENDRIL_OUT_OF_LINE attempt sys_receive(int fd, void* to, std::size_t bytes) noexcept {
  long n;
  do {
    n = platform::receive_now(fd, to, bytes);
  } while (n == -EINTR);
  // 0 is the end of the stream, and stays: not drained, the next read shall find it again.
  return {n, n > 0 && static_cast<std::size_t>(n) < bytes};
}

TENDRIL_OUT_OF_LINE attempt sys_send(int fd, const void* from, std::size_t bytes) noexcept {
  long n;
  do {
    n = platform::send_now(fd, from, bytes);
  } while (n == -EINTR);
  return {n};
}

TENDRIL_OUT_OF_LINE attempt sys_send_vector(int fd, const iovec* parts,
                                            std::size_t count) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts);
  message.msg_iovlen = count;
  return {uninterrupted([&] { return ::sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL); })};
}

TENDRIL_OUT_OF_LINE attempt sys_receive_from(int fd, void* to, std::size_t bytes, sockaddr* from,
                                             unsigned* length) noexcept {
  const unsigned room = *length;
  return {uninterrupted([&] {
    socklen_t size = room;
    const auto n = ::recvfrom(fd, to, bytes, MSG_DONTWAIT, from, &size);
    *length = size;
    return n;
  })};
}

TENDRIL_OUT_OF_LINE attempt sys_send_to(int fd, const void* from, std::size_t bytes,
                                        const sockaddr* to, unsigned length) noexcept {
  return {uninterrupted(
      [&] { return ::sendto(fd, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL, to, length); })};
}

TENDRIL_OUT_OF_LINE attempt sys_accept(int fd, sockaddr* peer, unsigned* length) noexcept {
  const unsigned room = length != nullptr ? *length : 0;
  return {uninterrupted([&] {
    socklen_t size = room;
    const int accepted = ::accept4(fd, peer, length != nullptr ? &size : nullptr, SOCK_CLOEXEC);
    if (length != nullptr) *length = size;
    return accepted;
  })};
}

TENDRIL_OUT_OF_LINE long sys_connect(int fd, const sockaddr* peer, unsigned length) noexcept {
  if (::connect(fd, peer, length) == 0) return 0;
  // Interrupted, it goes on in the background all the same.
  return errno == EINTR ? -EINPROGRESS : -errno;
}

TENDRIL_OUT_OF_LINE long sys_connected(int fd) noexcept {
  if (const long events = sys_poll(fd, POLLOUT); events <= 0) return events < 0 ? events : -EAGAIN;
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return -errno;
  return -error;
}

TENDRIL_OUT_OF_LINE long sys_poll(int fd, short events) noexcept {
  pollfd one{fd, events, 0};
  const long n = uninterrupted([&] { return ::poll(&one, 1, 0); });
  if (n <= 0) return n;
  return (one.revents & POLLNVAL) != 0 ? -EBADF : one.revents;
}

TENDRIL_OUT_OF_LINE long sys_read(int fd, void* to, std::size_t bytes) noexcept {
  return uninterrupted([&] { return ::read(fd, to, bytes); });
}

TENDRIL_OUT_OF_LINE long sys_write(int fd, const void* from, std::size_t bytes) noexcept {
  return uninterrupted([&] { return ::write(fd, from, bytes); });
}

void throw_on_socket(std::error_code ec, const char* operation, descriptor_ref ref) {
  throw std::system_error(ec, std::string(operation) + " on " + describe_socket(ref));
}

}  // namespace tendril::detail
