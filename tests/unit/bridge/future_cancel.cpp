// SPDX-License-Identifier: Apache-2.0
//
// Cancelling from the reader's side: who is told, once, and what the reader gets.
#include "support/errors.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/future.hpp>
#include <tendril/latch.hpp>
#include <tendril/scope.hpp>

#include <atomic>
#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <system_error>
#include <utility>

using namespace std::chrono_literals;
using tendril::test::error_of;
using tendril::test::stack_of_its_own;
using tendril::test::with_workers;

TEST_SUITE("future_cancel") {
  TEST_CASE("request_stop stops async's fiber, whose result is what it makes of it") {
    with_workers([](tendril::runtime&) {
      auto stopped = tendril::async([] { tendril::this_fiber::sleep_for(1h); });
      CHECK(stopped.request_stop());
      CHECK_FALSE(stopped.request_stop());
      CHECK(error_of([&] { stopped.get(); }) == std::errc::operation_canceled);

      auto stubborn = tendril::async([] {
        while (!tendril::this_fiber::stop_requested()) tendril::this_fiber::yield();
        return 5;
      });
      CHECK(stubborn.request_stop());
      CHECK(stubborn.get() == 5);

      auto by_token = tendril::async(stack_of_its_own(), [] {
        const std::stop_token stop = tendril::this_fiber::get_stop_token();
        std::atomic<bool> told = false;
        const std::stop_callback callback(stop, [&] { told = true; });
        while (!told) tendril::this_fiber::yield();
        return 6;
      });
      by_token.request_stop();
      CHECK(by_token.get() == 6);
    });
  }

  TEST_CASE("cancel also lets go of the result") {
    with_workers([](tendril::runtime& rt) {
      std::atomic<bool> ended = false;
      auto f = tendril::async([&] {
        try {
          tendril::this_fiber::sleep_for(1h);
        } catch (...) {
          ended = true;
          throw;
        }
      });
      CHECK(f.cancel());
      CHECK(f.is_ready());
      CHECK_FALSE(f.cancel());
      CHECK(error_of([&] { f.get(); }) == std::errc::operation_canceled);
      CHECK_FALSE(f.valid());
      rt.drain();
      CHECK(ended);

      auto ready = tendril::make_ready_future(3);
      CHECK_FALSE(ready.cancel());
      CHECK_FALSE(ready.request_stop());
      CHECK(ready.get() == 3);
    });
  }

  TEST_CASE("an ended async is asked nothing") {
    with_workers([](tendril::runtime& rt) {
      auto f = tendril::async([] { return 1; });
      rt.drain();
      CHECK_FALSE(f.request_stop());
      CHECK(f.get() == 1);
    });
  }

  TEST_CASE("dropping the future of an async lets it run on") {
    with_workers([](tendril::runtime& rt) {
      std::atomic<int> ended = 0;
      tendril::latch dropped(1);
      {
        auto f = tendril::async([&] {
          dropped.wait();
          ++ended;
        });
      }
      dropped.count_down();
      rt.drain();
      CHECK(ended == 1);
    });
  }

  TEST_CASE("a promise's hook runs once: at request_stop, cancel, or the end of the last reader") {
    int calls = 0;
    const auto count = [&] { ++calls; };
    {
      tendril::promise<int> p;
      auto f = p.get_future();
      p.on_cancel(count);
      CHECK_FALSE(p.stop_requested());
      CHECK(f.request_stop());
      CHECK_FALSE(f.request_stop());
      CHECK(calls == 1);
      CHECK(p.stop_requested());
      p.set_value(1);
      CHECK(f.get() == 1);
    }
    CHECK(calls == 1);
    {
      tendril::promise<int> p;
      auto f = p.get_future();
      p.on_cancel(count);
      CHECK(f.cancel());
      CHECK(calls == 2);
      p.set_value(1);  // into the void
      CHECK(error_of([&] { f.get(); }) == std::errc::operation_canceled);
    }
    {
      tendril::promise<int> p;
      p.on_cancel(count);  // before there is a reader
      { auto f = p.get_future(); }
      CHECK(calls == 3);
      CHECK(p.stop_requested());
      p.on_cancel(count);  // too late: at once
      CHECK(calls == 4);
      p.set_value(2);
    }
    CHECK(calls == 4);
  }

  TEST_CASE("a hook does not run once the result is set, nor for a promise without readers") {
    int calls = 0;
    auto held = std::make_shared<int>();
    {
      tendril::promise<int> p;
      auto f = p.get_future();
      p.on_cancel([&calls, held] { ++calls; });
      p.set_value(1);
      CHECK(held.use_count() == 1);
      CHECK_FALSE(f.request_stop());
      CHECK_FALSE(f.cancel());
      CHECK_THROWS_AS(p.on_cancel([] {}), std::future_error);
    }
    {
      tendril::promise<int> p;
      p.on_cancel([&calls, held] { ++calls; });
    }
    {
      tendril::promise<int> p;
      auto f = p.get_future();
      p.on_cancel([&calls, held] { ++calls; });
      { const tendril::promise<int> broken(std::move(p)); }
      CHECK_THROWS_AS(f.get(), std::future_error);
    }
    {
      tendril::promise<int> p;
      auto f = p.get_future();
      p.on_cancel([&calls, held] { ++calls; });
      p.set_exception(std::make_exception_ptr(std::runtime_error("x")));
    }
    CHECK(calls == 0);
    CHECK(held.use_count() == 1);
  }

  TEST_CASE("several hooks, newest first; a hook may answer the promise") {
    tendril::promise<int> p;
    auto f = p.get_future();
    std::string order;
    p.on_cancel([&] { order += "a"; });
    p.on_cancel([&] { order += "b"; });
    p.on_cancel([&] {
      order += "c";
      p.set_value(9);
    });
    CHECK(f.request_stop());
    CHECK(order == "cba");
    CHECK(f.get() == 9);
  }

  TEST_CASE("a hook as a stop token") {
    with_workers([](tendril::runtime&) {
      std::stop_source stop;
      tendril::promise<int> p;
      p.on_cancel([stop]() mutable { stop.request_stop(); });
      auto f = p.get_future();
      CHECK(f.cancel());
      CHECK(stop.stop_requested());
    });
  }

  TEST_CASE("a request goes through continuations to what is waited for just then") {
    with_workers([](tendril::runtime&) {
      auto g = tendril::async([] {
                 tendril::this_fiber::sleep_for(1h);
               }).then([](tendril::future<void> f) {
                   return error_of([&] { f.get(); });
                 }).then([](tendril::future<std::error_code> f) { return f.get(); });
      CHECK(g.request_stop());
      CHECK(g.get() == std::errc::operation_canceled);

      // To the inner future once that is there.
      tendril::promise<void> outer;
      int inner_calls = 0;
      tendril::promise<int> inner;
      inner.on_cancel([&] { ++inner_calls; });
      auto u = outer.get_future().then([&](tendril::future<void>) { return inner.get_future(); });
      outer.set_value();
      CHECK(inner_calls == 0);
      CHECK(u.request_stop());
      CHECK(inner_calls == 1);
      inner.set_value(4);
      CHECK(u.get() == 4);

      // And to one that comes after the request.
      tendril::promise<void> outer2;
      int outer_calls = 0;
      outer2.on_cancel([&] { ++outer_calls; });
      tendril::promise<int> inner2;
      inner2.on_cancel([&] { ++inner_calls; });
      auto v = outer2.get_future().then([&](tendril::future<void>) { return inner2.get_future(); });
      CHECK(v.request_stop());
      CHECK(outer_calls == 1);
      CHECK(inner_calls == 1);
      outer2.set_value();
      CHECK(inner_calls == 2);
    });
  }

  TEST_CASE("a request for a continuation of a shared future leaves the others their result") {
    int calls = 0;
    tendril::promise<int> p;
    p.on_cancel([&] { ++calls; });
    auto s = p.get_future().share();
    auto t = s;
    auto c = s.then([](tendril::shared_future<int> f) { return f.get(); });
    CHECK(c.request_stop());
    CHECK(calls == 0);
    s = {};
    CHECK(calls == 0);
    CHECK(t.request_stop());
    CHECK(calls == 1);
    p.set_value(3);
    CHECK(t.get() == 3);
    CHECK(c.get() == 3);
  }

  TEST_CASE("the last copy of a shared future is the last reader") {
    int calls = 0;
    tendril::promise<int> p;
    p.on_cancel([&] { ++calls; });
    auto s = p.get_future().share();
    auto t = s;
    s = {};
    CHECK(calls == 0);
    t = {};
    CHECK(calls == 1);
    p.set_value(3);
  }

  TEST_CASE("a stop request or a deadline of the waiter ends its wait and nothing else") {
    with_workers([](tendril::runtime&) {
      tendril::promise<int> p;
      auto f = p.get_future();
      auto s = tendril::async([] { return 1; }).share();
      int hooks = 0;
      p.on_cancel([&] { ++hooks; });
      auto shared_source = std::make_optional<tendril::promise<int>>();
      auto shared = shared_source->get_future().share();
      std::error_code stopped;
      std::error_code expired;
      std::error_code shared_stopped;
      std::error_code shared_expired;
      tendril::fiber waiter([&] {
        expired = error_of([&] {
          tendril::deadline_scope limit(1ms);
          f.get();
        });
        shared_expired = error_of([&] {
          tendril::deadline_scope limit(1ms);
          shared.get();
        });
        stopped = error_of([&] { f.get(); });
        shared_stopped = error_of([&] { shared.get(); });
      });
      waiter.request_stop();
      waiter.join();
      // Asked to stop before its first wait, perhaps: then that is what ended them.
      CHECK((expired == std::errc::timed_out || expired == std::errc::operation_canceled));
      CHECK((shared_expired == std::errc::timed_out ||
             shared_expired == std::errc::operation_canceled));
      CHECK(stopped == std::errc::operation_canceled);
      CHECK(shared_stopped == std::errc::operation_canceled);
      CHECK(hooks == 0);
      CHECK(f.valid());
      p.set_value(2);
      shared_source->set_value(3);
      CHECK(f.get() == 2);
      CHECK(shared.get() == 3);
      CHECK(s.get() == 1);
    });
  }
}
