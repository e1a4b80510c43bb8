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

/// A call of the kernel with six arguments, the last two 0. Inlined where that is known how to do: code for
/// segmented stacks enters libc's syscall() by a detour, and who has errno in his hand need not store it.
[[maybe_unused]] long call_kernel(long number, long a, const void* b, std::size_t c,
                                  long d) noexcept {
#if defined(__x86_64__) && defined(__LP64__)
  long result;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = 0;
  register long r9 asm("r9") = 0;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
#else
  const long result = ::syscall(number, a, b, c, d, 0L, 0L);
  return result >= 0 ? result : -errno;
#endif
}

}  // namespace

long receive_now(int socket, void* to, std::size_t bytes) noexcept {
  if constexpr (watched) {
    const long n = ::recv(socket, to, bytes, MSG_DONTWAIT);
    return n >= 0 ? n : -errno;
  } else {
    return call_kernel(SYS_recvfrom, socket, to, bytes, MSG_DONTWAIT);
  }
}

long send_now(int socket, const void* from, std::size_t bytes, bool signals) noexcept {
  const int flags = signals ? MSG_DONTWAIT : MSG_DONTWAIT | MSG_NOSIGNAL;
  if constexpr (watched) {
    const long n = ::send(socket, from, bytes, flags);
    return n >= 0 ? n : -errno;
  } else {
    return call_kernel(SYS_sendto, socket, from, bytes, flags);
  }
}

}  // namespace tendril::platform
