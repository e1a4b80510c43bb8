// SPDX-License-Identifier: Apache-2.0
#include "support/with_workers.hpp"

#include <tendril/condition_variable.hpp>
#include <tendril/mutex.hpp>
#include <tendril/scope.hpp>

#include <atomic>
#include <chrono>
#include <mutex>
#include <system_error>

using namespace std::chrono_literals;
using tendril::test::on_everyone;
using tendril::test::on_fibers;
using tendril::test::with_workers;

namespace {

bool canceled(const std::system_error& e) { return e.code() == std::errc::operation_canceled; }

}  // namespace

TEST_SUITE("mutex") {
  TEST_CASE("excludes fibers and threads from each other") {
    with_workers([](tendril::runtime&) {
      tendril::mutex m;
      long counter = 0;
      on_everyone(16, 2, [&](int) {
        for (int i = 0; i != 500; ++i) {
          const std::lock_guard lock(m);
          const long seen = counter;
          if (i % 8 == 0) tendril::this_fiber::yield();
          counter = seen + 1;
        }
      });
      CHECK(counter == 18 * 500);
      CHECK(m.try_lock());
      m.unlock();
    });
  }

  TEST_CASE("try_lock fails when taken and succeeds when free") {
    tendril::mutex m;
    CHECK(m.try_lock());
    CHECK_FALSE(m.try_lock());
    m.unlock();
    CHECK(m.try_lock_for(0ms));
    m.unlock();
  }

  TEST_CASE("timed forms give up, on a fiber and on a thread") {
    with_workers([](tendril::runtime&) {
      tendril::timed_mutex m;
      m.lock();
      std::atomic<int> failed = 0;
      on_everyone(2, 1, [&](int) {
        failed += !m.try_lock_for(1ms);
        failed += !m.try_lock_until(std::chrono::system_clock::now() + 1ms);
        failed += !m.try_lock_until(std::chrono::steady_clock::now() - 1s);
      });
      CHECK(failed == 9);
      m.unlock();
      CHECK(m.try_lock_until(std::chrono::steady_clock::time_point::max()));
      m.unlock();
    });
  }

  TEST_CASE("a timed wait that is given the mutex returns true") {
    with_workers([](tendril::runtime&) {
      tendril::mutex m;
      int taken = 0;
      on_fibers(8, [&](int) {
        const bool mine = m.try_lock_for(10min);
        tendril::this_fiber::yield();
        taken += mine;
        m.unlock();
      });
      CHECK(taken == 8);
    });
  }

  TEST_CASE("a stop request ends the wait and the mutex is not taken") {
    with_workers([](tendril::runtime&) {
      tendril::mutex m;
      m.lock();
      bool was_canceled = false;
      tendril::fiber f([&] {
        try {
          m.lock();
        } catch (const std::system_error& e) {
          was_canceled = canceled(e);
        }
      });
      f.request_stop();
      f.join();
      CHECK(was_canceled);
      m.unlock();
      CHECK(m.try_lock());
      m.unlock();
    });
  }

  TEST_CASE("a free mutex is taken even after a stop request") {
    with_workers({1}, [](tendril::runtime&) {
      tendril::mutex m;
      bool taken = false;
      tendril::fiber f([&](std::stop_token stop) {
        while (!stop.stop_requested()) tendril::this_fiber::yield();
        const std::lock_guard lock(m);
        taken = true;
      });
      f.request_stop();
      f.join();
      CHECK(taken);
    });
  }

  TEST_CASE("a waiter that is overtaken once is handed the mutex next") {
    // One worker and no preemption: the order is exact. The holder unlocks, which wakes the waiter,
    // and takes the mutex again before the waiter can run; at the second unlock the waiter has lost
    // once, so the mutex is not free for the holder any more.
    with_workers({1}, [](tendril::runtime&) {
      tendril::mutex m;
      bool overtook = false;
      bool refused = false;
      bool waiter_ran = false;
      tendril::fiber holder([&] {
        m.lock();
        tendril::fiber waiter([&] {
          m.lock();
          waiter_ran = true;
          m.unlock();
        });
        for (int i = 0; i != 4; ++i) tendril::this_fiber::yield();  // the waiter parks
        m.unlock();
        overtook = m.try_lock();
        for (int i = 0; i != 4; ++i) tendril::this_fiber::yield();  // it tries, and loses
        m.unlock();
        refused = !m.try_lock();
        waiter.join();
      });
      holder.join();
      CHECK(overtook);
      CHECK(refused);
      CHECK(waiter_ran);
    });
  }

  TEST_CASE("may be unlocked by another fiber and destroyed by the last owner") {
    with_workers([](tendril::runtime&) {
      for (int round = 0; round != 100; ++round) {
        auto m = std::make_unique<tendril::mutex>();
        m->lock();
        tendril::fiber last([&] {
          m->lock();
          m->unlock();
          m.reset();
        });
        tendril::fiber other([raw = m.get()] { raw->unlock(); });
        other.join();
        last.join();
        CHECK_MESSAGE(m == nullptr, "round " << round);
      }
    });
  }

  TEST_CASE("std::scoped_lock takes several") {
    with_workers([](tendril::runtime&) {
      tendril::mutex a;
      tendril::mutex b;
      int both = 0;
      on_fibers(8, [&](int i) {
        for (int n = 0; n != 100; ++n) {
          if (i % 2 == 0) {
            const std::scoped_lock lock(a, b);
            ++both;
          } else {
            const std::scoped_lock lock(b, a);
            ++both;
          }
        }
      });
      CHECK(both == 800);
    });
  }

  TEST_CASE("an expired deadline_scope ends the wait with timed_out") {
    with_workers([](tendril::runtime&) {
      tendril::mutex m;
      m.lock();
      bool timed_out = false;
      on_fibers(1, [&](int) {
        const tendril::deadline_scope limit(1ms);
        try {
          m.lock();
        } catch (const std::system_error& e) {
          timed_out = e.code() == std::errc::timed_out;
        }
      });
      CHECK(timed_out);
      m.unlock();
    });
  }
}

TEST_SUITE("recursive_mutex") {
  TEST_CASE("is taken again by its owner, and by nobody else until the last unlock") {
    with_workers([](tendril::runtime&) {
      tendril::recursive_mutex m;
      m.lock();
      CHECK(m.try_lock());
      CHECK(m.try_lock_for(1ms));
      int refused = 0;
      on_fibers(1, [&](int) { refused += !m.try_lock() + !m.try_lock_for(1ms); });
      CHECK(refused == 2);
      m.unlock();
      m.unlock();
      on_fibers(1, [&](int) { refused += !m.try_lock(); });
      CHECK(refused == 3);
      m.unlock();
      long counter = 0;
      on_everyone(8, 1, [&](int) {
        for (int i = 0; i != 100; ++i) {
          const std::lock_guard outer(m);
          const std::lock_guard inner(m);
          if (i % 16 == 0) tendril::this_fiber::yield();
          ++counter;
        }
      });
      CHECK(counter == 900);
    });
  }
}
