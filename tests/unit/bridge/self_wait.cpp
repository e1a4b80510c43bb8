// SPDX-License-Identifier: Apache-2.0
//
// A host that waits for what is queued for itself: reported or refused.
#include "support/contexts.hpp"
#include "support/errors.hpp"
#include "support/with_workers.hpp"

#include <tendril/channel.hpp>
#include <tendril/condition_variable.hpp>
#include <tendril/context.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/error.hpp>
#include <tendril/future.hpp>
#include <tendril/latch.hpp>
#include <tendril/mutex.hpp>
#include <tendril/scope.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/shared_mutex.hpp>
#include <tendril/task.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using tendril::configure_await;
using tendril::configure_await_scope;
using tendril::loop_context;
using tendril::synchronization_context;
using tendril::throttling_context;
using tendril::use_context;
using tendril::test::with_workers;
using namespace tendril::test;

TEST_SUITE("self_wait") {
  TEST_CASE(
      "blocking on an async task from the loop's own thread is refused, and the cycle named") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    std::string report;
    loop_context loop({.name = "ui",
                       .on_self_wait = tendril::self_wait_policy::fail,
                       .self_wait_grace = 0ns,
                       .on_report = [&](std::string_view text) { report = text; }});
    std::error_code code;
    std::optional<tendril::future<int>> task;
    loop.post([&] {
      task = answer(configure_await(true)).task;
      try {
        static_cast<void>(task->get());
      } catch (const std::system_error& e) {
        code = e.code();
      }
      loop.stop();
    });
    loop.run();
    CHECK(code == tendril::errc::would_deadlock);
    CHECK(report.find(
              "the host of loop 'ui' -> future::wait -> what completes it -> a work queued on loop "
              "'ui' -> the host of loop 'ui'") != std::string::npos);
    CHECK(report.find("1 work is queued") != std::string::npos);
    // Nothing is lost: the task goes on when the loop does.
    CHECK(loop.run_queued() == 1);
    CHECK(task->get() == 42);
  }

  TEST_CASE("a work queued before the wait counts as well") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    int reports = 0;
    loop_context loop({.on_self_wait = tendril::self_wait_policy::fail,
                       .self_wait_grace = 0ns,
                       .on_report = [&](std::string_view) { ++reports; }});
    std::error_code code;
    tendril::promise<void> p;
    auto f = p.get_future();
    loop.post([&] {
      loop.post([&] { p.set_value(); });
      try {
        f.get();
      } catch (const std::system_error& e) {
        code = e.code();
      }
    });
    CHECK(loop.run_queued() == 1);
    CHECK(loop.run_queued() == 1);
    f.get();
    CHECK(code == tendril::errc::would_deadlock);
    CHECK(reports == 1);
  }

  TEST_CASE("with the report policy the wait goes on: it hangs until somebody helps, told once") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    int reports = 0;
    tendril::promise<void> help;
    auto helped = help.get_future();
    loop_context loop({.self_wait_grace = 1ms, .on_report = [&](std::string_view) {
                         if (++reports == 1) help.set_value();
                       }});
    bool went_on = false;
    loop.post([&] {
      loop.post([] {});
      loop.post([] {});
      helped.get();
      went_on = true;
    });
    loop.run_queued();
    CHECK(went_on);
    CHECK(reports == 1);
  }

  TEST_CASE("waits that cannot fail are told of and not refused") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    tendril::runtime rt({.workers = 1});
    int reports = 0;
    std::atomic<bool> go{false};
    loop_context loop({.on_self_wait = tendril::self_wait_policy::fail,
                       .self_wait_grace = 0ns,
                       .on_report = [&](std::string_view) {
                         ++reports;
                         go = true;
                       }});
    loop.post([&] {
      loop.post([] {});
      const tendril::fiber joined_at_its_end([&] {
        while (!go) tendril::this_fiber::yield();
      });
    });
    loop.run_queued();
    CHECK(reports == 1);
  }

  TEST_CASE("a host whose loop has nothing to do waits as anybody") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    tendril::runtime rt({.workers = 1});
    int reports = 0;
    loop_context loop({.on_self_wait = tendril::self_wait_policy::fail,
                       .self_wait_grace = 0ns,
                       .on_report = [&](std::string_view) { ++reports; }});
    int got = 0;
    loop.post([&] { got = tendril::async([] { return 1; }).get(); });
    loop.run_queued();
    CHECK(got == 1);
    CHECK(reports == 0);
  }

  TEST_CASE(
      "with configure_await(false) the task needs no loop, and blocking on it is merely slow") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    loop_context loop({.on_self_wait = tendril::self_wait_policy::fail, .self_wait_grace = 0ns});
    int got = 0;
    loop.post([&] { got = answer(configure_await(false)).task.get(); });
    loop.run_queued();
    CHECK(got == 42);
  }

  TEST_CASE("a fiber that waits for the same task in the loop's context deadlocks with nobody") {
    with_workers([](tendril::runtime& rt) {
      std::atomic<int> reports{0};
      loop_thread ui({.on_self_wait = tendril::self_wait_policy::fail,
                      .self_wait_grace = 0ns,
                      .on_report = [&](std::string_view) { ++reports; }});
      int got = 0;
      rt.run([&] {
        const use_context here(&ui.loop);
        got = answer(configure_await(true)).task.get();
      });
      CHECK(got == 42);
      CHECK(reports == 0);
    });
  }

  TEST_CASE("every primitive passes the refusal on") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    tendril::runtime rt({.workers = 1});
    loop_context loop({.on_self_wait = tendril::self_wait_policy::fail,
                       .self_wait_grace = 0ns,
                       .on_report = [](std::string_view) {}});
    std::vector<std::error_code> codes;
    const auto refused = [&](auto wait) {
      try {
        wait();
        codes.emplace_back();
      } catch (const std::system_error& e) {
        codes.push_back(e.code());
      }
    };
    loop.post([&] {
      loop.post([] {});
      tendril::channel<int> c(0);
      refused([&] { static_cast<void>(c.receive()); });
      refused([&] { static_cast<void>(c.receive_for(1h)); });
      refused([&] { c.send(1); });
      std::error_code ec;
      static_cast<void>(c.receive(ec));
      codes.push_back(ec);
      tendril::counting_semaphore<> none(0);
      refused([&] { none.acquire(); });
      refused([&] { static_cast<void>(none.try_acquire_for(1h)); });
      tendril::mutex m;
      tendril::condition_variable changed;
      std::unique_lock lock(m);
      refused([&] { changed.wait(lock); });
      refused([&] { changed.wait_for(lock, 1h); });
      if (!lock.owns_lock()) codes.emplace_back();
      tendril::latch l(1);
      refused([&] { l.wait(); });
      refused([&] { tendril::this_fiber::sleep_for(1h); });
      tendril::promise<void> p;
      auto f = p.get_future();
      refused([&] { static_cast<void>(f.wait_for(1h)); });
      refused([&] { f.wait(); });
      if (!f.valid()) codes.emplace_back();
    });
    loop.run_queued();
    CHECK(codes == std::vector<std::error_code>(12, tendril::errc::would_deadlock));
  }

  TEST_CASE("a fiber that runs the loop is refused as a thread is") {
    with_workers([](tendril::runtime& rt) {
      int reports = 0;
      std::error_code code;
      rt.run([&] {
        loop_context loop({.on_self_wait = tendril::self_wait_policy::fail,
                           .self_wait_grace = 2ms,
                           .on_report = [&](std::string_view) { ++reports; }});
        tendril::counting_semaphore<> never(0);
        loop.post([&] {
          loop.post([] {});
          try {
            never.acquire();
          } catch (const std::system_error& e) {
            code = e.code();
          }
        });
        loop.run_queued();
      });
      CHECK(code == tendril::errc::would_deadlock);
      CHECK(reports == 1);
    });
  }
}
