// SPDX-License-Identifier: Apache-2.0
#include "support/allocations.hpp"
#include "support/errors.hpp"
#include "support/with_workers.hpp"

#include <tendril/ambient.hpp>
#include <tendril/context.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/future.hpp>

#include <atomic>
#include <deque>
#include <exception>
#include <future>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

using tendril::test::error_of;
using tendril::test::message_of;
using tendril::test::with_workers;

namespace {

/// Keeps what is posted until somebody runs it.
class queue_context final : public tendril::synchronization_context {
 public:
  void post(tendril::posted_work work) override { queue_.push_back(work); }
  std::size_t size() const { return queue_.size(); }
  void run_all() {
    while (!queue_.empty()) {
      const tendril::posted_work w = queue_.front();
      queue_.pop_front();
      w();
    }
  }

 private:
  std::deque<tendril::posted_work> queue_;
};

class full_context final : public tendril::synchronization_context {
 public:
  void post(tendril::posted_work) override { throw std::bad_alloc(); }
};

}  // namespace

TEST_SUITE("future_then") {
  TEST_CASE("a ready future: at once, on the caller, without an allocation") {
    const std::uint64_t before = tendril::test::allocations();
    int ran = 0;
    auto doubled = tendril::make_ready_future(4).then([&](tendril::future<int> f) {
      ++ran;
      return 2 * f.get();
    });
    const bool ready = doubled.is_ready();
    auto nothing = doubled.then([&](tendril::future<int> f) { ran += f.get(); });
    auto last = nothing.then([&](tendril::future<void> f) -> int& {
      f.get();
      return ran;
    });
    int& result = last.get();
    const std::uint64_t used = tendril::test::allocations() - before;
    CHECK(used == 0);
    CHECK(ready);
    CHECK(&result == &ran);
    CHECK(ran == 9);
    CHECK_FALSE(doubled.valid());
    CHECK_FALSE(nothing.valid());
  }

  TEST_CASE("a promise kept before then() is as ready; one allocation for the promise") {
    const std::uint64_t before = tendril::test::allocations();
    std::size_t length;
    {
      tendril::promise<int> p;
      auto f = p.get_future();
      p.set_value(3);
      length = f.then([](tendril::future<int> x) { return x.get() + std::size_t{1}; }).get();
    }
    CHECK(tendril::test::allocations() - before == 1);
    CHECK(length == 4);
  }

  TEST_CASE("a pending future: inside the completer's set_value, with one allocation") {
    tendril::detail::current_waiter();  // which the thread's first call allocates
    tendril::promise<int> p;
    auto f = p.get_future();
    std::thread::id where;
    const std::uint64_t before = tendril::test::allocations();
    auto g = f.then([&](tendril::future<int> x) {
      where = std::this_thread::get_id();
      return x.get() + 1;
    });
    CHECK(tendril::test::allocations() - before == 1);
    CHECK_FALSE(f.valid());
    CHECK(g.valid());
    CHECK_FALSE(g.is_ready());
    std::thread setter([&] { p.set_value(1); });
    const std::thread::id expected = setter.get_id();
    setter.join();
    CHECK(where == expected);
    CHECK(g.is_ready());
    CHECK(g.get() == 2);
  }

  TEST_CASE("fibers and threads wait for what a continuation makes") {
    with_workers([](tendril::runtime&) {
      auto text = tendril::async([] {
                    return 20;
                  }).then([](tendril::future<int> f) {
                      return f.get() + 1;
                    }).then([](tendril::future<int> f) { return std::to_string(2 * f.get()); });
      std::string got;
      tendril::fiber reader([&] { got = text.get(); });
      reader.join();
      CHECK(got == "42");
      CHECK(tendril::async([] {}).then([](tendril::future<void>) { return 1; }).get() == 1);
    });
  }

  TEST_CASE("exceptions: the source's is the continuation's to see, its own is the result") {
    tendril::promise<int> p;
    auto recovered = p.get_future().then([](tendril::future<int> f) {
      try {
        return f.get();
      } catch (const std::runtime_error&) {
        return -1;
      }
    });
    p.set_exception(std::make_exception_ptr(std::runtime_error("source")));
    CHECK(recovered.get() == -1);

    tendril::promise<int> q;
    auto passed_on = q.get_future().then([](tendril::future<int> f) { return f.get(); });
    auto after = passed_on.then([](tendril::future<int> f) { f.get(); });
    q.set_exception(std::make_exception_ptr(std::runtime_error("source")));
    CHECK(message_of([&] { after.get(); }) == "source");

    auto thrown = tendril::make_ready_future(1).then(
        [](tendril::future<int>) -> int { throw std::logic_error("own"); });
    CHECK(message_of([&] { thrown.get(); }) == "own");
  }

  TEST_CASE("an exception of a continuation that nobody reads is dropped with the result") {
    auto held = std::make_shared<int>();
    tendril::promise<int> p;
    {
      auto dropped = p.get_future().then(
          [held](tendril::future<int>) -> int { throw std::runtime_error("nobody hears this"); });
    }
    CHECK(held.use_count() == 2);  // it runs all the same
    p.set_value(1);
    CHECK(held.use_count() == 1);
  }

  TEST_CASE("a continuation's captures are gone before its result is seen") {
    auto captured = std::make_shared<int>();
    tendril::promise<void> p;
    long uses = 0;
    auto done =
        p.get_future().then([captured](tendril::future<void>) {}).then([&](tendril::future<void>) {
          uses = captured.use_count();
        });
    p.set_value();
    done.get();
    CHECK(uses == 1);
  }

  TEST_CASE("a future that is returned is unwrapped") {
    SUBCASE("all ready: no allocation") {
      const std::uint64_t before = tendril::test::allocations();
      const int got =
          tendril::make_ready_future(1)
              .then([](tendril::future<int> f) { return tendril::make_ready_future(f.get() + 1); })
              .get();
      CHECK(tendril::test::allocations() - before == 0);
      CHECK(got == 2);
    }
    SUBCASE("pending, then pending") {
      tendril::promise<int> outer;
      tendril::promise<std::string> inner;
      auto f = outer.get_future().then([&](tendril::future<int>) { return inner.get_future(); });
      static_assert(std::is_same_v<decltype(f), tendril::future<std::string>>);
      outer.set_value(1);
      CHECK_FALSE(f.is_ready());
      inner.set_value("inner");
      CHECK(f.get() == "inner");
    }
    SUBCASE("pending, then ready, then failing") {
      tendril::promise<void> outer;
      auto f = outer.get_future().then([](tendril::future<void>) {
        return tendril::make_exceptional_future<int>(
            std::make_exception_ptr(std::runtime_error("inner")));
      });
      outer.set_value();
      CHECK(message_of([&] { f.get(); }) == "inner");
    }
    SUBCASE("the inner promise breaks") {
      tendril::promise<void> outer;
      tendril::promise<int&> inner;
      auto f = outer.get_future().then([&](tendril::future<void>) { return inner.get_future(); });
      outer.set_value();
      inner = {};
      CHECK(error_of([&] {
              try {
                f.get();
              } catch (const std::future_error& e) {
                throw std::system_error(e.code());
              }
            }) == std::future_errc::broken_promise);
    }
    SUBCASE("an invalid one is an error that says so") {
      tendril::promise<void> outer;
      auto f =
          outer.get_future().then([](tendril::future<void>) { return tendril::future<int>(); });
      outer.set_value();
      CHECK_THROWS_AS(f.get(), std::future_error);
      auto g = tendril::make_ready_future().then(
          [](tendril::future<void>) { return tendril::future<int>(); });
      CHECK_THROWS_AS(g.get(), std::future_error);
    }
  }

  TEST_CASE("a chain of any length is not a recursion") {
    constexpr int links = 200'000;
    tendril::promise<int> p;
    auto f = p.get_future();
    for (int i = 0; i != links; ++i) f = f.then([](tendril::future<int> x) { return x.get() + 1; });
    p.set_value(0);
    CHECK(f.get() == links);

    // Neither is a loop written as continuations: what each step returns waits for the next.
    struct loop {
      std::deque<tendril::promise<int>> steps;
      tendril::future<int> run(int left) {
        if (left == 0) return tendril::make_ready_future(0);
        steps.emplace_back();
        return steps.back().get_future().then([this, left](tendril::future<int> x) {
          const int step = x.get();
          return run(left - 1).then(
              [step](tendril::future<int> rest) { return rest.get() + step; });
        });
      }
    };
    loop l;
    auto sum = l.run(20'000);
    for (int i = 0; i != 20'000; ++i) {
      l.steps.front().set_value(1);
      l.steps.pop_front();
    }
    CHECK(sum.get() == 20'000);
  }

  TEST_CASE("the context of the flow that called then() gets the continuation") {
    queue_context context;
    tendril::promise<int> p;
    tendril::future<int> g;
    int ran = 0;
    {
      const tendril::use_context here(&context);
      g = p.get_future().then([&](tendril::future<int> f) {
        ++ran;
        return f.get();
      });
      // Ready already: the caller is where it should be.
      tendril::make_ready_future().then([&](tendril::future<void>) { ++ran; }).get();
      CHECK(ran == 1);
    }
    p.set_value(7);
    CHECK(ran == 1);
    CHECK_FALSE(g.is_ready());
    CHECK(context.size() == 1);
    context.run_all();
    CHECK(ran == 2);
    CHECK(g.get() == 7);
  }

  TEST_CASE("not where configure_await(false) is in force") {
    queue_context context;
    const tendril::use_context here(&context);
    tendril::promise<int> p;
    tendril::future<int> g;
    {
      const tendril::configure_await_scope off(false);
      g = p.get_future().then([](tendril::future<int> f) { return f.get(); });
    }
    p.set_value(7);
    CHECK(context.size() == 0);
    CHECK(g.is_ready());
  }

  TEST_CASE(
      "a continuation sees the ambient values of who attached it, and leaves its completer's") {
    tendril::ambient<int> value(0);
    tendril::promise<void> p;
    std::string seen;
    auto with = [&](const char* name) {
      return [&seen, &value, name](tendril::future<void>) {
        seen += name + std::to_string(value.get()) + " ";
        value.set(99);
      };
    };
    auto none = p.get_future().then(with("none"));
    value.set(1);
    auto one = none.then(with("one"));
    value.set(2);
    auto two = one.then(with("two"));
    value.set(3);
    p.set_value();
    CHECK(seen == "none0 one1 two2 ");
    CHECK(value.get() == 3);
    two.get();
  }

  TEST_CASE("a context of the caller's choice, also for what is ready") {
    queue_context context;
    auto g = tendril::make_ready_future(1).then(context,
                                                [](tendril::future<int> f) { return f.get() + 1; });
    CHECK_FALSE(g.is_ready());
    CHECK(context.size() == 1);
    context.run_all();
    CHECK(g.get() == 2);
    const tendril::use_context here(&context);
    auto at_once = tendril::make_ready_future(1).then(
        context, [](tendril::future<int> f) { return f.get() + 1; });
    CHECK(context.size() == 0);
    CHECK(at_once.get() == 2);
  }

  TEST_CASE("a context that cannot queue: the continuation does not run, the error is the result") {
    full_context context;
    tendril::promise<int> p;
    bool ran = false;
    auto g = p.get_future().then(context, [&](tendril::future<int>) { ran = true; });
    p.set_value(1);
    CHECK_THROWS_AS(g.get(), std::bad_alloc);
    CHECK_FALSE(ran);
  }

  TEST_CASE("what copying the callable throws is the caller's, and the future is unchanged") {
    struct sore {
      sore() = default;
      sore(const sore&) { throw std::runtime_error("copy"); }
      int operator()(tendril::future<int> f) const { return f.get(); }
    };
    const sore s;
    tendril::promise<int> p;
    auto pending = p.get_future();
    CHECK(message_of([&] { (void)pending.then(s); }) == "copy");
    p.set_value(1);
    CHECK(pending.get() == 1);
    auto ready = tendril::make_ready_future(2);
    CHECK(message_of([&] { (void)ready.then(s); }) == "copy");
    CHECK(ready.get() == 2);
  }

  TEST_CASE("then() on a future that another continuation waits for gives it back") {
    struct idle : tendril::detail::continuation {
      idle() {
        run = [](continuation*) noexcept {};
      }
    } other;
    tendril::promise<int> p;
    auto f = p.get_future();
    CHECK(tendril::detail::future_access::on_ready(f, other));
    CHECK_THROWS_AS((void)f.then([](tendril::future<int>) {}), std::future_error);
    CHECK(f.valid());
    p.set_value(5);
    CHECK(f.get() == 5);
  }

  TEST_CASE("a result whose move constructor throws becomes that exception, further on too") {
    struct brittle {
      explicit brittle(int moves) : left(moves) {}
      brittle(brittle&& other) : left(other.left - 1) {
        if (left < 0) throw std::runtime_error("moved once too often");
      }
      int left;
    };
    tendril::promise<int> p;
    tendril::promise<brittle> inner;
    auto f = p.get_future().then([&](tendril::future<int>) { return inner.get_future(); });
    p.set_value(1);
    inner.set_value(brittle(1));  // into its state, and not on into ours
    CHECK(message_of([&] { (void)f.get(); }) == "moved once too often");
    CHECK_FALSE(f.valid());
  }
}
