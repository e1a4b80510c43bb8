// SPDX-License-Identifier: Apache-2.0
#include "platform/socket_calls.hpp"

#include <tendril/detail/sanitizers.hpp>

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace tendril::platform {
namespace {

// The sanitizers watch the C library's functions: buffers are checked there, and what a byte that was
// sent and received has ordered is learnt there.
constexpr bool watched = TENDRIL_ASAN || TENDRIL_TSAN;

}  // namespace

long receive_now(int socket, void* to, std::size_t bytes) noexcept {
  const long n = watched
                     ? ::recv(socket, to, bytes, MSG_DONTWAIT)
                     : ::syscall(SYS_recvfrom, socket, to, bytes, MSG_DONTWAIT, nullptr, nullptr);
  return n >= 0 ? n : -errno;
}

long send_now(int socket, const void* from, std::size_t bytes) noexcept {
  constexpr int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  const long n = watched ? ::send(socket, from, bytes, flags)
                         : ::syscall(SYS_sendto, socket, from, bytes, flags, nullptr, 0);
  return n >= 0 ? n : -errno;
}

}  // namespace tendril::platform
