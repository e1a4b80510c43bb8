// SPDX-License-Identifier: Apache-2.0
//
// backtrace() loads libgcc_s with dlopen at its first call, which is why it is primed. After that it
// takes dl_iterate_phdr's lock: a fault inside dlopen could hang here, and is given up for that.
#include "platform/trace.hpp"

#include <execinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace tendril::platform {

void write_error(const char* text, std::size_t size) noexcept {
  while (size != 0) {
    const ssize_t n = ::write(STDERR_FILENO, text, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    text += n;
    size -= static_cast<std::size_t>(n);
  }
}

void prime_trace() noexcept {
  void* frames[4];
  ::backtrace(frames, 4);
}

std::size_t capture_trace(const void** addresses, std::size_t most) noexcept {
  return static_cast<std::size_t>(
      ::backtrace(const_cast<void**>(addresses), static_cast<int>(most)));
}

void write_trace(unsigned skip) noexcept {
  constexpr int most = 64;  // the innermost frames of a runaway recursion say enough
  void* frames[most];
  const int n = ::backtrace(frames, most);
  const int first = std::min(n, static_cast<int>(skip) + 1);  // and this function
  ::backtrace_symbols_fd(frames + first, n - first, STDERR_FILENO);
  if (n == most) {
    constexpr char more[] = "... (more frames)\n";
    write_error(more, sizeof more - 1);
  }
}

}  // namespace tendril::platform
