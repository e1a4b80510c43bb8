// SPDX-License-Identifier: Apache-2.0
//
// Sleeping and stop requests: the two things that end a wait besides its signal.
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/scope.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <stop_token>
#include <system_error>
#include <vector>

namespace {

using namespace std::chrono_literals;
using tendril::fiber;
using tendril::runtime;
using tendril::test::run_on_own_stack;
using tendril::test::stack_of_its_own;
using tendril::test::with_workers;
using steady = std::chrono::steady_clock;
namespace this_fiber = tendril::this_fiber;

/// True when the sleep was ended by a stop request.
bool sleep_is_canceled(std::chrono::nanoseconds d) {
  try {
    this_fiber::sleep_for(d);
  } catch (const std::system_error& e) {
    return e.code() == std::errc::operation_canceled;
  }
  return false;
}

}  // namespace

TEST_SUITE("sleeping") {
  TEST_CASE("never ends early, on fibers and threads") {
    with_workers([](runtime& rt) {
      std::atomic<int> early{0};
      rt.run([&] {
        std::vector<fiber> all;
        for (int i = 0; i != 50; ++i)
          all.emplace_back([&, i] {
            const auto d = std::chrono::microseconds(i * 37);
            const auto start = steady::now();
            this_fiber::sleep_for(d);
            if (steady::now() - start < d) ++early;
          });
        for (fiber& f : all) f.join();
      });
      CHECK(early == 0);
      const auto start = steady::now();
      this_fiber::sleep_for(500us);
      CHECK(steady::now() - start >= 500us);
    });
  }

  TEST_CASE("earlier deadlines come first") {
    runtime rt({.workers = 1});
    std::vector<int> order;
    bool armed_in_time = false;
    // On a machine so loaded that the first deadline passes before the last is armed the order would be
    // another: again then, with more time.
    for (auto lead = 20ms; !armed_in_time; lead *= 2) {
      order.clear();
      run_on_own_stack(rt, [&] {
        std::vector<fiber> all;
        int started = 0;
        const auto base = steady::now() + lead;
        for (const int i : {3, 0, 4, 1, 2})
          all.emplace_back([&, i] {
            ++started;
            this_fiber::sleep_until(base + i * 3ms);
            order.push_back(i);
          });
        while (started != 5)
          this_fiber::yield();  // one worker: who has started has armed, and parked
        armed_in_time = steady::now() < base;
        for (fiber& f : all) f.join();
      });
    }
    CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
  }

  TEST_CASE("a deadline that is armed after a later one is not held up by it") {
    with_workers([](runtime& rt) {
      bool canceled = false;
      run_on_own_stack(rt, [&] {
        std::atomic<bool> sleeping{false};
        fiber later([&] {
          sleeping = true;
          canceled = sleep_is_canceled(1h);
        });
        while (!sleeping) this_fiber::yield();
        this_fiber::sleep_for(1ms);  // hangs if the worker slept for the hour
        later.request_stop();
        later.join();
      });
      CHECK(canceled);
    });
  }

  TEST_CASE("sleep_until takes other clocks, past instants and zero durations") {
    with_workers([](runtime& rt) {
      bool reached = false, past = false;
      rt.run([&] {
        const auto t = std::chrono::system_clock::now() + 2ms;
        this_fiber::sleep_until(t);
        reached = std::chrono::system_clock::now() >= t;
        this_fiber::sleep_until(std::chrono::system_clock::now() - 1h);
        this_fiber::sleep_until(steady::time_point::min());
        this_fiber::sleep_for(0s);
        this_fiber::sleep_for(-1h);
        past = true;
      });
      CHECK(reached);
      CHECK(past);
    });
  }

  TEST_CASE("an endless sleep is ended by a stop request only") {
    with_workers([](runtime& rt) {
      std::atomic<int> canceled{0};
      rt.run([&] {
        fiber a([&] { canceled += sleep_is_canceled(std::chrono::nanoseconds::max()); });
        fiber b([&] {
          try {
            this_fiber::sleep_until(steady::time_point::max());
          } catch (const std::system_error&) {
            ++canceled;
          }
        });
        fiber c([&] {
          try {
            this_fiber::sleep_for(std::chrono::hours::max());
          } catch (const std::system_error&) {
            ++canceled;
          }
        });
        for (int i = 0; i != 10; ++i) this_fiber::yield();
        a.request_stop();
        b.request_stop();
        c.request_stop();
        a.join();
        b.join();
        c.join();
      });
      CHECK(canceled == 3);
    });
  }
}

