// SPDX-License-Identifier: Apache-2.0
#include "support/allocations.hpp"
#include "support/errors.hpp"
#include "support/with_workers.hpp"

#include <tendril/await.hpp>
#include <tendril/future.hpp>

#include <atomic>
#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

using namespace std::chrono_literals;
using tendril::test::message_of;
using tendril::test::on_everyone;
using tendril::test::with_workers;

TEST_SUITE("shared_future") {
  TEST_CASE("every copy reads the same object, as often as it likes") {
    tendril::promise<std::string> p;
    tendril::shared_future<std::string> a = p.get_future();
    const auto b = a;
    CHECK_FALSE(a.is_ready());
    CHECK(b.wait_for(1ms) == std::future_status::timeout);
    p.set_value("text");
    CHECK(b.wait_until(std::chrono::system_clock::now()) == std::future_status::ready);
    static_assert(std::is_same_v<decltype(a.get()), const std::string&>);
    CHECK(a.get() == "text");
    CHECK(&a.get() == &b.get());
    CHECK(&tendril::await(a) == &b.get());
    auto c = std::move(a);
    CHECK_FALSE(a.valid());
    CHECK(c.get() == "text");
  }

  TEST_CASE("void, references, exceptions, born ready") {
    int target = 1;
    tendril::promise<int&> reference;
    auto r = reference.get_future().share();
    reference.set_value(target);
    static_assert(std::is_same_v<decltype(r.get()), int&>);
    CHECK(&r.get() == &target);

    auto nothing = tendril::make_ready_future().share();
    CHECK(nothing.is_ready());
    nothing.get();
    nothing.get();

    const auto failed =
        tendril::make_exceptional_future<int>(std::make_exception_ptr(std::runtime_error("both")))
            .share();
    CHECK(message_of([&] { failed.get(); }) == "both");
    CHECK(message_of([&] { failed.get(); }) == "both");

    const std::uint64_t before = tendril::test::allocations();
    const int got = tendril::make_ready_future(3).share().get();
    CHECK(tendril::test::allocations() - before == 1);
    CHECK(got == 3);
  }

  TEST_CASE("any number of fibers and threads wait") {
    with_workers([](tendril::runtime&) {
      tendril::promise<int> p;
      const auto s = p.get_future().share();
      std::atomic<int> begun = 0, sum = 0;
      tendril::fiber setter([&] {
        while (begun != 103) tendril::this_fiber::yield();
        p.set_value(2);
      });
      on_everyone(100, 3, [&, s](int) {
        ++begun;
        sum += s.get();
      });
      setter.join();
      CHECK(sum == 206);
    });
  }

  TEST_CASE("continuations run in the order in which they were attached, each once") {
    tendril::promise<int> p;
    auto s = p.get_future().share();
    std::string order;
    std::vector<tendril::future<int>> results;
    for (const char c : {'a', 'b', 'c', 'd'}) {
      results.push_back(s.then([&order, c](tendril::shared_future<int> f) {
        order += c;
        return f.get() + c;
      }));
    }
    CHECK(order.empty());
    p.set_value(1);
    CHECK(order == "abcd");
    CHECK(results[0].get() == 'b');
    CHECK(results[3].get() == 'e');
    CHECK(s.then([](tendril::shared_future<int> f) { return f.get(); }).get() == 1);
    CHECK(s.valid());
  }

  TEST_CASE("a continuation keeps the result alive, and only as long as it needs it") {
    auto held = std::make_shared<int>(4);
    tendril::promise<std::shared_ptr<int>> p;
    tendril::future<int> g;
    {
      auto s = p.get_future().share();
      g = s.then([](tendril::shared_future<std::shared_ptr<int>> f) { return *f.get(); });
    }
    p.set_value(held);
    CHECK(g.get() == 4);
    { const tendril::promise<std::shared_ptr<int>> gone(std::move(p)); }
    CHECK(held.use_count() == 1);
  }

  TEST_CASE("a continuation that is withdrawn does not run") {
    struct counted : tendril::detail::continuation {
      counted() {
        run = [](continuation* self) noexcept { ++static_cast<counted*>(self)->runs; };
      }
      int runs = 0;
      tendril::detail::shared_node node;
    };
    using access = tendril::detail::future_access;
    tendril::promise<int> p;
    auto s = p.get_future().share();
    counted c[4];
    for (counted& one : c) CHECK(access::on_ready(s, one, one.node));
    CHECK(access::withdraw(s, c[1].node));
    CHECK(access::withdraw(s, c[3].node));
    CHECK(access::withdraw(s, c[0].node));
    CHECK(access::on_ready(s, c[0], c[0].node));
    p.set_value(1);
    CHECK(c[0].runs == 1);
    CHECK(c[1].runs == 0);
    CHECK(c[2].runs == 1);
    CHECK(c[3].runs == 0);
    CHECK_FALSE(access::withdraw(s, c[2].node));
    CHECK_FALSE(access::on_ready(s, c[3], c[3].node));
  }

  TEST_CASE("a chain through shared futures is not a recursion") {
    constexpr int links = 100'000;
    tendril::promise<int> p;
    auto s = p.get_future().share();
    for (int i = 0; i != links; ++i)
      s = s.then([](tendril::shared_future<int> x) { return x.get() + 1; }).share();
    p.set_value(0);
    CHECK(s.get() == links);
  }

  TEST_CASE("the last handle may go while the promise is set") {
    with_workers([](tendril::runtime&) {
      for (int round = 0; round != 300; ++round) {
        auto held = std::make_shared<int>(round);
        auto p = std::make_optional<tendril::promise<std::shared_ptr<int>>>();
        auto s = p->get_future().share();
        tendril::fiber setter([&] {
          p->set_value(held);
          p.reset();
        });
        s = {};
        setter.join();
        REQUIRE(held.use_count() == 1);
      }
    });
  }
}
