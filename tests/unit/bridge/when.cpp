// SPDX-License-Identifier: Apache-2.0
#include "support/allocations.hpp"
#include "support/errors.hpp"
#include "support/with_workers.hpp"

#include <tendril/error.hpp>
#include <tendril/future.hpp>
#include <tendril/when.hpp>

#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <type_traits>
#include <variant>
#include <vector>

using tendril::future;
using tendril::promise;
using tendril::shared_future;
using tendril::test::error_of;
using tendril::test::message_of;
using tendril::test::with_workers;

namespace {

std::exception_ptr failure(const char* text) {
  return std::make_exception_ptr(std::runtime_error(text));
}

}  // namespace

TEST_SUITE("when_all") {
  TEST_CASE("a tuple of values, references and nothings, in the order of the futures") {
    with_workers([](tendril::runtime&) {
      int target = 1;
      shared_future<std::string> shared = tendril::async([] { return std::string("s"); });
      auto all = tendril::when_all(tendril::async([] { return std::make_unique<int>(4); }),
                                   tendril::async([&]() -> int& { return target; }),
                                   tendril::async([] {}), shared);
      static_assert(std::is_same_v<
                    decltype(all),
                    future<std::tuple<std::unique_ptr<int>, int&, std::monostate, std::string>>>);
      auto [pointer, reference, nothing, text] = all.get();
      CHECK(*pointer == 4);
      CHECK(&reference == &target);
      CHECK(text == "s");
      CHECK(shared.get() == "s");
    });
  }

  TEST_CASE("all ready: no allocation") {
    const std::uint64_t before = tendril::test::allocations();
    auto all = tendril::when_all(tendril::make_ready_future(1), tendril::make_ready_future('c'));
    const bool ready = all.is_ready();
    const auto got = all.get();
    CHECK(tendril::test::allocations() - before == 0);
    CHECK(ready);
    CHECK(got == std::tuple(1, 'c'));
    CHECK(tendril::when_all().is_ready());
  }

  TEST_CASE("a pending one: one allocation, ready with the last, whatever the order") {
    promise<int> p[3];
    auto a = p[0].get_future();
    auto b = p[1].get_future();
    auto c = p[2].get_future();
    const std::uint64_t before = tendril::test::allocations();
    auto all = tendril::when_all(std::move(a), std::move(b), std::move(c));
    CHECK(tendril::test::allocations() - before == 1);
    p[1].set_value(1);
    p[2].set_value(2);
    CHECK_FALSE(all.is_ready());
    p[0].set_value(0);
    CHECK(all.get() == std::tuple(0, 1, 2));
  }

  TEST_CASE("vectors and ranges; of nothing, nothing") {
    with_workers([](tendril::runtime&) {
      std::vector<future<int>> many;
      for (int i = 0; i != 50; ++i) many.push_back(tendril::async([i] { return i; }));
      const std::vector<int> values = tendril::when_all(many.begin(), many.end()).get();
      int sum = 0;
      for (const int v : values) sum += v;
      CHECK(values[17] == 17);
      CHECK(sum == 49 * 50 / 2);

      std::vector<future<void>> silent;
      for (int i = 0; i != 5; ++i) silent.push_back(tendril::async([] {}));
      auto done = tendril::when_all(std::move(silent));
      static_assert(std::is_same_v<decltype(done), future<void>>);
      done.get();
      CHECK(tendril::when_all(std::vector<future<int>>()).get().empty());
    });
  }

  TEST_CASE("one failure is thrown as it is, several as an aggregate of all") {
    promise<int> p[3];
    auto all = tendril::when_all(p[0].get_future(), p[1].get_future(), p[2].get_future());
    p[1].set_exception(failure("alone"));
    p[0].set_value(1);
    CHECK_FALSE(all.is_ready());  // not before the last
    p[2].set_value(1);
    CHECK(message_of([&] { all.get(); }) == "alone");

    promise<int> q[3];
    std::vector<future<int>> many;
    for (auto& one : q) many.push_back(one.get_future());
    auto failing = tendril::when_all(std::move(many));
    q[2].set_exception(failure("third"));
    q[1].set_value(1);
    q[0].set_exception(std::make_exception_ptr(42));
    std::string text;
    std::size_t count = 0;
    std::string second;
    try {
      failing.get();
    } catch (const tendril::aggregate_error& e) {
      const tendril::aggregate_error copy = e;
      text = copy.what();
      count = copy.errors().size();
      second = message_of([&] { std::rethrow_exception(copy.errors()[1]); });
    }
    CHECK(count == 2);
    CHECK(second == "third");
    CHECK(text == "2 failures: (1) an exception of another type than std::exception; (2) third");
  }

  TEST_CASE("settled: the futures, however they ended") {
    promise<int> good;
    promise<std::string> bad;
    auto all = tendril::when_all_settled(good.get_future(), bad.get_future());
    good.set_value(1);
    bad.set_exception(failure("bad"));
    auto [g, b] = all.get();
    CHECK(g.get() == 1);
    CHECK(message_of([&] { b.get(); }) == "bad");

    std::vector<future<int>> many;
    many.push_back(tendril::make_ready_future(1));
    many.push_back(tendril::make_exceptional_future<int>(failure("x")));
    auto settled = tendril::when_all_settled(std::move(many)).get();
    CHECK(settled[0].get() == 1);
    CHECK(message_of([&] { settled[1].get(); }) == "x");
  }

  TEST_CASE("broken promises, invalid futures, futures that others wait for") {
    auto p = std::make_unique<promise<int>>();
    auto all = tendril::when_all(p->get_future(), tendril::make_ready_future(1));
    p.reset();
    CHECK_THROWS_AS(all.get(), std::future_error);

    CHECK_THROWS_AS((void)tendril::when_all(tendril::make_ready_future(1), future<int>()),
                    std::future_error);

    struct idle : tendril::detail::continuation {
      idle() {
        run = [](continuation*) noexcept {};
      }
    } other;
    promise<int> waited_for;
    promise<int> free;
    auto f = waited_for.get_future();
    CHECK(tendril::detail::future_access::on_ready(f, other));
    auto failing = tendril::when_all(free.get_future(), std::move(f));
    free.set_value(1);
    std::error_code code;
    try {
      failing.get();
    } catch (const std::future_error& e) {
      code = e.code();
    }
    CHECK(code == std::future_errc::future_already_retrieved);
    waited_for.set_value(1);
  }

  TEST_CASE("a stop request reaches every input, but for the shared") {
    int calls = 0;
    int shared_calls = 0;
    promise<int> p[2];
    promise<int> of_many;
    for (auto& one : p) one.on_cancel([&] { ++calls; });
    of_many.on_cancel([&] { ++shared_calls; });
    auto shared = of_many.get_future().share();
    auto all = tendril::when_all(tendril::make_ready_future(1), shared, p[0].get_future(),
                                 p[1].get_future());
    CHECK(all.request_stop());
    CHECK(calls == 2);
    CHECK(shared_calls == 0);
    for (auto& one : p) one.set_value(1);
    of_many.set_value(1);
    all.get();
  }

  TEST_CASE("waiting for all, one of which is oneself, is an error; for any of them it is not") {
    with_workers([](tendril::runtime&) {
      using all_type = future<std::tuple<int, int>>;
      promise<all_type*> own;
      auto where = own.get_future();
      std::error_code code;
      promise<int> other;
      auto all = tendril::when_all(other.get_future(), tendril::async([&] {
                                     all_type* const self = where.get();
                                     code = error_of([&] { self->wait(); });
                                     return 2;
                                   }));
      own.set_value(&all);
      other.set_value(1);
      CHECK(all.get() == std::tuple(1, 2));
      CHECK(code == tendril::make_error_code(tendril::errc::would_deadlock));

      using any_type = future<tendril::when_any_result<std::tuple<future<int>, future<int>>>>;
      promise<any_type*> own_any;
      auto where_any = own_any.get_future();
      promise<int> first;
      promise<void> woken;
      auto awake = woken.get_future();
      auto any = tendril::when_any(first.get_future(), tendril::async([&] {
                                     where_any.get()->wait();
                                     woken.set_value();
                                     return 2;
                                   }));
      own_any.set_value(&any);
      first.set_value(1);
      awake.get();
      CHECK(any.get().index == 0);
    });
  }
}

