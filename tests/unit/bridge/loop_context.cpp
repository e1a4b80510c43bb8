// SPDX-License-Identifier: Apache-2.0
//
// loop_context: order, threads, stopping, what is left.
#include "support/contexts.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/context.hpp>
#include <tendril/error.hpp>
#include <tendril/future.hpp>

#include <atomic>
#include <chrono>
#include <system_error>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using tendril::loop_context;
using tendril::synchronization_context;
using tendril::test::run_on_own_stack;
using tendril::test::with_workers;
using namespace tendril::test;

TEST_SUITE("loop_context") {
  TEST_CASE("runs works in order, on its thread, from any thread, and stops") {
    loop_context loop;
    std::vector<int> order;
    std::vector<bool> here;
    const auto me = std::this_thread::get_id();
    for (int i = 0; i != 3; ++i) loop.post([&, i] { order.push_back(i); });
    std::thread([&] {
      loop.post([&] {
        here.push_back(std::this_thread::get_id() == me);
        here.push_back(loop.hosted_here());
        here.push_back(synchronization_context::current() == &loop);
        loop.post([&] {
          order.push_back(4);
          loop.stop();
        });
        order.push_back(3);
      });
    }).join();
    CHECK_FALSE(loop.hosted_here());
    loop.run();
    CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
    CHECK(here == std::vector<bool>(3, true));
    CHECK(synchronization_context::current() == nullptr);
  }

  TEST_CASE(
      "stop before run makes it return once; what is queued stays, and the loop's end runs it") {
    int ran = 0;
    {
      loop_context loop;
      loop.post([&] { ++ran; });
      loop.stop();
      loop.run();
      CHECK(ran == 0);
      CHECK(loop.queued() == 1);
      CHECK(loop.run_queued() == 1);
      CHECK(ran == 1);
      loop.post([&] { loop.post([&] { ++ran; }); });
    }
    CHECK(ran == 2);
  }

  TEST_CASE("run_until asks after each work and when woken") {
    loop_context loop;
    std::atomic<bool> set{false};
    int works = 0;
    for (int i = 0; i != 5; ++i) loop.post([&] { ++works; });
    loop.run_until([&] { return works == 3; });
    CHECK(works == 3);
    std::thread setter([&] {
      set = true;
      loop.wake();
    });
    loop.run_until([&] { return set.load(); });
    setter.join();
    CHECK(set);
  }

  TEST_CASE("an exception of a work leaves run, which can go on") {
    loop_context loop;
    int ran = 0;
    loop.post([] { throw std::runtime_error("work"); });
    loop.post([&] {
      ++ran;
      loop.stop();
    });
    CHECK_THROWS_WITH_AS(loop.run(), "work", std::runtime_error);
    CHECK(ran == 0);
    loop.run();
    CHECK(ran == 1);
  }

  TEST_CASE("run within run, or by two, is an error") {
    loop_context loop;
    std::error_code nested, other;
    const auto try_run = [&](std::error_code& to) {
      try {
        loop.run();
      } catch (const std::system_error& e) {
        to = e.code();
      }
    };
    loop.post([&] {
      try_run(nested);
      std::thread([&] { try_run(other); }).join();
      loop.stop();
    });
    loop.run();
    CHECK(nested == tendril::errc::would_deadlock);
    CHECK(other == tendril::errc::would_deadlock);
  }

  TEST_CASE("options are checked") {
    std::error_code code;
    try {
      loop_context({.self_wait_grace = -1ns});
    } catch (const std::system_error& e) {
      code = e.code();
    }
    CHECK(code == tendril::errc::invalid_option);
  }

  TEST_CASE(
      "a fiber may run it; a work that waits there ends its wait in place, and others post "
      "meanwhile") {
    with_workers([](tendril::runtime& rt) {
      loop_context loop({.on_self_wait = tendril::self_wait_policy::ignore});
      std::vector<int> order;
      run_on_own_stack(rt, [&] {
        turn t;
        loop.post([&] {
          t.take();
          order.push_back(1);
        });
        tendril::fiber other([&] {
          loop.post([&] {
            order.push_back(2);
            loop.stop();
          });
          t.give();
        });
        loop.run();
        other.join();
      });
      CHECK(order == std::vector<int>{1, 2});
    });
  }

  TEST_CASE("a stop request ends a run on a fiber") {
    tendril::runtime rt({.workers = 1});
    loop_context loop;
    std::error_code code;
    rt.run([&] {
      tendril::fiber f([&] {
        try {
          loop.run();
        } catch (const std::system_error& e) {
          code = e.code();
        }
      });
      tendril::this_fiber::yield();
      f.request_stop();
      f.join();
    });
    CHECK(code == std::errc::operation_canceled);
    loop.post([&] { loop.stop(); });
    loop.run();
  }

  TEST_CASE("posts of many threads and fibers are all run") {
    with_workers([](tendril::runtime&) {
      loop_thread ui;
      int ran = 0;  // the loop's alone
      constexpr int each = 500;
      tendril::test::on_everyone(6, 2, [&](int) {
        for (int i = 0; i != each; ++i) ui.loop.post([&] { ++ran; });
      });
      tendril::promise<int> p;
      auto f = p.get_future();
      ui.loop.post([&] { p.set_value(ran); });
      CHECK(f.get() == 8 * each);
    });
  }
}
