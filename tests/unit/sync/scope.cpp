// SPDX-License-Identifier: Apache-2.0
#include "support/errors.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/channel.hpp>
#include <tendril/latch.hpp>
#include <tendril/scope.hpp>
#include <tendril/semaphore.hpp>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>

using namespace std::chrono_literals;
using tendril::test::error_of;
using tendril::test::on_fibers;
using tendril::test::stack_of_its_own;
using tendril::test::with_workers;

TEST_SUITE("deadline_scope") {
  TEST_CASE("the earliest counts, the outer returns") {
    const auto none = std::chrono::steady_clock::time_point::max();
    CHECK(tendril::deadline_scope::current() == none);
    {
      const tendril::deadline_scope outer(1h);
      const auto first = tendril::deadline_scope::current();
      {
        const tendril::deadline_scope later(2h);
        CHECK(tendril::deadline_scope::current() == first);
        const tendril::deadline_scope sooner(1min);
        CHECK(tendril::deadline_scope::current() < first);
      }
      CHECK(tendril::deadline_scope::current() == first);
    }
    CHECK(tendril::deadline_scope::current() == none);
  }
  TEST_CASE("a wait's own later deadline does not hide it") {
    with_workers([](tendril::runtime&) {
      tendril::binary_semaphore s(0);
      std::error_code code;
      std::error_code thread_code;
      const auto wait = [&s] {
        const tendril::deadline_scope limit(1ms);
        return error_of([&] { s.try_acquire_for(10min); });
      };
      on_fibers(1, [&](int) { code = wait(); });
      thread_code = wait();
      CHECK(code == std::errc::timed_out);
      CHECK(thread_code == std::errc::timed_out);
    });
  }
}

TEST_SUITE("uncancelable_scope") {
  TEST_CASE("hides the stop request until it ends") {
    with_workers([](tendril::runtime&) {
      tendril::binary_semaphore go(0);
      std::error_code inside;
      std::error_code after;
      bool acquired = false;
      tendril::fiber f([&] {
        {
          const tendril::uncancelable_scope shielded;
          inside = error_of([&] {
            go.acquire();
            acquired = true;
          });
        }
        after = error_of([&] { go.acquire(); });
      });
      f.request_stop();
      go.release();
      f.join();
      CHECK_FALSE(inside);
      CHECK(acquired);
      CHECK(after == std::errc::operation_canceled);
    });
  }
}

TEST_SUITE("task_scope") {
  TEST_CASE("join waits for all, spawned by children too") {
    with_workers([](tendril::runtime&) {
      int ran = 0;
      std::atomic<int> ended = 0;
      on_fibers(
          1,
          [&](int) {
            tendril::task_scope scope;
            for (int i = 0; i != 50; ++i)
              scope.spawn([&] {
                tendril::this_fiber::yield();
                scope.spawn([&] { ++ended; });
                ++ended;
              });
            scope.join();
            ran = ended;
          },
          stack_of_its_own());
      CHECK(ran == 100);
      tendril::task_scope on_thread;
      on_thread.spawn([&] { ++ended; });
      on_thread.join();
      CHECK(ended == 101);
    });
  }

  TEST_CASE("the first failure cancels the rest and is rethrown") {
    with_workers([](tendril::runtime&) {
      std::string message;
      std::atomic<int> canceled = 0;
      on_fibers(
          1,
          [&](int) {
            tendril::channel<int> never;
            tendril::task_scope scope;
            for (int i = 0; i != 20; ++i)
              scope.spawn([&] {
                const std::error_code ec = error_of([&] { never.receive(); });
                canceled += ec == std::errc::operation_canceled;
                if (ec) throw std::system_error(ec);
              });
            scope.spawn([] { throw std::runtime_error("first"); });
            try {
              scope.join();
            } catch (const std::exception& e) {
              message = e.what();
            }
          },
          stack_of_its_own());
      CHECK(message == "first");
      CHECK(canceled == 20);
    });
  }

  TEST_CASE("an exception that leaves the scope cancels the children and waits for them") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> ended = 0;
      bool passed = false;
      on_fibers(
          1,
          [&](int) {
            tendril::channel<int> never;
            try {
              tendril::task_scope scope;
              for (int i = 0; i != 10; ++i)
                scope.spawn([&] {
                  error_of([&] { never.receive(); });
                  ++ended;
                });
              throw std::runtime_error("out");
            } catch (const std::runtime_error&) {
              passed = ended == 10;
            }
          },
          stack_of_its_own());
      CHECK(passed);
    });
  }

  TEST_CASE("without join the destructor waits") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> ended = 0;
      {
        tendril::task_scope scope;
        for (int i = 0; i != 10; ++i)
          scope.spawn([&] {
            for (int n = 0; n != 5; ++n) tendril::this_fiber::yield();
            ++ended;
          });
      }
      CHECK(ended == 10);
    });
  }

  TEST_CASE("stopping the owner stops the children, then join throws") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> ended = 0;
      std::error_code joined;
      int seen = 0;
      tendril::fiber owner(stack_of_its_own(), [&] {
        tendril::channel<int> never;
        tendril::task_scope scope;
        for (int i = 0; i != 10; ++i)
          scope.spawn([&] {
            error_of([&] { never.receive(); });
            ++ended;
          });
        joined = error_of([&] { scope.join(); });
        seen = ended;
      });
      owner.request_stop();
      owner.join();
      CHECK(joined == std::errc::operation_canceled);
      CHECK(seen == 10);
    });
  }

  TEST_CASE("children inherit the deadline; cancel reaches later children") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> timed_out = 0;
      std::atomic<int> canceled = 0;
      std::error_code joined;
      on_fibers(
          1,
          [&](int) {
            tendril::channel<int> never;
            {
              const tendril::deadline_scope limit(2ms);
              tendril::task_scope scope;
              for (int i = 0; i != 5; ++i)
                scope.spawn([&] {
                  const std::error_code ec = error_of([&] { never.receive(); });
                  timed_out += ec == std::errc::timed_out || ec == std::errc::operation_canceled;
                });
              joined = error_of([&] { scope.join(); });
            }
            tendril::task_scope scope;
            scope.cancel();
            scope.spawn([&] {
              canceled += error_of([&] { never.receive(); }) == std::errc::operation_canceled;
            });
            scope.join();
          },
          stack_of_its_own());
      CHECK(timed_out == 5);
      CHECK((!joined || joined == std::errc::timed_out));
      CHECK(canceled == 1);
    });
  }

  TEST_CASE("finished children are freed while the scope goes on") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> ended = 0;
      on_fibers(1, [&](int) {
        tendril::task_scope scope;
        for (int round = 0; round != 50; ++round) {
          for (int i = 0; i != 100; ++i) scope.spawn([&] { ++ended; });
          while (scope.size() != 0) tendril::this_fiber::yield();  // without a join
        }
        scope.join();
      });
      CHECK(ended == 5000);
    });
  }
}
