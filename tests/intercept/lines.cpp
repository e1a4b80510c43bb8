// SPDX-License-Identifier: Apache-2.0
//
// Fibers in line for libc's locks, each waiting without a limit behind another: none is forgotten, however the lock
// is let go of, and whatever becomes of those in front.
#include "intercept/intercepted.hpp"
#include "intercept/parking_lot.hpp"
#include "sched/thread_pin.hpp"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

using namespace tendril;
using namespace std::chrono_literals;
using detail::parking_lot;
using test::watchdog;

namespace {

/// Until so many fibers are in line for something, or own it.
void until_in_line(std::uint32_t count) {
  while (parking_lot::users() != count) std::this_thread::sleep_for(100us);
}

/// From now on fibers know that the mutex is released silently.
void wait_in_libc(std::mutex& m) {
  std::condition_variable c;
  std::unique_lock hold(m);
  c.wait_for(hold, 0ns);
}

runtime_options with(unsigned workers) {
  return {.workers = workers, .on_blocked_worker = [](std::string_view) {}};
}

/// One that has its own worker's thread to itself.
template <class F>
fiber start_on(runtime& rt, int worker, F f) {
  return rt.run([&] { return fiber(test::stack_of_its_own({.affinity = worker}), f); });
}

}  // namespace

TEST_SUITE("lines") {
  // The first of the line gets the mutex, and waits with it for a condition in a place where it cannot park.
  TEST_CASE(
      "a pinned fiber that waits for a condition lets go of a mutex that others are in line for") {
    runtime rt(with(2));
    const watchdog dog("a pinned fiber", &rt);
    std::mutex m;
    std::condition_variable c;
    bool first = false, second = false;
    wait_in_libc(m);
    m.lock();
    fiber one = start_on(rt, 0, [&] {
      std::unique_lock hold(m);
      detail::pin_thread();
      first = true;
      c.wait(hold, [&] { return second; });
      hold.unlock();
      detail::unpin_thread();
    });
    until_in_line(1);
    fiber two = start_on(rt, 1, [&] {
      const std::scoped_lock hold(m);
      second = first;
      c.notify_one();
    });
    until_in_line(2);
    m.unlock();
    one.join();
    two.join();
    CHECK(second);
  }

  TEST_CASE("a fiber that waits for a condition of many processes lets go of its mutex") {
    runtime rt(with(2));
    const watchdog dog("a condition of many processes", &rt);
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_cond_t c;
    pthread_cond_init(&c, &a);
    pthread_condattr_destroy(&a);
    // Of an address that nothing is known of.
    std::vector<std::mutex> some(64);
    std::mutex* unknown = nullptr;
    for (std::mutex& one : some)
      if (!parking_lot::is_silent(&one)) unknown = &one;
    REQUIRE(unknown != nullptr);
    std::mutex& m = *unknown;
    m.lock();
    bool first = false, second = false;
    fiber one = start_on(rt, 0, [&] {
      const std::scoped_lock hold(m);
      first = true;
      while (!second) pthread_cond_wait(&c, m.native_handle());
    });
    until_in_line(1);
    fiber two = start_on(rt, 1, [&] {
      const std::scoped_lock hold(m);
      second = first;
      pthread_cond_signal(&c);
    });
    until_in_line(2);
    m.unlock();
    one.join();
    two.join();
    CHECK(second);
    pthread_cond_destroy(&c);
  }

  // What is known of a mutex is known by a hash of its address. The one of another mutex tells nothing of who is in
  // line for this one.
  TEST_CASE(
      "a thread waits for a condition with one mutex, then one with another that looks the same") {
    runtime rt(with(1));
    const watchdog dog("mutexes that look the same", &rt);
    std::vector<std::mutex> all(1 << 16);
    const auto is_unknown = [&](std::size_t i) { return !parking_lot::is_silent(&all[i]); };
    // How far those are apart that look the same: often, wherever the first is.
    std::vector<std::size_t> unknown;
    for (std::size_t i = 1; i != all.size(); ++i)
      if (is_unknown(i)) unknown.push_back(i);
    wait_in_libc(all[0]);
    std::vector<std::size_t> distances;
    for (const std::size_t i : unknown)
      if (!is_unknown(i)) distances.push_back(i);
    REQUIRE(!distances.empty());
    bool found = false;
    for (std::size_t at = 1; !found && at != all.size(); ++at) {
      const std::size_t distance = distances[at % distances.size()];
      if (at + distance >= all.size() || !is_unknown(at) || !is_unknown(at + distance)) continue;
      std::mutex& m = all[at + distance];
      std::condition_variable c;
      bool there = false;
      std::unique_lock hold(m);
      fiber one = rt.run([&] {
        return fiber([&] {
          const std::scoped_lock here(m);
          there = true;
          c.notify_one();
        });
      });
      until_in_line(1);
      wait_in_libc(all[at]);
      found = !is_unknown(at + distance);
      c.wait(hold, [&] { return there; });
      hold.unlock();
      one.join();
      CHECK(there);
    }
    CHECK(found);
  }

  // A writer is first in line, and overtaken by a reader that is no fiber. A reader behind it is not kept waiting by it.
  TEST_CASE("readers are let in while others read, though a writer is in line") {
    for (const bool limited : {false, true}) {
      CAPTURE(limited);
      runtime rt(with(1));
      const watchdog dog("readers and a writer", &rt);
      pthread_rwlock_t l = PTHREAD_RWLOCK_INITIALIZER;
      std::atomic<bool> overtaken{false};
      std::atomic<int> written{-1}, read{-1};
      pthread_rwlock_wrlock(&l);
      fiber writer = rt.run([&] {
        return fiber([&] {
          timespec soon{};
          clock_gettime(CLOCK_REALTIME, &soon);
          soon.tv_sec += 1;
          const int result =
              limited ? pthread_rwlock_timedwrlock(&l, &soon) : pthread_rwlock_wrlock(&l);
          if (result == 0) pthread_rwlock_unlock(&l);
          written = result;
        });
      });
      until_in_line(1);
      fiber reader = rt.run([&] {
        return fiber([&] {
          read = pthread_rwlock_rdlock(&l);
          if (read == 0) pthread_rwlock_unlock(&l);
        });
      });
      until_in_line(2);
      // Nobody in line runs before the lock is taken again.
      std::atomic<bool> busy{false};
      fiber spins = rt.run([&] {
        return fiber([&] {
          busy = true;
          while (!overtaken) {
          }
        });
      });
      while (!busy) std::this_thread::yield();
      pthread_rwlock_unlock(&l);
      const int taken = pthread_rwlock_tryrdlock(&l);
      overtaken = true;
      spins.join();
      reader.join();
      if (limited) writer.join();
      CHECK(taken == 0);
      CHECK(read == 0);
      CHECK(written == (limited ? ETIMEDOUT : -1));
      pthread_rwlock_unlock(&l);
      if (!limited) writer.join();
      pthread_rwlock_destroy(&l);
    }
  }
}
