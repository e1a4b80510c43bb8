// SPDX-License-Identifier: Apache-2.0
//
// Descriptors that are closed, doubled, or change their flags: on fibers and on threads alike.
//
// Whoever is parked on a number that is closed, or replaced by dup2(2), gets EBADF. On a thread the kernel keeps
// the file open for a call in progress, which may then never return; no program can rely on that.
//
// Locks on parts of files are here, too, because fcntl(2) has them: on a fiber as in queues.cpp. To the kernel the
// thread that takes one is as good as any other of the process, or of those who have the open file.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/file_facts.hpp"
#include "intercept/install.hpp"
#include "intercept/lifetimes.hpp"
#include "io/descriptor.hpp"

namespace tendril::detail {

bool before_closing(int fd) noexcept {
  const descriptor* const d = find_descriptor(fd);
  if (d == nullptr || d->is_idle() || in_other_process()) return true;
  return drop_descriptor(fd) != drop_result::closing;
}

namespace {

int doubled(int fd) noexcept {
  if (fd < 0) return fd;
  number_doubled();
  const int before = errno_now();
  descriptor_opened(fd);
  finish(0, before);
  return fd;
}

bool is_open(int fd) noexcept { return real().fcntl(fd, F_GETFD, 0) >= 0; }

void before_closing_range(unsigned first, unsigned last) noexcept {
  last = std::min<unsigned>(last, INT_MAX);
  for_each_adopted(first, last, [](int fd) noexcept { before_closing(fd); });
}

/// With which command a lock is tried that the given one would wait for; -1: that one is no such command.
int try_of(int command) noexcept {
  return command == F_SETLKW ? F_SETLK : command == F_OFD_SETLKW ? F_OFD_SETLK : -1;
}

[[gnu::noinline]] bool try_lock(int fd, int command, long argument, int& result) noexcept {
  const int before = errno;
  result = real().fcntl(fd, try_of(command), argument);
  if (result >= 0 || (errno != EACCES && errno != EAGAIN)) return true;
  errno = before;
  return false;
}

int wait_for_lock(int fd, int command, long argument) {
  int result = 0;
  if (try_lock(fd, command, argument, result)) return result;
  // The kernel has read it, so it is there.
  const auto* const wanted = reinterpret_cast<const struct flock*>(argument);
  return on_thread(symbol::fcntl, interruptible::unless_restarted,
                   [fd, command, lock = *wanted]() mutable {
                     return real().fcntl(fd, command, reinterpret_cast<long>(&lock));
                   });
}

}  // namespace

namespace calls {

int close(int fd) {
  return before_closing(fd) ? real().close(fd) : static_cast<int>(finish(-EBADF, 0));
}

int close_range(unsigned first, unsigned last, int flags) {
  constexpr int only_at_exec = 4;  // CLOSE_RANGE_CLOEXEC
  if (first <= last && (flags & only_at_exec) == 0) before_closing_range(first, last);
  return real().close_range(first, last, flags);
}

void closefrom(int first) {
  before_closing_range(static_cast<unsigned>(std::max(first, 0)), INT_MAX);
  real().closefrom(first);
}

FILE* freopen(const char* path, const char* mode, FILE* stream) {
  if (const int fd = ::fileno(stream); fd >= 0) before_closing(fd);
  return real().freopen(path, mode, stream);
}

int dup(int fd) { return doubled(real().dup(fd)); }

int dup2(int fd, int to) {
  if (fd != to && is_open(fd)) before_closing(to);
  return doubled(real().dup2(fd, to));
}

int dup3(int fd, int to, int flags) {
  if (fd != to && is_open(fd)) before_closing(to);
  return doubled(real().dup3(fd, to, flags));
}

int fcntl(int fd, int command, long argument) {
  if (try_of(command) >= 0 && caller_parks()) return wait_for_lock(fd, command, argument);
  const int result = real().fcntl(fd, command, argument);
  if (command == F_SETFL) flags_changed(fd);
  if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) return doubled(result);
  return result;
}

int ioctl(int fd, unsigned long request, void* argument) {
  const int result = real().ioctl(fd, request, argument);
  if (request == FIONBIO) flags_changed(fd);
  return result;
}

int setsockopt(int fd, int level, int option, const void* value, socklen_t size) {
  const int result = real().setsockopt(fd, level, option, value, size);
  flags_changed(fd);
  return result;
}

}  // namespace calls
}  // namespace tendril::detail
