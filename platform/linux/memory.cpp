// SPDX-License-Identifier: Apache-2.0
//
// Address space on Linux: private anonymous mappings with MAP_NORESERVE, madvise for the rest.
#include "platform/memory.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

// From linux/mman.h; the C library's headers may be older than the kernel we run on.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102  // Linux 6.13
#endif
// From linux/pidfd.h. Not a descriptor of our own: it need not be kept, and after a fork it does not
// name the parent.
#ifndef PIDFD_SELF_THREAD_GROUP
#define PIDFD_SELF_THREAD_GROUP (-10001)  // Linux 6.15
#endif

namespace tendril::platform {
namespace {

// Test hook. `skip` counts down first, then `fail`. Relaxed: a test arms it before it starts threads.
std::atomic<bool> reservations_armed{false};
std::atomic<std::ptrdiff_t> reservations_to_skip{0};
std::atomic<std::ptrdiff_t> reservations_to_fail{0};
std::atomic<bool> guards_fail{false};

bool reservation_must_fail() noexcept {
  if (!reservations_armed.load(std::memory_order_relaxed)) return false;
  if (reservations_to_skip.fetch_sub(1, std::memory_order_relaxed) > 0) return false;
  return reservations_to_fail.fetch_sub(1, std::memory_order_relaxed) > 0;
}

/// madvise that repeats what was only interrupted or momentarily refused. Guard installation reports
/// EAGAIN (as restarted EINTR) when it races with page faults of neighbours too often.
bool advise(void* low, std::size_t bytes, int advice) noexcept {
  for (int tries = 0; tries < 100; ++tries) {
    if (::madvise(low, bytes, advice) == 0) return true;
    if (errno != EAGAIN && errno != EINTR) return false;
  }
  return false;
}

bool probe_guards() noexcept {
  const std::size_t page = page_size();
  void* p = ::mmap(nullptr, page, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return false;
  const bool ok = advise(p, page, MADV_GUARD_INSTALL);  // EINVAL before 6.13
  ::munmap(p, page);
  return ok;
}

}  // namespace

std::size_t page_size() noexcept {
  // Not a function-local static: its guard is not async-signal-safe on first use. Racing first calls
  // store the same value.
  static std::atomic<std::size_t> cached{0};
  std::size_t value = cached.load(std::memory_order_relaxed);
  if (value == 0) [[unlikely]] {
    value = ::getauxval(AT_PAGESZ);
    cached.store(value, std::memory_order_relaxed);
  }
  return value;
}

void* reserve_memory(std::size_t bytes, std::size_t alignment) noexcept {
  if (reservation_must_fail()) return nullptr;
  const std::size_t page = page_size();
  const std::size_t slack = alignment > page ? alignment - page : 0;
  if (bytes == 0 || bytes > SIZE_MAX - slack) return nullptr;
  void* p = ::mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  // The kernel aligns to pages only: cut off what is in front of the aligned start and behind the end.
  auto* low = static_cast<std::byte*>(p);
  const std::size_t before =
      (alignment - reinterpret_cast<std::uintptr_t>(low) % alignment) % alignment;
  if (before != 0) ::munmap(low, before);
  if (slack > before) ::munmap(low + before + bytes, slack - before);
  return low + before;
}

void release_memory(void* low, std::size_t bytes) noexcept { ::munmap(low, bytes); }

void discard_memory(void* low, std::size_t bytes) noexcept { advise(low, bytes, MADV_DONTNEED); }

bool populate_memory(void* low, std::size_t bytes) noexcept {
  return advise(low, bytes, MADV_POPULATE_WRITE);
}

void advise_huge_pages(void* low, std::size_t bytes, huge_pages advice) noexcept {
  // EINVAL on kernels built without transparent huge pages, where there is nothing to advise.
  advise(low, bytes, advice == huge_pages::never ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
}

bool guards_supported() noexcept {
  static const bool supported = probe_guards();
  return supported;
}

bool install_guard(void* low, std::size_t bytes) noexcept {
  if (guards_fail.load(std::memory_order_relaxed)) return false;
  return guards_supported() && advise(low, bytes, MADV_GUARD_INSTALL);
}

unsigned install_guards(std::byte* const* pages, unsigned count) noexcept {
  const std::size_t page = page_size();
  unsigned done = 0;
#ifdef SYS_process_madvise
  // EBADF before Linux 6.15; EPERM or ENOSYS in a sandbox. Whoever refuses once is not asked again.
  static std::atomic<bool> refused{false};
  constexpr unsigned most = 64;
  while (count - done > 1 && guards_supported() && !guards_fail.load(std::memory_order_relaxed) &&
         !refused.load(std::memory_order_relaxed)) {
    std::array<iovec, most> ranges;
    const unsigned n = std::min(count - done, most);
    for (unsigned i = 0; i != n; ++i) ranges[i] = {pages[done + i], page};
    const long advised = ::syscall(SYS_process_madvise, PIDFD_SELF_THREAD_GROUP, ranges.data(),
                                   std::size_t{n}, MADV_GUARD_INSTALL, 0U);
    if (advised < 0) {
      if (errno != EAGAIN && errno != EINTR) refused.store(true, std::memory_order_relaxed);
      break;
    }
    done += static_cast<unsigned>(static_cast<std::size_t>(advised) / page);
    if (static_cast<std::size_t>(advised) != n * page) break;
  }
#endif
  while (done != count && install_guard(pages[done], page)) ++done;
  return done;
}

bool protect_none(void* low, std::size_t bytes) noexcept {
  if (guards_fail.load(std::memory_order_relaxed)) return false;
  return ::mprotect(low, bytes, PROT_NONE) == 0;
}

std::size_t max_map_count() noexcept {
  const int fd = ::open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 65530;  // the kernel's default; /proc may not be mounted
  char text[32];
  const ssize_t n = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  if (n <= 0) return 65530;
  text[n] = '\0';
  return std::strtoul(text, nullptr, 10);
}

std::size_t map_count() noexcept {
  const int fd = ::open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  char
      text[4096];  // the kernel hands out at most a page at a time; callers are on thread stacks or
                   // fibers alike, and this is what the smallest fiber stack can take
  std::size_t lines = 0;
  for (;;) {
    const ssize_t n = ::read(fd, text, sizeof text);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    for (ssize_t i = 0; i < n; ++i) lines += text[i] == '\n';
  }
  ::close(fd);
  return lines;
}

bool this_thread_stack(stack_bounds& out) noexcept {
  pthread_attr_t attributes;
  if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return false;
  void* low = nullptr;
  std::size_t bytes = 0;
  std::size_t guard = 0;
  const bool known = ::pthread_attr_getstack(&attributes, &low, &bytes) == 0 &&
                     ::pthread_attr_getguardsize(&attributes, &guard) == 0;
  ::pthread_attr_destroy(&attributes);
  if (!known) return false;
  out.low = static_cast<std::byte*>(low) + guard;
  out.high = static_cast<std::byte*>(low) + bytes;
  return true;
}

bool is_resident(const void* address) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(address) & ~(page_size() - 1);
  unsigned char state = 0;
  return ::mincore(reinterpret_cast<void*>(at), page_size(), &state) == 0 && (state & 1) != 0;
}

void fail_reservations(std::size_t succeed, std::size_t fail) noexcept {
  reservations_to_skip.store(static_cast<std::ptrdiff_t>(succeed), std::memory_order_relaxed);
  reservations_to_fail.store(static_cast<std::ptrdiff_t>(fail), std::memory_order_relaxed);
  reservations_armed.store(fail != 0, std::memory_order_relaxed);
}

void fail_guards(bool fail) noexcept { guards_fail.store(fail, std::memory_order_relaxed); }

}  // namespace tendril::platform
