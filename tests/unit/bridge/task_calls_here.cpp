// SPDX-License-Identifier: Apache-2.0
//
// Tasks that are called on the caller's stack, as where a compiler does not make a jump of a transfer: in this
// file it is so in every build. The loops run on a fiber's stack of 64 KiB, which some hundred calls would fill
// that left anything on it.
#undef TENDRIL_TAIL_TRANSFER
#define TENDRIL_TAIL_TRANSFER 0
#include <tendril/task.hpp>

#include "support/everywhere.hpp"

#include <tendril/await.hpp>
#include <tendril/future.hpp>

#include <doctest/doctest.h>

#include <coroutine>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using tendril::await;
using tendril::future;
using tendril::promise;
using tendril::task;
using tendril::test::everywhere;

namespace {

constexpr int many = 100'000;

task<int> value(int n) { co_return n; }
task<int> twice(int n) { co_return co_await value(n) + co_await value(n); }
task<> nothing() { co_return; }
task<int> ready(int n) { co_return co_await tendril::make_ready_future(n); }
task<int> wait_for(future<int> f) { co_return co_await std::move(f); }
task<int> fail() {
  throw std::runtime_error("failed");
  co_return 0;
}
task<int> pass_on(int depth) {
  co_await tendril::pass_exceptions;
  if (depth == 0) co_return co_await fail();
  co_return co_await pass_on(depth - 1);
}

/// One of another library that has nothing to wait for, but finds out late.
struct never_suspends {
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<>) const noexcept { return false; }
  int await_resume() const noexcept { return 1; }
};
/// One that is through before await_suspend() returns.
struct resumes_at_once {
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> who) const { who.resume(); }
  int await_resume() const noexcept { return 1; }
};
/// Suspends, and leaves it to the test to go on.
struct suspends {
  std::coroutine_handle<>& who;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) const noexcept { who = h; }
  int await_resume() const noexcept { return 1; }
};
task<int> foreign() { co_return co_await never_suspends(); }

/// The sum of `times` results of call(i), in a coroutine.
template <class Call>
task<long> loop(int times, Call call) {
  long sum = 0;
  for (int i = 0; i != times; ++i) sum += co_await call(i);
  co_return sum;
}
template <class Call>
std::string sum_of(int times, Call call) {
  return std::to_string(await(loop(times, std::move(call)))) + " ";
}

}  // namespace

TEST_SUITE("task_calls_here") {
  TEST_CASE("a loop of calls that do not wait needs no stack, whatever is in them") {
    everywhere("100000 400000 100000 100000 100000 ", [] {
      std::string seen = sum_of(many, [](int) { return value(1); });
      seen += sum_of(many, [](int) { return twice(2); });
      seen += sum_of(many, [](int) { return ready(1); });
      seen += sum_of(many, [](int) { return foreign(); });
      seen += sum_of(many, [](int) -> task<int> {
        co_await nothing();
        co_return co_await value(1);
      });
      return seen;
    });
  }

  TEST_CASE("nor do calls that fail, caught in the loop or passed through others") {
    everywhere("2000 2000 ", [] {
      const auto caught = [](auto call) {
        return [call](int) -> task<int> {
          try {
            co_return co_await call();
          } catch (const std::runtime_error&) {
            co_return 1;
          }
        };
      };
      return sum_of(2000, caught([] { return fail(); })) +
             sum_of(2000, caught([] { return pass_on(3); }));
    });
  }

  TEST_CASE("what fails below a root that passes exceptions on fails the root") {
    everywhere("failed failed ", [] {
      std::string seen;
      for (const int depth : {0, 3}) {
        try {
          await(pass_on(depth));
        } catch (const std::runtime_error& e) {
          seen += e.what() + std::string(" ");
        }
      }
      return seen;
    });
  }

  TEST_CASE("waits among them, completed here, by another fiber, or by another thread") {
    everywhere("103 103 103 ", [] {
      std::string seen;
      for (const int where : {0, 1, 2}) {
        std::vector<std::thread> others;
        const auto body = [&](int i) -> task<int> {
          if (i % 50 != 0 || i == 0) co_return co_await twice(0) + 1;
          promise<int> p;
          future<int> f = p.get_future();
          if (where == 0) p.set_value(1);
          if (where == 1) tendril::spawn([p = std::move(p)]() mutable { p.set_value(1); });
          if (where == 2) others.emplace_back([p = std::move(p)]() mutable { p.set_value(1); });
          int n = co_await wait_for(std::move(f));
          n += co_await value(1);  // in another turn, on whoever's stack
          co_return n;
        };
        seen += sum_of(101, body);
        for (std::thread& t : others) t.join();
      }
      return seen;
    });
  }

  TEST_CASE("who has waited returns to callers that have left their stacks") {
    for (const int depth : {0, 1, 5}) {
      CAPTURE(depth);
      std::coroutine_handle<> who;
      struct nest {
        static task<int> run(int d, std::coroutine_handle<>& h) {
          if (d == 0) co_return co_await suspends{h};
          const int before = co_await value(1);
          const int below = co_await run(d - 1, h);
          co_return before + below + co_await twice(1);
        }
      };
      future<int> result = tendril::start(nest::run(depth, who));
      CHECK(!result.is_ready());
      std::thread([&] { who.resume(); }).join();
      CHECK(result.get() == 1 + 3 * depth);
    }
  }

  TEST_CASE("who is resumed before its suspension is over goes on there") {
    const auto calls = [](int) -> task<int> {
      co_return co_await resumes_at_once() + co_await value(1);
    };
    CHECK(sum_of(20, calls) == "40 ");
  }

  TEST_CASE("a frame that is destroyed where it was called from takes its locals along, once") {
    struct nest {
      static task<int> run(int d, std::shared_ptr<int> counted, future<void> when) {
        co_await tendril::pass_exceptions;
        const std::shared_ptr<int> mine = counted;
        if (d != 0) co_return co_await run(d - 1, mine, std::move(when));
        co_await std::move(when);
        throw std::runtime_error("bottom");
      }
    };
    const auto counted = std::make_shared<int>(0);
    const auto seen = [&](future<void> when) -> task<long> {
      try {
        co_await nest::run(10, counted, std::move(when));
      } catch (const std::runtime_error&) {
        co_return counted.use_count();
      }
      co_return -1;
    };
    CHECK(await(seen(tendril::make_ready_future())) == 1);
    tendril::runtime rt({.workers = 1});
    CHECK(rt.run([&] { return await(seen(tendril::async([] {}))); }) == 1);
  }
}
