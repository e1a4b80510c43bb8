// SPDX-License-Identifier: Apache-2.0
//
// Files by name, and what a disk takes its time for.
//
// What writes through to a disk is always made on the pool. What looks up or changes a name takes one or two
// microseconds where the folder is cached, as it mostly is, and ten times as much by way of the pool; on a file system
// behind a network, or a disk that sleeps, it takes milliseconds. Neither place is right for both, so the
// choice is made by what the calls have taken, wherever they were made:
//
//   TENDRIL_INTERCEPT_FILES=auto     (default) in place while the mean of the last calls of that name
//                                    is below what a trip to the pool costs
//                           inline   always in place
//                           pool     always on the pool
//
// One slow call sends the next thirty or so to the pool, until the mean has come down again. Measured, stat() of a
// cached name, interleaved on a loaded machine: one fiber 1.2 to 2.3 us in place and by auto, 18 to 49 us by way of
// the pool; a hundred fibers 1.3 to 4.5 us whichever. So auto costs its two looks at the clock.
//
// Opening a FIFO waits for who opens its other end, which may be a fiber; opening a device may wait for anything. So
// open() looks first at what it is about to open, and makes that call on a thread of its own.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/owned_text.hpp"

namespace tendril::detail {
namespace {

// ---- where

enum class files_mode { automatic, in_place, pool };

files_mode mode_from_environment() noexcept {
  const char* const text = std::getenv("TENDRIL_INTERCEPT_FILES");
  if (text == nullptr || *text == 0 || std::strcmp(text, "auto") == 0) return files_mode::automatic;
  if (std::strcmp(text, "inline") == 0) return files_mode::in_place;
  if (std::strcmp(text, "pool") == 0) return files_mode::pool;
  std::fprintf(
      stderr,
      "tendril: TENDRIL_INTERCEPT_FILES=%s: unknown; known are auto, inline and pool; auto is "
      "used\n",
      text);
  return files_mode::automatic;
}

files_mode mode() noexcept {
  static const files_mode value = mode_from_environment();
  return value;
}

/// About what the pool costs: measured 11 to 18 us.
constexpr std::uint32_t dear_ns = 20'000;
/// No call counts for more, so that one that took a second does not keep the next thousand away.
constexpr std::uint32_t most_ns = 1'000'000;

/// Nanoseconds, an exponential mean of about eight calls. A lost update is a call less in the mean.
std::array<std::atomic<std::uint32_t>, symbol_count> means;

template <class F>
auto timed(symbol what, F& f) {
  const auto begin = std::chrono::steady_clock::now();
  auto result = f();
  const auto took = (std::chrono::steady_clock::now() - begin).count();
  const auto ns = static_cast<std::uint32_t>(took < most_ns ? took : most_ns);
  auto& mean = means[static_cast<std::size_t>(what)];
  const std::uint32_t before = mean.load(std::memory_order_relaxed);
  mean.store(before - before / 8 + ns / 8, std::memory_order_relaxed);
  return result;
}

template <class F>
auto on_disk(symbol what, F f) {
  const files_mode m = mode();
  if (m == files_mode::in_place) return f();
  if (m == files_mode::pool) return on_pool(what, std::move(f));
  if (means[static_cast<std::size_t>(what)].load(std::memory_order_relaxed) < dear_ns)
    return timed(what, f);
  return on_pool(what, [what, f]() mutable { return timed(what, f); });
}

// ---- opening

/// Whether opening it could wait for somebody. The memory devices (null, zero, random...) do not.
bool waits_when_opened(int folder, const char* path, int flags) noexcept {
  if ((flags & (O_NONBLOCK | O_PATH | O_DIRECTORY)) != 0) return false;
  if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) return false;
  constexpr unsigned memory_devices = 1;
  struct stat about;
  if (real().fstatat(folder, path, &about, 0) != 0) return false;
  return S_ISFIFO(about.st_mode) ||
         (S_ISCHR(about.st_mode) && major(about.st_rdev) != memory_devices);
}

[[gnu::noinline]] int out_of_memory() noexcept {
  errno = ENOMEM;
  return -1;
}

int open_anywhere(symbol what, int folder, const char* path, int flags, mode_t mode) {
  struct answer {
    bool waits;
    int fd;
  };
  const int before = errno_now();
  answer a = on_disk(what, [=]() -> answer {
    if (waits_when_opened(folder, path, flags)) return {true, -1};
    return {false, real().openat(folder, path, flags, mode)};
  });
  if (a.waits) {
    owned_text p = copy_of(path);
    if (p == nullptr) return out_of_memory();
    a.fd = on_thread(what, [folder, p = std::move(p), flags, mode] {
      return real().openat(folder, p.get(), flags, mode);
    });
  }
  if (a.fd >= 0) {
    finish(0, before);  // the look may have failed
    descriptor_opened(a.fd);
  }
  return a.fd;
}

}  // namespace

