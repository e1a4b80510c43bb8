// SPDX-License-Identifier: Apache-2.0
#include "support/allocations.hpp"
#include "support/errors.hpp"
#include "support/with_workers.hpp"

#include <tendril/error.hpp>
#include <tendril/future.hpp>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>

using namespace std::chrono_literals;
using tendril::test::error_of;
using tendril::test::on_everyone;
using tendril::test::on_fibers;
using tendril::test::with_workers;

TEST_SUITE("future") {
  TEST_CASE("delivers a value, a reference, nothing, an exception") {
    with_workers([](tendril::runtime&) {
      tendril::promise<std::unique_ptr<int>> value;
      tendril::promise<int&> reference;
      tendril::promise<void> nothing;
      tendril::promise<std::string> failing;
      auto v = value.get_future();
      auto r = reference.get_future();
      auto n = nothing.get_future();
      auto x = failing.get_future();
      int referred = 3;
      int got = 0;
      std::string what;
      tendril::fiber reader([&] {
        got += *v.get();
        got += r.get();
        n.get();
        try {
          x.get();
        } catch (const std::runtime_error& e) {
          what = e.what();
        }
      });
      tendril::fiber writer([&] {
        value.set_value(std::make_unique<int>(4));
        reference.set_value(referred);
        nothing.set_value();
        failing.set_exception(std::make_exception_ptr(std::runtime_error("sorry")));
      });
      reader.join();
      writer.join();
      CHECK(got == 7);
      CHECK(what == "sorry");
      CHECK_FALSE(v.valid());
      CHECK_FALSE(x.valid());
    });
  }

  TEST_CASE("a promise destroyed without a result breaks") {
    with_workers([](tendril::runtime&) {
      tendril::future<int> f;
      std::error_code code;
      {
        tendril::promise<int> p;
        f = p.get_future();
        tendril::promise<int> moved(std::move(p));
      }
      CHECK(f.is_ready());
      CHECK(error_of([&] { f.get(); }) == std::future_errc::broken_promise);
      const tendril::promise<int> unused;
    });
  }

  TEST_CASE("misuse is answered with std::future_error") {
    tendril::promise<int> p;
    auto f = p.get_future();
    CHECK(error_of([&] { (void)p.get_future(); }) == std::future_errc::future_already_retrieved);
    p.set_value(1);
    CHECK(error_of([&] { p.set_value(2); }) == std::future_errc::promise_already_satisfied);
    CHECK(f.get() == 1);
    CHECK(error_of([&] { f.get(); }) == std::future_errc::no_state);
    CHECK(error_of([&] { f.wait_for(1ms); }) == std::future_errc::no_state);
    tendril::promise<int> taken(std::move(p));
    CHECK(error_of([&] { p.set_value(1); }) == std::future_errc::no_state);
    CHECK(error_of([&] { (void)p.get_future(); }) == std::future_errc::no_state);
  }

  TEST_CASE("timed waits; a timed-out or stopped wait leaves the future valid") {
    with_workers([](tendril::runtime&) {
      tendril::promise<int> p;
      auto f = p.get_future();
      std::atomic<int> right = 0;
      const auto times_out = [&](int) {
        right += f.wait_for(1ms) == std::future_status::timeout;
        right +=
            f.wait_until(std::chrono::system_clock::now() + 1ms) == std::future_status::timeout;
      };
      on_fibers(1, times_out);
      times_out(0);
      CHECK(right == 4);
      std::error_code code;
      tendril::fiber waiter([&] {
        try {
          f.wait();
        } catch (const std::system_error& e) {
          code = e.code();
        }
      });
      waiter.request_stop();
      waiter.join();
      CHECK(code == std::errc::operation_canceled);
      CHECK(f.valid());
      p.set_value(9);
      CHECK(f.wait_for(0ms) == std::future_status::ready);
      CHECK(f.get() == 9);
    });
  }

  TEST_CASE("born ready: no allocation, no wait") {
    const std::uint64_t before = tendril::test::allocations();
    auto value = tendril::make_ready_future(5);
    auto moved = std::move(value);
    auto nothing = tendril::make_ready_future();
    const bool ready = moved.is_ready() && nothing.is_ready();
    const int got = moved.get();
    nothing.get();
    const std::uint64_t used = tendril::test::allocations() - before;
    CHECK(ready);
    CHECK(got == 5);
    CHECK_FALSE(value.valid());
    CHECK_FALSE(moved.valid());
    CHECK(used == 0);
    auto failed =
        tendril::make_exceptional_future<int>(std::make_exception_ptr(std::runtime_error("no")));
    CHECK_THROWS_AS(failed.get(), std::runtime_error);
    int target = 1;
    auto reference = tendril::make_ready_future<int&>(target);
    reference.get() = 2;
    CHECK(target == 2);
  }

  TEST_CASE("a state is one allocation") {
    const std::uint64_t before = tendril::test::allocations();
    {
      tendril::promise<int> p;
      auto f = p.get_future();
      p.set_value(1);
      f.get();
    }
    CHECK(tendril::test::allocations() - before == 1);
  }

  TEST_CASE("a value that is never read is destroyed") {
    auto shared = std::make_shared<int>(1);
    {
      tendril::promise<std::shared_ptr<int>> p;
      auto f = p.get_future();
      p.set_value(shared);
      auto ready = tendril::make_ready_future(shared);
    }
    CHECK(shared.use_count() == 1);
  }

  TEST_CASE("a continuation runs once, on who completes; not when withdrawn or too late") {
    struct counted : tendril::detail::continuation {
      counted() {
        run = [](continuation* self) noexcept { ++static_cast<counted*>(self)->runs; };
      }
      int runs = 0;
    };
    using access = tendril::detail::future_access;
    tendril::promise<std::string> p;
    auto f = p.get_future();
    counted first;
    counted second;
    CHECK_FALSE(access::is_ready(f));
    CHECK(access::on_ready(f, first));
    CHECK(error_of([&] { (void)access::on_ready(f, second); }) ==
          std::future_errc::future_already_retrieved);
    CHECK(access::withdraw(f, first));
    CHECK_FALSE(access::withdraw(f, first));
    CHECK(access::on_ready(f, second));
    p.set_value("set");
    CHECK(first.runs == 0);
    CHECK(second.runs == 1);
    CHECK_FALSE(access::withdraw(f, second));
    CHECK(access::is_ready(f));
    CHECK_FALSE(access::on_ready(f, first));
    CHECK(first.runs == 0);
    CHECK(access::take(f) == "set");
    CHECK_FALSE(f.valid());
    CHECK(error_of([&] { (void)access::on_ready(f, first); }) == std::future_errc::no_state);

    auto born_ready = tendril::make_ready_future(3);
    CHECK_FALSE(access::on_ready(born_ready, first));
    CHECK(access::take(born_ready) == 3);
    auto failed =
        tendril::make_exceptional_future<int&>(std::make_exception_ptr(std::runtime_error("no")));
    CHECK_THROWS_AS(access::take(failed), std::runtime_error);
    CHECK_FALSE(failed.valid());
  }

  TEST_CASE("set and wait race: every value arrives once") {
    with_workers([](tendril::runtime&) {
      long sum = 0;
      for (int round = 0; round != 300; ++round) {
        tendril::promise<int> p;
        auto f = p.get_future();
        tendril::fiber setter([p = std::move(p), round]() mutable { p.set_value(round); });
        if (round % 3 == 0) {
          sum += f.get();  // a thread waits
        } else {
          tendril::fiber getter([&] { sum += f.get(); });
          getter.join();
        }
        setter.join();
      }
      CHECK(sum == 299 * 300 / 2);
    });
  }
}

