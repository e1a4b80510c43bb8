// SPDX-License-Identifier: Apache-2.0
//
// For tests of calls that wait for somebody: one fiber waits, another one ends the wait; and whether it took another
// thread.
#pragma once

#include "intercept/intercepted.hpp"
#include "intercept/parking_lot.hpp"

#include <tendril/intercept.hpp>

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>

namespace tendril::test {

// Out of line, for g++ 12 takes the copies of their texts for copies from behind a string.
[[gnu::noinline]] inline std::string said(long result) {
  return result >= 0 ? std::to_string(result) : std::strerror(errno);
}

/// Two fibers, the second of which runs when the first has begun to wait, or is done.
[[gnu::noinline]] inline std::string both(const std::function<std::string()>& waits,
                                          const std::function<void()>& ends) {
  std::string first;
  fiber one([&] { first = waits(); });
  fiber two([&] {
    this_fiber::yield();
    ends();
  });
  one.join();
  two.join();
  return first;
}

/// On a fiber: lets others run until that many of them are in a line for libc's locks or for futexes.
inline void until_in_line(unsigned fibers) {
  while (detail::parking_lot::users() < fibers) this_fiber::yield();
}

/// Until the thread whose number is there, or will be, sleeps in the kernel.
inline void until_asleep(const std::atomic<pid_t>& thread) {
  for (;; std::this_thread::yield()) {
    const pid_t id = thread;
    const std::string path = "/proc/self/task/" + std::to_string(id) + "/stat";
    std::FILE* const f = id != 0 ? std::fopen(path.c_str(), "r") : nullptr;
    if (f == nullptr) continue;
    char text[256] = {};
    const char* const name_end =
        std::fgets(text, sizeof text, f) != nullptr ? std::strrchr(text, ')') : nullptr;
    std::fclose(f);
    if (name_end != nullptr && name_end[2] == 'S') return;
  }
}

/// How many calls of the symbol were made on another thread meanwhile.
[[gnu::noinline]] inline std::string elsewhere(const char* symbol, const std::function<void()>& f) {
  const auto now = [&] {
    for (const auto& one : interception::counts())
      if (std::strcmp(one.symbol, symbol) == 0) return one.elsewhere;
    return std::uint64_t{0};
  };
  const auto before = now();
  f();
  std::string text(", elsewhere ");
  return text.append(std::to_string(now() - before));
}

/// Nobody gets a new descriptor.
class no_descriptors {
 public:
  no_descriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit none{0, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~no_descriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  no_descriptors(const no_descriptors&) = delete;
  no_descriptors& operator=(const no_descriptors&) = delete;

 private:
  rlimit before_{};
};

/// Makes the loop of the worker, which has descriptors of its own.
inline void wait_for_something() {
  pipe_pair through;
  both([&] { return read_text(through.out()); }, [&] { write_text(through.in(), "x"); });
}

/// A file without a name.
inline int nameless() {
  char name[] = "/tmp/tendril-XXXXXX";
  const int fd = mkstemp(name);
  unlink(name);
  return fd;
}

}  // namespace tendril::test
