// SPDX-License-Identifier: Apache-2.0
//
// Running a body on a fiber of a runtime whose calls are intercepted: by each poller, on one worker, that no
// other thread may replace. The body returns what it saw, and does not assert.
#pragma once

#include "io/descriptor.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <utility>

namespace tendril::test {

template <class Body>
void intercepted(Body body, const std::string& expected) {
  for (const poller_kind kind : {poller_kind::native, poller_kind::portable}) {
    const bool portable = kind == poller_kind::portable;
    CAPTURE(portable);
    runtime rt({.workers = 1, .poller = kind, .max_spare_threads = 0});
    const watchdog dog(portable ? "a call with the portable poller" : "a call", &rt);
    CHECK(run_on_own_stack(rt, body) == expected);
    rt.drain();
  }
}

/// Two connected descriptors; closed at the end. here/there of a socket pair, out/in of a pipe.
class ends {
 public:
  ends(const ends&) = delete;
  ends& operator=(const ends&) = delete;
  ~ends() {
    for (const int fd : fds_)
      if (fd >= 0) ::close(fd);
  }
  int here() const noexcept { return fds_[0]; }
  int there() const noexcept { return fds_[1]; }
  int out() const noexcept { return fds_[0]; }
  int in() const noexcept { return fds_[1]; }
  int release_out() noexcept { return std::exchange(fds_[0], -1); }
  int release_in() noexcept { return std::exchange(fds_[1], -1); }

 protected:
  ends() = default;
  std::array<int, 2> fds_{-1, -1};
};
class socket_pair : public ends {
 public:
  explicit socket_pair(int type = SOCK_STREAM) {
    if (::socketpair(AF_UNIX, type, 0, fds_.data()) != 0) std::abort();
  }
};
class pipe_pair : public ends {
 public:
  explicit pipe_pair(int flags = 0) {
    if (::pipe2(fds_.data(), flags) != 0) std::abort();
  }
};

/// A function of libc's that no front sees being called.
template <class F>
F* behind_the_front(const char* name) {
  static void* const libc = ::dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  void* const found = libc != nullptr ? ::dlsym(libc, name) : nullptr;
  if (found == nullptr) std::abort();
  return reinterpret_cast<F*>(found);
}

/// On a fiber: lets others run until one of them is parked on the descriptor.
inline void until_waited_for(int fd, detail::direction way) {
  for (bool waited_for = false; !waited_for;) {
    this_fiber::yield();
    detail::descriptor* const d = detail::find_descriptor(fd);
    if (d == nullptr) continue;
    const std::lock_guard hold(d->lock());
    waited_for = d->has_waiters(way);
  }
}

/// What is there, or what went wrong.
inline std::string read_text(int fd, std::size_t most = 64) {
  std::string text(most, 0);
  const ssize_t n = ::read(fd, text.data(), most);
  if (n < 0) return std::strerror(errno);
  text.resize(static_cast<std::size_t>(n));
  return text;
}
inline std::string write_text(int fd, const std::string& text) {
  const ssize_t n = ::write(fd, text.data(), text.size());
  return n < 0 ? std::strerror(errno) : std::to_string(n);
}

}  // namespace tendril::test