TEST_SUITE("async") {
  TEST_CASE("runs on a fiber and delivers what f returns or throws") {
    with_workers([](tendril::runtime&) {
      auto sum = tendril::async([](int a, const std::unique_ptr<int>& b) { return a + *b; }, 2,
                                std::make_unique<int>(3));
      auto on_fiber = tendril::async({.name = "named"}, [] {
        return tendril::this_fiber::is_fiber() ? std::string(tendril::this_fiber::name()) : "";
      });
      auto nothing = tendril::async([] {});
      auto failing = tendril::async([]() -> int { throw std::runtime_error("async"); });
      int target = 0;
      auto reference = tendril::async([&]() -> int& { return target; });
      CHECK(sum.get() == 5);
      CHECK(on_fiber.get() == "named");
      nothing.get();
      CHECK_THROWS_AS(failing.get(), std::runtime_error);
      reference.get() = 3;
      CHECK(target == 3);
    });
  }

  TEST_CASE("a forgotten future does not wait; many nest") {
    with_workers([](tendril::runtime& rt) {
      std::atomic<int> ran = 0;
      for (int i = 0; i != 20; ++i) {
        auto dropped = tendril::async([&] { ++ran; });
      }
      rt.drain();
      CHECK(ran == 20);
      struct tree {
        static int sum(int depth) {
          if (depth == 0) return 1;
          auto left = tendril::async(sum, depth - 1);
          auto right = tendril::async(sum, depth - 1);
          return left.get() + right.get();
        }
      };
      CHECK(tendril::async(&tree::sum, 8).get() == 256);
    });
  }

  TEST_CASE("without a runtime it fails and leaks nothing") {
    auto held = std::make_shared<int>(0);
    std::error_code code;
    try {
      (void)tendril::async([held] {});
    } catch (const std::system_error& e) {
      code = e.code();
    }
    CHECK(code == tendril::make_error_code(tendril::errc::no_runtime));
    CHECK(held.use_count() == 1);
  }
}
