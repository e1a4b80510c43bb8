// SPDX-License-Identifier: Apache-2.0
#include "support/with_workers.hpp"

#include <tendril/semaphore.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <system_error>

using namespace std::chrono_literals;
using tendril::test::on_everyone;
using tendril::test::on_fibers;
using tendril::test::with_workers;

TEST_SUITE("semaphore") {
  TEST_CASE("never admits more than its permits") {
    with_workers([](tendril::runtime&) {
      tendril::counting_semaphore<3> s(3);
      std::atomic<int> inside = 0;
      std::atomic<int> most = 0;
      on_everyone(20, 2, [&](int) {
        for (int n = 0; n != 100; ++n) {
          s.acquire();
          const int now = ++inside;
          int seen = most;
          while (now > seen && !most.compare_exchange_weak(seen, now)) {
          }
          if (n % 4 == 0) tendril::this_fiber::yield();
          --inside;
          s.release();
        }
      });
      CHECK(most <= 3);
      CHECK(s.try_acquire());
      CHECK(s.try_acquire());
      CHECK(s.try_acquire());
      CHECK_FALSE(s.try_acquire());
    });
  }

  TEST_CASE("release(n) wakes n waiters and keeps the rest") {
    with_workers([](tendril::runtime&) {
      tendril::counting_semaphore<> s(0);
      std::atomic<int> through = 0;
      tendril::fiber releaser([&] { s.release(70); });
      on_everyone(60, 1, [&](int) {
        s.acquire();
        ++through;
      });
      releaser.join();
      CHECK(through == 61);
      int left = 0;
      while (s.try_acquire()) ++left;
      CHECK(left == 9);
    });
  }

  TEST_CASE("timed acquire gives up and takes no permit") {
    with_workers([](tendril::runtime&) {
      tendril::binary_semaphore s(0);
      std::atomic<int> failed = 0;
      on_everyone(3, 1, [&](int) {
        failed += !s.try_acquire_for(1ms);
        failed += !s.try_acquire_until(std::chrono::system_clock::now() + 1ms);
      });
      CHECK(failed == 8);
      s.release();
      CHECK(s.try_acquire_for(10min));
    });
  }

  TEST_CASE("a stop request ends acquire and takes no permit") {
    with_workers([](tendril::runtime&) {
      tendril::counting_semaphore<5> s(0);
      bool was_canceled = false;
      tendril::fiber f([&] {
        try {
          s.acquire();
        } catch (const std::system_error& e) {
          was_canceled = e.code() == std::errc::operation_canceled;
        }
      });
      f.request_stop();
      f.join();
      s.release();
      CHECK(was_canceled);
      CHECK(s.try_acquire());
    });
  }

  TEST_CASE("who has acquired may destroy it") {
    with_workers([](tendril::runtime&) {
      for (int round = 0; round != 200; ++round) {
        auto s = std::make_unique<tendril::binary_semaphore>(0);
        tendril::fiber f([raw = s.get()] { raw->release(); });
        s->acquire();
        s.reset();
        f.join();
      }
    });
  }
}
