// SPDX-License-Identifier: Apache-2.0
#include "bench/models/lean/task.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <stdexcept>
#include <string>

using bench::lean::loop;
using bench::lean::task;

namespace {

task<long> sum(loop& l, long depth) {
  if (depth == 0) {
    co_await l.yield();
    co_return 0;
  }
  co_return depth + co_await sum(l, depth - 1);
}

}  // namespace

TEST_SUITE("lean") {
  TEST_CASE("a task starts when it is awaited") {
    bool ran = false;
    const auto method = [](bool* r) -> task<void> {
      *r = true;
      co_return;
    };
    loop l;
    auto t = method(&ran);
    CHECK_FALSE(ran);
    l.run(std::move(t));
    CHECK(ran);
  }

  TEST_CASE("a chain that yields at its end comes back") {
    loop l;
    CHECK(l.run(sum(l, 64)) == 64 * 65 / 2);
  }

  TEST_CASE("coroutines that yield take turns") {
    loop l;
    std::string order;
    const auto one = [](loop* where, std::string* o, char name) -> task<void> {
      for (int i = 0; i != 3; ++i) {
        o->push_back(name);
        co_await where->yield();
      }
    };
    auto a = one(&l, &order, 'a');
    a.start();
    l.run(one(&l, &order, 'b'));
    while (l.run_one()) {
    }
    CHECK(a.done());
    CHECK(order == "ababab");
  }

  TEST_CASE("exceptions and move-only results reach who awaits") {
    loop l;
    const auto inner = [](bool fail) -> task<std::unique_ptr<int>> {
      if (fail) throw std::runtime_error("inner");
      co_return std::make_unique<int>(5);
    };
    const auto outer = [&inner](bool fail) -> task<int> { co_return *co_await inner(fail) + 1; };
    CHECK(l.run(outer(false)) == 6);
    CHECK_THROWS_AS(l.run(outer(true)), std::runtime_error);
  }
}
