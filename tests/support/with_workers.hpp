// SPDX-License-Identifier: Apache-2.0
//
// Running a test's body on runtimes of different sizes, with a watchdog.
//
//     with_workers([](tendril::runtime& rt) { ... });    at 1, 2 and 4 workers, one after the other
//
// The body runs on the test's own thread, as assertions must; it starts fibers, lets them record, joins
// them, and checks. A body that does not return within the limit is hung: the watchdog prints what it
// knows and aborts, so that the core and the log show where. The limit decides nothing else.
#pragma once

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tendril::test {

class watchdog {
 public:
  watchdog(std::string what, const runtime* rt,
           std::chrono::seconds limit = std::chrono::seconds(300))
      : thread_([this, what = std::move(what), rt, limit] {
          std::unique_lock lock(mutex_);
          if (changed_.wait_for(lock, limit, [this] { return done_; })) return;
          std::fprintf(stderr, "watchdog: %s hangs\n", what.c_str());
          if (rt != nullptr) {
            const runtime_stats s = rt->stats();
            std::fprintf(stderr,
                         "  workers %u, fibers alive %llu, switches %llu, steals %llu, sleeps "
                         "%llu, wakeups %llu, "
                         "timers fired %llu\n",
                         s.workers, static_cast<unsigned long long>(s.fibers_alive()),
                         static_cast<unsigned long long>(s.switches),
                         static_cast<unsigned long long>(s.steals),
                         static_cast<unsigned long long>(s.sleeps),
                         static_cast<unsigned long long>(s.wakeups),
                         static_cast<unsigned long long>(s.timers_fired));
          }
          std::abort();
        }) {}
  ~watchdog() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  watchdog(const watchdog&) = delete;
  watchdog& operator=(const watchdog&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::thread thread_;
};

template <class Body>
void with_workers(std::vector<unsigned> sizes, Body body) {
  for (const unsigned workers : sizes) {
    CAPTURE(workers);
    runtime rt({.workers = workers});
    const watchdog dog(std::to_string(workers) + " worker(s)", &rt);
    body(rt);
    rt.drain();
  }
}
template <class Body>
void with_workers(Body body) {
  with_workers({1, 2, 4}, std::move(body));
}

/// Starts `fibers` fibers and `threads` threads, calls f(index) on each, and joins all. Called off fibers, or on
/// one with a stack of its own.
template <class F>
void on_everyone(int fibers, int threads, F f, const fiber_options& options = {}) {
  std::vector<fiber> started;
  std::vector<std::thread> natives;
  started.reserve(static_cast<std::size_t>(fibers));
  for (int i = 0; i != fibers; ++i) started.emplace_back(options, [i, &f] { f(i); });
  for (int i = 0; i != threads; ++i) natives.emplace_back([i, fibers, &f] { f(fibers + i); });
  for (fiber& one : started) one.join();
  for (std::thread& one : natives) one.join();
}
template <class F>
void on_fibers(int fibers, F f, const fiber_options& options = {}) {
  on_everyone(fibers, 0, std::move(f), options);
}

/// TENDRIL_SEED, else a fresh one; printed, so that a failure can be repeated.
inline std::uint64_t stress_seed(const char* test) {
  const char* const given = std::getenv("TENDRIL_SEED");
  const std::uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::printf("%s: TENDRIL_SEED=%llu\n", test, static_cast<unsigned long long>(seed));
  return seed;
}

}  // namespace tendril::test