TEST_SUITE("when_any") {
  TEST_CASE("the index of the ready one, and all the futures, of which the others go on") {
    promise<int> p[3];
    auto any = tendril::when_any(p[0].get_future(), p[1].get_future(), p[2].get_future());
    CHECK_FALSE(any.is_ready());
    p[1].set_value(11);
    auto [index, futures] = any.get();
    CHECK(index == 1);
    auto& [a, b, c] = futures;
    CHECK(b.get() == 11);
    CHECK_FALSE(a.is_ready());
    auto rest = tendril::when_any(std::move(a), std::move(c));
    p[2].set_value(22);
    auto again = rest.get();
    CHECK(again.index == 1);
    CHECK(std::get<1>(again.futures).get() == 22);
    // Nothing is attached any more: a continuation can be.
    auto last = std::get<0>(again.futures).then([](future<int> f) { return f.get() + 1; });
    p[0].set_value(1);
    CHECK(last.get() == 2);
  }

  TEST_CASE("one ready already: no allocation, nothing attached") {
    promise<int> p;
    auto pending = p.get_future();
    const std::uint64_t before = tendril::test::allocations();
    auto any = tendril::when_any(std::move(pending), tendril::make_ready_future('x'));
    const bool ready = any.is_ready();
    auto got = any.get();
    CHECK(tendril::test::allocations() - before == 0);
    CHECK(ready);
    CHECK(got.index == 1);
    p.set_value(3);
    CHECK(std::get<0>(got.futures).get() == 3);
  }

  TEST_CASE("vectors, shared futures, failures: a failed one is ready") {
    with_workers([](tendril::runtime&) {
      promise<int> p;
      promise<int> q;
      auto s = p.get_future().share();
      auto t = q.get_future().share();
      const std::vector<shared_future<int>> many{s, t};
      auto any = tendril::when_any(many.begin(), many.end());
      q.set_exception(failure("first"));
      auto got = any.get();
      CHECK(got.index == 1);
      CHECK(message_of([&] { got.futures[1].get(); }) == "first");
      auto later = s.then([](shared_future<int> f) { return f.get(); });
      p.set_value(5);
      CHECK(later.get() == 5);

      std::vector<future<int>> asyncs;
      promise<int> never;
      asyncs.push_back(never.get_future());
      asyncs.push_back(tendril::async([] { return 7; }));
      auto first = tendril::when_any(std::move(asyncs)).get();
      CHECK(first.index == 1);
      CHECK(first.futures[1].get() == 7);
      CHECK(error_of([] { (void)tendril::when_any(std::vector<future<int>>()); }) ==
            std::errc::invalid_argument);
    });
  }

  TEST_CASE("dropped or cancelled while pending; a stop request reaches all") {
    auto held = std::make_shared<int>();
    int calls = 0;
    promise<std::shared_ptr<int>> p[2];
    for (auto& one : p) one.on_cancel([&] { ++calls; });
    {
      auto any = tendril::when_any(p[0].get_future(), p[1].get_future());
      CHECK(any.cancel());
    }
    CHECK(calls == 2);
    p[0].set_value(held);
    p[1].set_value(held);
    for (auto& one : p) one = {};
    CHECK(held.use_count() == 1);
  }
}
