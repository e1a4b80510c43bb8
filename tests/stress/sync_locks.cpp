// SPDX-License-Identifier: Apache-2.0
//
// Mutexes, shared mutexes, semaphores and conditions under random deadlines and stop requests:
// exclusion holds, permits are conserved, nobody is forgotten.
#include "support/stress.hpp"
#include "support/with_workers.hpp"

#include <tendril/condition_variable.hpp>
#include <tendril/mutex.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/shared_mutex.hpp>

#include <atomic>
#include <chrono>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <system_error>
#include <vector>

using namespace std::chrono_literals;
using tendril::test::on_everyone;
using tendril::test::rounds;
using tendril::test::stress_seed;
using tendril::test::with_workers;

namespace {

/// Fibers that are stopped and replaced all the time, beside threads that are not.
template <class Body>
void with_stops(std::uint64_t seed, Body body) {
  constexpr int fibers = 12;
  std::minstd_rand random(static_cast<unsigned>(seed));
  std::atomic<bool> done = false;
  std::thread native([&] {
    std::minstd_rand own(static_cast<unsigned>(seed) + 1);
    while (!done) body(own);
  });
  for (auto round = rounds(60, 3); round != 0; --round) {
    std::vector<tendril::fiber> running;
    for (int i = 0; i != fibers; ++i)
      running.emplace_back([&body, own = std::minstd_rand(static_cast<unsigned>(random()))](
                               std::stop_token stop) mutable {
        try {
          while (!stop.stop_requested()) body(own);
        } catch (const std::system_error& e) {
          if (e.code() != std::errc::operation_canceled) throw;
        }
      });
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 2000));
    for (tendril::fiber& f : running) f.request_stop();
    for (tendril::fiber& f : running) f.join();
  }
  done = true;
  native.join();
}

}  // namespace

TEST_SUITE("sync_locks") {
  TEST_CASE("a mutex protects a counter while its waiters are cancelled") {
    const std::uint64_t seed = stress_seed("sync_locks mutex");
    with_workers([seed](tendril::runtime&) {
      tendril::mutex m;
      std::uint64_t counter = 0;
      std::atomic<std::uint64_t> expected = 0;
      with_stops(seed, [&](std::minstd_rand& random) {
        const auto kind = random() % 4;
        std::unique_lock lock(m, std::defer_lock);
        if (kind == 0) static_cast<void>(lock.try_lock());
        else if (kind == 1)
          static_cast<void>(lock.try_lock_for(std::chrono::microseconds(random() % 100)));
        else lock.lock();
        if (!lock) return;
        const std::uint64_t seen = counter;
        if (random() % 4 == 0) tendril::this_fiber::yield();
        counter = seen + 1;
        ++expected;
      });
      CHECK(counter == expected);
      CHECK(m.try_lock());
      m.unlock();
    });
  }

  TEST_CASE("semaphore permits are conserved") {
    const std::uint64_t seed = stress_seed("sync_locks semaphore");
    with_workers([seed](tendril::runtime&) {
      tendril::counting_semaphore<> s(3);
      std::atomic<int> inside = 0;
      std::atomic<int> too_many = 0;
      with_stops(seed, [&](std::minstd_rand& random) {
        if (random() % 2 == 0) {
          if (!s.try_acquire_for(std::chrono::microseconds(random() % 100))) return;
        } else {
          s.acquire();
        }
        too_many += ++inside > 3;
        if (random() % 4 == 0) tendril::this_fiber::yield();
        --inside;
        s.release();
      });
      int left = 0;
      while (s.try_acquire()) ++left;
      CHECK(left == 3);
      CHECK(too_many == 0);
    });
  }

  TEST_CASE("a shared mutex keeps readers and writers apart") {
    const std::uint64_t seed = stress_seed("sync_locks shared");
    with_workers([seed](tendril::runtime&) {
      tendril::shared_mutex m;
      long a = 0;
      long b = 0;
      std::atomic<int> torn = 0;
      with_stops(seed, [&](std::minstd_rand& random) {
        if (random() % 4 == 0) {
          std::unique_lock lock(m, std::defer_lock);
          if (random() % 2 == 0)
            static_cast<void>(lock.try_lock_for(std::chrono::microseconds(random() % 100)));
          else lock.lock();
          if (!lock) return;
          ++a;
          if (random() % 4 == 0) tendril::this_fiber::yield();
          ++b;
        } else {
          std::shared_lock lock(m, std::defer_lock);
          if (random() % 2 == 0)
            static_cast<void>(lock.try_lock_for(std::chrono::microseconds(random() % 100)));
          else lock.lock();
          if (!lock) return;
          torn += a != b;
        }
      });
      CHECK(torn == 0);
      CHECK(m.try_lock());
      m.unlock();
    });
  }

  TEST_CASE("a bounded queue of conditions moves everything though waits are cut short") {
    const std::uint64_t seed = stress_seed("sync_locks condition");
    with_workers([seed](tendril::runtime&) {
      tendril::mutex m;
      tendril::condition_variable changed;
      tendril::condition_variable_any room;
      int queued = 0;
      std::uint64_t in = 0;
      std::uint64_t out = 0;
      const std::uint64_t each = rounds(2000, 20);
      on_everyone(8, 2, [&](int i) {
        std::minstd_rand random(static_cast<unsigned>(seed) + static_cast<unsigned>(i));
        for (std::uint64_t n = 0; n != each; ++n) {
          std::unique_lock lock(m);
          const auto d = std::chrono::microseconds(random() % 50);
          if (i % 2 == 0) {
            while (queued == 4) {
              if (random() % 2 == 0) room.wait(lock);
              else room.wait_for(lock, d);
            }
            ++queued;
            ++in;
            changed.notify_one();
          } else {
            while (queued == 0) {
              if (random() % 2 == 0) changed.wait(lock);
              else changed.wait_for(lock, d);
            }
            --queued;
            ++out;
            lock.unlock();
            room.notify_one();
          }
        }
      });
      CHECK(in == 5 * each);
      CHECK(out == 5 * each);
    });
  }
}
