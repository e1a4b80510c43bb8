// SPDX-License-Identifier: Apache-2.0
//
// basic_spinlock on real threads. That it excludes in every interleaving is shown in tests/model.
#include "base/spinlock.hpp"

#include <doctest/doctest.h>

#include <mutex>
#include <thread>
#include <vector>

namespace {

using namespace tendril::detail;

TEST_SUITE("spinlock") {
  TEST_CASE("try_lock fails exactly while it is held") {
    spinlock lock;
    CHECK(lock.try_lock());
    CHECK_FALSE(lock.try_lock());
    lock.unlock();
    CHECK(lock.try_lock());
    lock.unlock();
  }

  TEST_CASE("more threads than cores lose no increment") {
    constexpr int threads = 8;
    constexpr int rounds = 20'000;
    spinlock lock;
    long counter = 0;  // plain: ThreadSanitizer sees a race if the lock does not order
    std::vector<std::thread> pool;
    for (int t = 0; t != threads; ++t)
      pool.emplace_back([&] {
        for (int i = 0; i != rounds; ++i) {
          const std::lock_guard hold(lock);
          ++counter;
        }
      });
    for (std::thread& thread : pool) thread.join();
    CHECK(counter == long{threads} * rounds);
  }

  TEST_CASE("a failing try_lock leaves the holder's lock alone") {
    spinlock lock;
    lock.lock();
    bool taken = true;
    std::thread([&] { taken = lock.try_lock(); }).join();
    CHECK_FALSE(taken);
    lock.unlock();
    std::thread([&] {
      taken = lock.try_lock();
      if (taken) lock.unlock();
    }).join();
    CHECK(taken);
  }
}

}  // namespace
