// SPDX-License-Identifier: Apache-2.0
//
// Opening files by name.
//
// Opening a FIFO waits for who opens its other end, which may be a fiber; opening a device may wait for anything. So
// open() looks first at what it is about to open, and makes that call on a thread of its own. Others: see on_disk.hpp.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/on_disk.hpp"
#include "intercept/owned_text.hpp"

namespace tendril::detail {
namespace {

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
    a.fd =
        on_thread(what, interruptible::unless_restarted, [folder, p = std::move(p), flags, mode] {
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

void sync() {
  on_pool(symbol::sync, [] {
    real().sync();
    return 0;
  });
}

}  // namespace calls
}  // namespace tendril::detail
