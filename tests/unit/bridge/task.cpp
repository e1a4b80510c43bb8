// SPDX-License-Identifier: Apache-2.0
#include "support/allocations.hpp"
#include "support/with_workers.hpp"

#include <tendril/error.hpp>
#include <tendril/future.hpp>
#include <tendril/task.hpp>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>

using tendril::await;
using tendril::task;
using tendril::test::on_everyone;
using tendril::test::on_fibers;
using tendril::test::with_workers;

namespace {

task<int> value(int n) { co_return n; }
task<int> twice(int n) { co_return co_await value(n) + co_await value(n); }
task<std::unique_ptr<int>> boxed(int n) { co_return std::make_unique<int>(n); }
task<int&> refer(int& n) { co_return n; }
task<> nothing() { co_return; }
task<int> fail() {
  throw std::runtime_error("failed");
  co_return 0;
}
task<int> get(tendril::future<int> f) { co_return co_await std::move(f); }

}  // namespace

TEST_SUITE("task") {
  TEST_CASE("delivers a value, a reference, nothing, what only moves, an exception") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> right = 0;
      on_everyone(2, 2, [&](int) {
        int target = 1;
        right += await(twice(21)) == 42;
        right += *await(boxed(3)) == 3;
        right += &await(refer(target)) == &target;
        await(nothing());
        try {
          await(fail());
        } catch (const std::runtime_error& e) {
          right += std::string(e.what()) == "failed";
        }
      });
      CHECK(right == 4 * 4);
    });
  }

  TEST_CASE("awaits futures that others complete") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> sum = 0;
      on_everyone(4, 2, [&](int i) {
        for (int n = 0; n != 50; ++n) {
          tendril::promise<int> p;
          auto t = get(p.get_future());
          tendril::fiber setter([&p, n] { p.set_value(n); });
          sum += await(std::move(t)) + i - i;
          setter.join();
        }
      });
      CHECK(sum == 6 * 49 * 50 / 2);
    });
  }
}
