// SPDX-License-Identifier: Apache-2.0
#include "bench/models/async1/await_future.hpp"
#include "bench/models/async1/task.hpp"

#include "support/allocations.hpp"
#include "support/with_workers.hpp"

#include <tendril/await.hpp>
#include <tendril/future.hpp>
#include <tendril/task.hpp>

#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <utility>

using namespace bench;

namespace {

async1::task<int> after(tendril::future<int> f) {
  co_return co_await async1::from(std::move(f)) + 1;
}
async1::task<int> yielding(int result) {
  co_await async1::yield{};
  co_return result;
}
async1::value_task<int> yielding_value(int result) {
  co_await async1::yield{};
  co_return result;
}
tendril::task<int> lean_sum() { co_return co_await yielding(1) + co_await yielding_value(2); }

}  // namespace

TEST_SUITE("async1 bridges") {
  TEST_CASE("a method waits for a future, and goes on on the pool") {
    tendril::test::with_workers([](tendril::runtime&) {
      async1::thread_pool pool(1);
      tendril::promise<int> promise;
      auto t = after(promise.get_future());
      CHECK_FALSE(t.is_completed());
      tendril::fiber setter([&] { promise.set_value(41); });
      setter.join();
      CHECK(t.get() == 42);
    });
  }

  TEST_CASE("a future that is ready costs a method no suspension") {
    auto t = after(tendril::make_ready_future(1));
    CHECK(t.is_completed());
    CHECK(t.get() == 2);
  }

  TEST_CASE("the exception of a future reaches the method") {
    auto t = after(tendril::make_exceptional_future<int>(
        std::make_exception_ptr(std::runtime_error("from the future"))));
    std::string what;
    try {
      t.get();
    } catch (const std::runtime_error& e) {
      what = e.what();
    }
    CHECK(what == "from the future");
  }

  TEST_CASE("fibers, threads and tasks wait for methods") {
    tendril::test::with_workers([](tendril::runtime&) {
      async1::thread_pool pool(1);
      int task = 0;
      int value = 0;
      int complete = 0;
      int sum = 0;
      tendril::fiber waiter([&] {
        task = tendril::await(yielding(5));
        value = tendril::await(yielding_value(6));
        complete = tendril::await(async1::from_result(7));
        sum = tendril::await(lean_sum());
      });
      waiter.join();
      CHECK(task == 5);
      CHECK(value == 6);
      CHECK(complete == 7);
      CHECK(sum == 3);
      CHECK(tendril::await(yielding(8)) == 8);
    });
  }
}