namespace calls {

int open(const char* path, int flags, mode_t mode) {
  return open_anywhere(symbol::open, AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char* path, int flags, mode_t mode) {
  return open_anywhere(symbol::openat, folder, path, flags, mode);
}
int creat(const char* path, mode_t mode) {
  return open_anywhere(symbol::creat, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
// Fortified: libc ends the process if there ought to be a mode.
int __open_2(const char* path, int flags) {
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) return real().__open_2(path, flags);
  return open_anywhere(symbol::__open_2, AT_FDCWD, path, flags, 0);
}
int __openat_2(int folder, const char* path, int flags) {
  if ((flags & (O_CREAT | O_TMPFILE)) != 0) return real().__openat_2(folder, path, flags);
  return open_anywhere(symbol::__openat_2, folder, path, flags, 0);
}

int stat(const char* path, struct stat* to) {
  return on_disk(symbol::stat, [=] { return real().stat(path, to); });
}
int lstat(const char* path, struct stat* to) {
  return on_disk(symbol::lstat, [=] { return real().lstat(path, to); });
}
int fstatat(int folder, const char* path, struct stat* to, int flags) {
  return on_disk(symbol::fstatat, [=] { return real().fstatat(folder, path, to, flags); });
}
int statx(int folder, const char* path, int flags, unsigned wanted, struct statx* to) {
  return on_disk(symbol::statx, [=] { return real().statx(folder, path, flags, wanted, to); });
}
int access(const char* path, int mode) {
  return on_disk(symbol::access, [=] { return real().access(path, mode); });
}
int rename(const char* from, const char* to) {
  return on_disk(symbol::rename, [=] { return real().rename(from, to); });
}
int renameat(int from_folder, const char* from, int to_folder, const char* to) {
  return on_disk(symbol::renameat,
                 [=] { return real().renameat(from_folder, from, to_folder, to); });
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to, unsigned flags) {
  return on_disk(symbol::renameat2,
                 [=] { return real().renameat2(from_folder, from, to_folder, to, flags); });
}
int unlink(const char* path) {
  return on_disk(symbol::unlink, [=] { return real().unlink(path); });
}
int unlinkat(int folder, const char* path, int flags) {
  return on_disk(symbol::unlinkat, [=] { return real().unlinkat(folder, path, flags); });
}
int remove(const char* path) {
  return on_disk(symbol::remove, [=] { return real().remove(path); });
}
int rmdir(const char* path) {
  return on_disk(symbol::rmdir, [=] { return real().rmdir(path); });
}
int mkdir(const char* path, mode_t mode) {
  return on_disk(symbol::mkdir, [=] { return real().mkdir(path, mode); });
}
int mkdirat(int folder, const char* path, mode_t mode) {
  return on_disk(symbol::mkdirat, [=] { return real().mkdirat(folder, path, mode); });
}
int truncate(const char* path, off_t bytes) {
  return on_disk(symbol::truncate, [=] { return real().truncate(path, bytes); });
}
int ftruncate(int fd, off_t bytes) {
  return on_disk(symbol::ftruncate, [=] { return real().ftruncate(fd, bytes); });
}

// ---- through to the disk

int fsync(int fd) {
  return on_pool(symbol::fsync, [=] { return real().fsync(fd); });
}
int fdatasync(int fd) {
  return on_pool(symbol::fdatasync, [=] { return real().fdatasync(fd); });
}
int syncfs(int fd) {
  return on_pool(symbol::syncfs, [=] { return real().syncfs(fd); });
}
void sync() {
  on_pool(symbol::sync, [] {
    real().sync();
    return 0;
  });
}
int sync_file_range(int fd, off_t from, off_t bytes, unsigned flags) {
  return on_pool(symbol::sync_file_range,
                 [=] { return real().sync_file_range(fd, from, bytes, flags); });
}
int msync(void* from, std::size_t bytes, int flags) {
  return on_pool(symbol::msync, [=] { return real().msync(from, bytes, flags); });
}
int fallocate(int fd, int mode, off_t from, off_t bytes) {
  return on_pool(symbol::fallocate, [=] { return real().fallocate(fd, mode, from, bytes); });
}
int posix_fallocate(int fd, off_t from, off_t bytes) {
  return on_pool(symbol::posix_fallocate, [=] { return real().posix_fallocate(fd, from, bytes); });
}

}  // namespace calls
}  // namespace tendril::detail
