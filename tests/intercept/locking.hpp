// SPDX-License-Identifier: Apache-2.0
//
// For tests of calls that return their error: errors by their names; and whether a lock excludes.
#pragma once

#include "intercept/deadline.hpp"
#include "intercept/intercepted.hpp"
#include "support/stress.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

namespace tendril::test {

[[gnu::noinline]] inline long thread_number() { return ::syscall(SYS_gettid); }

inline std::string error_name(int e) {
  switch (e) {
    case 0:
      return "0";
    case EBUSY:
      return "EBUSY";
    case EDEADLK:
      return "EDEADLK";
    case EPERM:
      return "EPERM";
    case EINVAL:
      return "EINVAL";
    case ETIMEDOUT:
      return "ETIMEDOUT";
    default:
      return std::to_string(e);
  }
}

/// After a space. Not by +, of which g++ 12 believes at -O3 that it copies from behind the string.
inline std::string spaced(int e) {
  std::string text(1, ' ');
  text += error_name(e);
  return text;
}

/// Some fibers and some threads count under a lock; where they wait while they hold it, others try meanwhile.
template <class Lock, class Unlock>
void excludes(unsigned workers, Lock lock, Unlock unlock) {
  CAPTURE(workers);
  runtime rt({.workers = workers, .on_blocked_worker = [](std::string_view) {}});
  const watchdog dog("exclusion", &rt, std::chrono::seconds(200));
  constexpr int fibers = 8, threads = 2;
  const int rounds = static_cast<int>(test::rounds(1000));
  int count = 0;
  std::atomic<int> inside{0}, wrong{0}, strayed{0};
  const auto work = [&](bool fiber, int i) {
    lock();
    const long here = thread_number();
    if (inside.fetch_add(1) != 0) ++wrong;
    ++count;
    if (fiber && i % 8 == 0) this_fiber::yield();
    if (fiber && i % 32 == 0) usleep(1);
    if (inside.fetch_sub(1) != 1) ++wrong;
    if (fiber && i % 8 != 0 && thread_number() != here) ++strayed;
    unlock();
  };
  std::vector<std::thread> others;
  for (int t = 0; t != threads; ++t)
    others.emplace_back([&] {
      for (int i = 0; i != rounds; ++i) work(false, i);
    });
  std::vector<fiber> all;
  for (int f = 0; f != fibers; ++f)
    all.push_back(rt.run([&] {
      return fiber([&] {
        for (int i = 0; i != rounds; ++i) work(true, i);
      });
    }));
  for (fiber& f : all) f.join();
  for (std::thread& t : others) t.join();
  CHECK(count == (fibers + threads) * rounds);
  CHECK(wrong == 0);
  CHECK(strayed == 0);
}

}  // namespace tendril::test