TEST_SUITE("stop_request") {
  TEST_CASE("is seen when made before the start, while running and while parked, and counts once") {
    with_workers([](runtime& rt) {
      bool before = false, running = false, parked = false, first = false, second = true;
      run_on_own_stack(rt, [&] {
        {
          fiber f([&] { before = this_fiber::stop_requested() && sleep_is_canceled(1h); });
          first = f.request_stop();
          second = f.request_stop();
          f.join();
        }
        std::atomic<bool> started{false};
        fiber g([&] {
          started = true;
          while (!this_fiber::stop_requested()) this_fiber::yield();
          running = sleep_is_canceled(1h);
        });
        while (!started) this_fiber::yield();
        g.request_stop();
        g.join();
        std::atomic<bool> sleeping{false};
        fiber h([&] {
          sleeping = true;
          parked = sleep_is_canceled(1h);
        });
        while (!sleeping) this_fiber::yield();
        for (int i = 0; i != 5; ++i) this_fiber::yield();
        h.request_stop();
        h.join();
      });
      CHECK(first);
      CHECK_FALSE(second);
      CHECK(running);
      CHECK(parked);
      CHECK(before);
    });
  }

  TEST_CASE("through a copied stop_source, with callbacks, before and after the end") {
    with_workers([](runtime& rt) {
      bool canceled = false, called = false, late = true;
      run_on_own_stack(rt, [&] {
        std::atomic<bool> sleeping{false};
        // The callback is on its stack, for whoever requests the stop.
        fiber f(stack_of_its_own(), [&] {
          const std::stop_callback note(this_fiber::get_stop_token(), [&] { called = true; });
          sleeping = true;
          canceled = sleep_is_canceled(1h);
        });
        std::stop_source source = f.get_stop_source();
        while (!sleeping) this_fiber::yield();
        source.request_stop();
        late = f.request_stop();
        f.join();
        source.request_stop();  // its fiber is gone
      });
      CHECK(canceled);
      CHECK(called);
      CHECK_FALSE(late);
    });
  }

  TEST_CASE("a token that is asked for after the request is triggered") {
    with_workers([](runtime& rt) {
      bool triggered = false;
      rt.run([&] {
        fiber f([&](std::stop_token t) { triggered = t.stop_requested(); });
        f.request_stop();
        f.join();
      });
      CHECK(triggered);
    });
  }

  TEST_CASE("a shield hides it until it is lifted") {
    with_workers([](runtime& rt) {
      bool inside = true, after = false;
      rt.run([&] {
        fiber f([&] {
          {
            const tendril::uncancelable_scope shield;
            inside = sleep_is_canceled(1ms);
          }
          after = sleep_is_canceled(1h);
        });
        f.request_stop();
        f.join();
      });
      CHECK_FALSE(inside);
      CHECK(after);
    });
  }

  TEST_CASE("does not reach the next fiber that uses the same control block") {
    runtime rt({.workers = 1});
    int inherited = 0;
    rt.run([&] {
      for (int i = 0; i != 200; ++i) {
        fiber f([] { this_fiber::yield(); });
        f.request_stop();
        f.join();
        fiber g([&] { inherited += this_fiber::stop_requested() ? 1 : 0; });
        g.join();
      }
    });
    CHECK(inherited == 0);
  }
}
