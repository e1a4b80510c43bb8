// SPDX-License-Identifier: Apache-2.0
//
// What can go wrong with a thunk: no memory, waiting for itself by way of others, a runtime that is about to
// end. The call or the future says so, and nothing hangs or is lost.
#include "support/allocations.hpp"
#include "support/errors.hpp"
#include "support/everywhere.hpp"
#include "support/with_workers.hpp"

#include <tendril/await.hpp>
#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/fiber_local.hpp>
#include <tendril/future.hpp>
#include <tendril/shared_future.hpp>
#include <tendril/task.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <memory>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

using tendril::future;
using tendril::promise;
using tendril::thunk;
using tendril::test::error_of;
using tendril::test::everywhere;
using tendril::test::fail_next_allocation;
using tendril::test::with_workers;
using tendril::this_fiber::yield;

namespace {

template <class F>
bool out_of_memory(F&& f) {
  try {
    f();
  } catch (const std::bad_alloc&) {
    return true;
  }
  return false;
}

/// As the value of a fiber_local it waits when the fiber has its result.
struct lingering {
  future<void>& until;
  promise<void>& ended;
  ~lingering() {
    fail_next_allocation();
    until.get();
    ended.set_value();
  }
};

}  // namespace

TEST_SUITE("thunk_misuse") {
  TEST_CASE("no memory for the state at the first wait: the future says so, the body goes on") {
    everywhere("ready bad_alloc, ended", [] {
      promise<void> gate, end;
      auto opened = gate.get_future();
      auto ended = end.get_future();
      auto alive = std::make_shared<int>(1);
      auto f = thunk([&opened, &end, alive] {
        const struct at_end {
          promise<void>& p;
          ~at_end() { p.set_value(); }
        } tell{end};
        fail_next_allocation();
        opened.get();
        return alive;
      })();
      std::string out = f.is_ready() ? "ready " : "pending ";
      out += out_of_memory([&] { f.get(); }) ? "bad_alloc, " : "value, ";
      const bool before = ended.is_ready();
      gate.set_value();
      ended.get();
      while (alive.use_count() != 1) yield();
      return out + (before ? "too early" : "ended");
    });
  }

  TEST_CASE("the same once the result is there: it is destroyed") {
    everywhere("ready bad_alloc 1", [] {
      promise<void> gate, end;
      auto opened = gate.get_future();
      auto ended = end.get_future();
      const tendril::fiber_local<lingering> last([&] { return lingering{opened, end}; });
      auto result = std::make_shared<int>(1);
      auto f = thunk([&last, result] {
        static_cast<void>(last.get());
        return result;
      })();
      std::string out = f.is_ready() ? "ready " : "pending ";
      out += out_of_memory([&] { f.get(); }) ? "bad_alloc " : "value ";
      out += std::to_string(result.use_count());
      gate.set_value();
      ended.get();
      return out;
    });
  }

  TEST_CASE("no memory for a thread's first call: it is not made, and can be repeated") {
    with_workers([](tendril::runtime&) {
      bool ran = false, failed = false, ran_after_failure = true;
      std::thread([&] {
        const auto t = thunk([&ran] { ran = true; });
        fail_next_allocation();
        failed = out_of_memory([&] { (void)t(); });
        ran_after_failure = ran;
        t().get();
      }).join();
      CHECK(failed);
      CHECK_FALSE(ran_after_failure);
      CHECK(ran);
    });
  }

  TEST_CASE("awaiting its own future") {
    with_workers([](tendril::runtime&) {
      promise<void> gate;
      auto opened = gate.get_future();
      std::error_code code;
      future<int> own = thunk([&] {
        opened.get();
        code = error_of([&] { (void)tendril::await(own); });
        return 3;
      })();
      gate.set_value();
      CHECK(own.get() == 3);
      CHECK(code == make_error_code(tendril::errc::would_deadlock));
    });
  }

  TEST_CASE("awaiting a coroutine that awaits the fiber's own future") {
    with_workers([](tendril::runtime&) {
      promise<void> gate, over;
      auto opened = gate.get_future();
      auto ended = over.get_future();
      std::error_code code;
      future<void> own = thunk([&] {
        opened.get();
        const auto wants = [&]() -> tendril::task<> { co_await std::move(own); };
        code = error_of([&] { tendril::await(wants()); });
        over.set_value();
      })();
      gate.set_value();
      ended.get();
      CHECK(code == make_error_code(tendril::errc::would_deadlock));
    });
  }

  TEST_CASE("the same by a shared future, in a coroutine below") {
    with_workers([](tendril::runtime&) {
      promise<void> gate;
      auto opened = gate.get_future();
      std::error_code code;
      tendril::shared_future<int> own;
      own = thunk([&] {
              opened.get();
              const auto below = [&]() -> tendril::task<int> { co_return co_await own; };
              const auto wants = [&]() -> tendril::task<int> { co_return co_await below(); };
              code = error_of([&] { (void)tendril::await(wants()); });
              return 3;
            })()
                .share();
      gate.set_value();
      CHECK(own.get() == 3);
      CHECK(code == make_error_code(tendril::errc::would_deadlock));
    });
  }
}
