// SPDX-License-Identifier: Apache-2.0
#include "support/with_workers.hpp"

#include <tendril/condition_variable.hpp>
#include <tendril/mutex.hpp>
#include <tendril/shared_mutex.hpp>

#include <atomic>
#include <chrono>
#include <mutex>
#include <stop_token>
#include <system_error>

using namespace std::chrono_literals;
using tendril::test::on_everyone;
using tendril::test::on_fibers;
using tendril::test::with_workers;

namespace {

// Each case runs with both classes.
struct plain {
  using condition = tendril::condition_variable;
  using mutex = tendril::mutex;
};
struct any {
  using condition = tendril::condition_variable_any;
  using mutex = tendril::mutex;
};
struct any_std {
  using condition = tendril::condition_variable_any;
  using mutex = tendril::shared_mutex;
};

}  // namespace

TEST_SUITE("condition_variable") {
  TEST_CASE_TEMPLATE("hands work between fibers and threads", K, plain, any, any_std) {
    with_workers([](tendril::runtime&) {
      typename K::mutex m;
      typename K::condition ready;
      int available = 0;
      int taken = 0;
      on_everyone(12, 2, [&](int i) {
        for (int n = 0; n != 200; ++n) {
          std::unique_lock lock(m);
          if (i % 2 == 0) {
            ++available;
            lock.unlock();
            ready.notify_one();
          } else {
            ready.wait(lock, [&] { return available != 0; });
            --available;
            ++taken;
          }
        }
      });
      CHECK(available == 0);
      CHECK(taken == 7 * 200);
    });
  }

  TEST_CASE_TEMPLATE("notify_all lets every waiter go", K, plain, any, any_std) {
    with_workers([](tendril::runtime&) {
      typename K::mutex m;
      typename K::condition changed;
      bool open = false;
      int waiting = 0;
      std::atomic<int> passed = 0;
      on_everyone(100, 2, [&](int i) {
        std::unique_lock lock(m);
        if (i == 0) {
          // Hundred in three rounds of the waking batch.
          while (waiting != 101) {
            lock.unlock();
            tendril::this_fiber::yield();
            lock.lock();
          }
          open = true;
          changed.notify_all();
        } else {
          ++waiting;
          changed.wait(lock, [&] { return open; });
        }
        ++passed;
      });
      CHECK(passed == 102);
    });
  }

  TEST_CASE_TEMPLATE("timed waits time out, holding the lock", K, plain, any, any_std) {
    with_workers([](tendril::runtime&) {
      typename K::mutex m;
      typename K::condition never;
      int timeouts = 0;
      on_everyone(3, 1, [&](int) {
        std::unique_lock lock(m);
        timeouts += never.wait_for(lock, 1ms) == std::cv_status::timeout;
        timeouts += never.wait_until(lock, std::chrono::system_clock::now() + 1ms) ==
                    std::cv_status::timeout;
        timeouts += !never.wait_for(lock, 1ms, [] { return false; });
        timeouts += never.wait_for(lock, 0ms, [] { return true; });
      });
      CHECK(timeouts == 16);
    });
  }

  TEST_CASE_TEMPLATE("a stop request ends the wait; the lock is held again", K, plain, any,
                     any_std) {
    with_workers([](tendril::runtime&) {
      typename K::mutex m;
      typename K::condition never;
      bool was_canceled = false;
      bool owned = false;
      tendril::fiber f([&] {
        std::unique_lock lock(m);
        try {
          for (;;) never.wait(lock);
        } catch (const std::system_error& e) {
          was_canceled = e.code() == std::errc::operation_canceled;
          owned = lock.owns_lock() && !m.try_lock();
        }
      });
      f.request_stop();
      f.join();
      CHECK(was_canceled);
      CHECK(owned);
      CHECK(m.try_lock());
      m.unlock();
    });
  }

  TEST_CASE_TEMPLATE("a stop token ends the wait with the predicate's value", K, plain, any,
                     any_std) {
    with_workers([](tendril::runtime&) {
      typename K::mutex m;
      typename K::condition never;
      std::stop_source source;
      std::atomic<int> ended = 0;
      std::atomic<int> started = 0;
      std::thread stopper([&] {
        while (started != 5) std::this_thread::yield();
        source.request_stop();
      });
      on_everyone(4, 1, [&](int) {
        std::unique_lock lock(m);
        ++started;
        ended += !never.wait(lock, source.get_token(), [] { return false; });
        ended += !never.wait_for(lock, source.get_token(), 10min, [] { return false; });
        ended += never.wait(lock, source.get_token(), [] { return true; });
      });
      stopper.join();
      CHECK(ended == 15);
      std::stop_source other;
      std::unique_lock lock(m);
      CHECK_FALSE(never.wait_for(lock, other.get_token(), 1ms, [] { return false; }));
    });
  }

  TEST_CASE_TEMPLATE("a notification is not spent on a waiter that gave up", K, plain, any,
                     any_std) {
    // Waiters with random short deadlines and one token for each notify: whoever consumes it counts.
    with_workers([](tendril::runtime&) {
      typename K::mutex m;
      typename K::condition ready;
      int tokens = 0;
      long produced = 0;
      long consumed = 0;
      std::atomic<bool> done = false;
      on_everyone(9, 1, [&](int i) {
        if (i == 0) {
          for (int n = 0; n != 2000; ++n) {
            {
              const std::lock_guard lock(m);
              ++tokens;
              ++produced;
            }
            ready.notify_one();
            if (n % 4 == 0) tendril::this_fiber::yield();
          }
          std::unique_lock lock(m);
          while (tokens != 0) {  // only notified waiters take the rest: none may be forgotten
            lock.unlock();
            ready.notify_one();
            tendril::this_fiber::yield();
            lock.lock();
          }
          done = true;
          ready.notify_all();
        } else {
          std::unique_lock lock(m);
          while (!done) {
            if (tokens != 0) {
              --tokens;
              ++consumed;
            } else {
              ready.wait_for(lock, std::chrono::microseconds(50 * i));
            }
          }
        }
      });
      CHECK(consumed == produced);
    });
  }
}
