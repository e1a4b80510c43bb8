// SPDX-License-Identifier: Apache-2.0
#include "support/with_workers.hpp"

#include <tendril/shared_mutex.hpp>

#include <atomic>
#include <chrono>
#include <mutex>
#include <shared_mutex>
#include <system_error>

using namespace std::chrono_literals;
using tendril::test::on_everyone;
using tendril::test::on_fibers;
using tendril::test::with_workers;

TEST_SUITE("shared_mutex") {
  TEST_CASE("writers exclude everybody, readers only writers") {
    with_workers([](tendril::runtime&) {
      tendril::shared_mutex m;
      long a = 0;
      long b = 0;
      std::atomic<long> torn = 0;
      on_everyone(40, 2, [&](int i) {
        for (int n = 0; n != 100; ++n) {
          if (i % 4 == 0) {
            const std::unique_lock lock(m);
            ++a;
            if (n % 8 == 0) tendril::this_fiber::yield();
            ++b;
          } else {
            const std::shared_lock lock(m);
            torn += a != b;
            if (n % 8 == 0) tendril::this_fiber::yield();
            torn += a != b;
          }
        }
      });
      CHECK(torn == 0);
      CHECK(a == 11 * 100);
      CHECK(m.try_lock());
      CHECK_FALSE(m.try_lock_shared());
      m.unlock();
      CHECK(m.try_lock_shared());
      CHECK(m.try_lock_shared());
      CHECK_FALSE(m.try_lock());
      m.unlock_shared();
      m.unlock_shared();
    });
  }

  TEST_CASE("timed forms give up, and a writer that gives up lets readers pass") {
    with_workers([](tendril::runtime&) {
      tendril::shared_mutex m;
      m.lock_shared();
      std::atomic<int> writer_failed = 0;
      std::atomic<int> reader_passed = 0;
      on_everyone(8, 1, [&](int i) {
        if (i % 2 == 0) {
          writer_failed += !m.try_lock_for(2ms);
        } else if (m.try_lock_shared_for(10min)) {
          ++reader_passed;
          m.unlock_shared();
        }
      });
      CHECK(writer_failed == 5);
      CHECK(reader_passed == 4);
      m.unlock_shared();
      m.lock();
      std::atomic<int> failed = 0;
      on_fibers(2, [&](int) {
        failed += !m.try_lock_shared_until(std::chrono::system_clock::now() + 1ms);
        failed += !m.try_lock_until(std::chrono::steady_clock::now() + 1ms);
      });
      CHECK(failed == 4);
      m.unlock();
    });
  }

  TEST_CASE("a stop request ends either wait") {
    with_workers([](tendril::runtime&) {
      tendril::shared_mutex m;
      m.lock();
      std::atomic<int> canceled = 0;
      const auto wait = [&](bool shared) {
        tendril::fiber f([&] {
          try {
            if (shared) m.lock_shared();
            else m.lock();
          } catch (const std::system_error& e) {
            canceled += e.code() == std::errc::operation_canceled;
          }
        });
        f.request_stop();
        f.join();
      };
      wait(true);
      wait(false);
      CHECK(canceled == 2);
      m.unlock();
      CHECK(m.try_lock());
      m.unlock();
    });
  }
}
