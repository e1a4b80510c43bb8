// SPDX-License-Identifier: Apache-2.0
#include <tendril/task.hpp>

#include "support/allocations.hpp"
#include "support/errors.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/ambient.hpp>
#include <tendril/await.hpp>
#include <tendril/loop_context.hpp>
#include <tendril/scope.hpp>
#include <tendril/semaphore.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using tendril::await;
using tendril::task;
using tendril::test::error_of;
using tendril::test::on_everyone;
using tendril::test::on_fibers;
using tendril::test::stack_of_its_own;
using tendril::test::with_workers;

namespace {

// Nested calls take stack where compilers make calls of transfers, and so do continuations of continuations.
constexpr int very_many = TENDRIL_TAIL_TRANSFER ? 1'000'000 : 100;
constexpr int many_in_a_loop = TENDRIL_TAIL_TRANSFER ? 1'000'000 : 100'000;

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
task<int> deep(int d) {
  if (d == 0) co_return 0;  // not ?: gcc 12 evaluates co_await in the branch that is not taken
  co_return 1 + co_await deep(d - 1);
}

/// Says when it is destroyed.
struct noisy {
  std::string& log;
  char name;
  ~noisy() { log += name; }
};

/// A coroutine of another library: eager, result in a promise of tendril's.
struct other_coroutine {
  struct promise_type {
    tendril::promise<int> result;
    other_coroutine get_return_object() { return {result.get_future()}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_value(int n) { result.set_value(n); }
    void unhandled_exception() { result.set_exception(std::current_exception()); }
  };
  tendril::future<int> result;
};

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
      on_everyone(
          4, 2,
          [&](int) {
            for (int n = 0; n != 50; ++n) {
              tendril::promise<int> p;
              auto t = get(p.get_future());
              tendril::fiber setter([&p, n] { p.set_value(n); });
              sum += await(std::move(t));
              setter.join();
            }
          },
          stack_of_its_own());
      CHECK(sum == 6 * 49 * 50 / 2);
    });
  }

  TEST_CASE("awaits shared futures, several tasks one, and lets go of it when stopped") {
    with_workers([](tendril::runtime&) {
      tendril::promise<std::string> p;
      const tendril::shared_future<std::string> shared = p.get_future().share();
      const auto length = [](tendril::shared_future<std::string> f) -> task<std::size_t> {
        const std::string& text = co_await f;
        co_return text.size();
      };
      std::stop_source source;
      auto a = tendril::start(length(shared));
      auto b = tendril::start(length(shared), source.get_token());
      auto c = tendril::start(length(shared));
      source.request_stop();
      CHECK(error_of([&] { b.get(); }) == std::errc::operation_canceled);
      tendril::fiber setter([&] { p.set_value("seven.."); });
      CHECK(await(shared) == "seven..");
      CHECK(a.get() + c.get() + await(length(shared)) == 21);
      setter.join();
    });
  }

  TEST_CASE("is a fiber's body: spawn, fiber, async, run") {
    with_workers([](tendril::runtime& rt) {
      std::atomic<int> count = 0;
      const auto add = [&](int n) -> task<> {
        count += n;
        co_return;
      };
      tendril::spawn(add(1));
      tendril::fiber(add(10)).join();
      CHECK(tendril::async(twice(2)).get() == 4);
      CHECK(rt.run(twice(3)) == 6);
      rt.drain();
      CHECK(count == 11);
    });
  }

  TEST_CASE("a fiber is the leaf of a coroutine") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> right = 0;
      const auto uses = []() -> task<int> {
        const int a =
            co_await tendril::async([] { return tendril::this_fiber::is_fiber() ? 1 : 0; });
        const int b = co_await tendril::on_fiber([] {
          tendril::this_fiber::yield();
          return 2;
        });
        int target = 0;
        int& c = co_await tendril::on_fiber([&]() -> int& { return target; });
        c = 4;
        co_await tendril::on_fiber([] {});
        try {
          co_await tendril::on_fiber([] { throw std::runtime_error("leaf"); });
        } catch (const std::runtime_error&) {
          target += 8;
        }
        tendril::fiber f([&] { target += 16; });
        co_await tendril::async_join(f);
        co_await tendril::this_task::sleep_for(1us);
        co_return a + b + target;
      };
      on_everyone(2, 1, [&](int) { right += await(uses()) == 31; });
      CHECK(right == 3);
    });
  }

  TEST_CASE("channels, without blocking the thread") {
    with_workers([](tendril::runtime&) {
      tendril::channel<int> there(1), back;
      const auto doubles = [&]() -> task<int> {
        int count = 0;
        while (const std::optional<int> n = co_await tendril::async_receive(there)) {
          co_await tendril::async_send(back, 2 * *n);
          ++count;
        }
        co_return count;
      };
      auto running = tendril::start(doubles());
      long sum = 0;
      for (int i = 0; i != 100; ++i) {
        there.send(i);
        sum += *back.receive();
      }
      there.close();
      CHECK(running.get() == 100);
      CHECK(sum == 99 * 100);
      back.close();
      CHECK(error_of([&] { await(tendril::async_send(back, 1)); }) ==
            make_error_code(tendril::errc::channel_closed));
    });
  }

  TEST_CASE(
      "a million calls that do not wait, one in another or one after the other, need no stack") {
    const auto loop = []() -> task<long> {
      long sum = 0;
      for (int i = 0; i != many_in_a_loop; ++i) sum += co_await value(1);
      co_return sum;
    };
    CHECK(await(loop()) == many_in_a_loop);
    CHECK(await(deep(very_many)) == very_many);
    tendril::runtime rt({.workers = 1});
    CHECK(rt.run(loop()) == many_in_a_loop);
    CHECK(rt.run(deep(very_many)) == very_many);
  }

  TEST_CASE(
      "a million coroutines that complete each other need no stack, with a runtime and without") {
    const auto domino = [] {
      std::vector<tendril::promise<int>> promises(static_cast<std::size_t>(very_many));
      const auto link = [](tendril::future<int> from, tendril::promise<int>* to) -> task<> {
        const int n = co_await std::move(from);
        if (to != nullptr) to->set_value(n + 1);
      };
      std::vector<tendril::future<void>> all;
      for (std::size_t i = 0; i != promises.size(); ++i)
        all.push_back(tendril::start(
            link(promises[i].get_future(), i + 1 != promises.size() ? &promises[i + 1] : nullptr)));
      promises[0].set_value(1);
      for (auto& f : all) f.get();
    };
    domino();
    with_workers({1, 2},
                 [&](tendril::runtime& rt) { tendril::test::run_on_own_stack(rt, domino); });
  }

  TEST_CASE("empty tasks say so") {
    task<int> none;
    CHECK_FALSE(none.valid());
    CHECK(error_of([&] { await(std::move(none)); }) == std::errc::invalid_argument);
    CHECK(error_of([&] { (void)tendril::start(std::move(none)); }) == std::errc::invalid_argument);
    auto one = value(1);
    CHECK(one.valid());
    CHECK(await(std::move(one)) == 1);
    CHECK_FALSE(one.valid());
    CHECK(error_of([&] { await(std::move(one)); }) == std::errc::invalid_argument);
    const auto again = []() -> task<int> {
      auto t = value(1);
      int n = co_await std::move(t);
      n += co_await std::move(t);
      co_return n;
    };
    CHECK(error_of([&] { await(again()); }) == std::errc::invalid_argument);
    tendril::future<int> nothing;
    CHECK(error_of([&] { await(get(std::move(nothing))); }) == std::future_errc::no_state);
  }

  TEST_CASE("a coroutine that awaits its own result is told") {
    tendril::promise<void> go;
    tendril::future<int> own;
    const auto waits = [&](tendril::future<void> when) -> task<int> {
      co_await std::move(when);
      co_return co_await std::move(own);
    };
    own = tendril::start(waits(go.get_future()));
    std::error_code code;
    // It moves its own future away, so its error is seen inside.
    const auto looks = [&](tendril::future<void> when) -> task<int> {
      co_await std::move(when);
      try {
        co_return co_await std::move(own);
      } catch (const std::system_error& e) {
        code = e.code();
      }
      co_return 0;
    };
    go.set_value();
    tendril::promise<void> again;
    own = tendril::start(looks(again.get_future()));
    again.set_value();
    CHECK(code == make_error_code(tendril::errc::would_deadlock));
  }

  TEST_CASE("a task that never starts destroys its arguments") {
    auto shared = std::make_shared<int>(0);
    {
      const auto holds = [](std::shared_ptr<int> p) -> task<int> { co_return *p; };
      auto t = holds(shared);
      CHECK(shared.use_count() == 2);
      auto moved = std::move(t);
      moved = holds(shared);
      CHECK(shared.use_count() == 2);
    }
    CHECK(shared.use_count() == 1);
  }

  TEST_CASE("coroutines of other kinds await tasks and futures, tasks await them") {
    with_workers([](tendril::runtime&) {
      tendril::promise<int> p;
      const auto other = [](task<int> t, tendril::future<int> f) -> other_coroutine {
        const int n = co_await std::move(t);
        co_return n + co_await std::move(f);
      };
      auto through = other(get(tendril::async([] { return 1; })), p.get_future());
      tendril::fiber setter([&] { p.set_value(10); });
      CHECK(through.result.get() == 11);
      setter.join();
      const auto fails = [](task<int> t) -> other_coroutine { co_return co_await std::move(t); };
      CHECK_THROWS_AS(fails(fail()).result.get(), std::runtime_error);
    });
  }
}

TEST_SUITE("task_exceptions") {
  TEST_CASE("pass through 64 coroutines, waiting or not, and are caught where there is a handler") {
    with_workers([](tendril::runtime&) {
      struct chain {
        static task<int> run(int d, tendril::future<void>& when, bool passes,
                             std::atomic<int>& ends) {
          if (passes) co_await tendril::pass_exceptions;
          struct counts {
            std::atomic<int>& n;
            ~counts() { ++n; }
          } const c{ends};
          if (d != 0) co_return co_await run(d - 1, when, passes, ends);
          co_await std::move(when);
          throw std::runtime_error("bottom");
        }
        static task<int> top(tendril::future<void> when, bool passes, std::atomic<int>& ends) {
          try {
            co_return co_await run(63, when, passes, ends);
          } catch (const std::runtime_error& e) {
            co_return std::string(e.what()) == "bottom" ? ends.load() : -1;
          }
        }
      };
      for (const bool passes : {false, true}) {
        std::atomic<int> ends = 0;
        CHECK(await(chain::top(tendril::make_ready_future(), passes, ends)) == 64);
        ends = 0;
        CHECK(await(chain::top(tendril::async([] {}), passes, ends)) == 64);
        ends = 0;
        tendril::future<void> when = tendril::async([] {});
        CHECK_THROWS_AS(await(chain::run(63, when, passes, ends)), std::runtime_error);
        CHECK(ends == 64);
      }
    });
  }

  TEST_CASE("locals go from the innermost outwards, also in frames that are skipped") {
    struct nest {
      static task<> inner(std::string& log) {
        const noisy n{log, 'c'};
        throw 1;
        co_return;
      }
      static task<> middle(std::string& log, bool passes) {
        if (passes) co_await tendril::pass_exceptions;
        const noisy n{log, 'b'};
        auto t = inner(log);
        const noisy m{log, 'B'};
        co_await std::move(t);
      }
      static task<> outer(std::string& log, bool passes) {
        if (passes) co_await tendril::pass_exceptions;
        const noisy n{log, 'a'};
        co_await middle(log, passes);
      }
      static task<> top(std::string& log, bool passes) {
        try {
          co_await outer(log, passes);
        } catch (int) {
          log += '!';
        }
      }
    };
    for (const bool passes : {false, true}) {
      std::string log;
      await(nest::top(log, passes));
      CHECK(log == "cBba!");
    }
  }

  TEST_CASE("the same exception object arrives, once, at whatever depth") {
    struct counted : std::runtime_error {
      explicit counted(int& n) : std::runtime_error("counted"), copies(&n) {}
      counted(const counted& other) : std::runtime_error(other), copies(other.copies) { ++*copies; }
      int* copies;
    };
    struct nest {
      static task<> run(int d, int& copies) {
        if (d == 0) throw counted(copies);
        co_await run(d - 1, copies);
      }
    };
    int copies = 0;
    CHECK_THROWS_AS(await(nest::run(10, copies)), counted);
    CHECK(copies == 0);
  }

  TEST_CASE("a handler may wait, and go on") {
    with_workers([](tendril::runtime&) {
      const auto recovers = []() -> task<int> {
        int n = 0;
        for (int i = 0; i != 10; ++i) {
          bool failed = false;
          try {
            co_await fail();
          } catch (const std::runtime_error&) {
            failed = true;
          }
          if (failed) n += co_await tendril::async([] { return 1; });
        }
        co_return n;
      };
      CHECK(await(recovers()) == 10);
    });
  }
}

TEST_SUITE("task_start") {
  TEST_CASE("runs at once to its first wait, then wherever that is completed") {
    std::string log;
    tendril::promise<int> p;
    const auto runs = [&](tendril::future<int> f) -> task<int> {
      log += 'a';
      const int n = co_await std::move(f);
      log += 'b';
      co_return n;
    };
    auto f = tendril::start(runs(p.get_future()));
    log += '1';
    CHECK_FALSE(f.is_ready());
    p.set_value(5);
    log += '2';
    CHECK(f.is_ready());
    CHECK(f.get() == 5);
    CHECK(log == "a1b2");
  }

  TEST_CASE("what does not wait gives a future that is ready") {
    int target = 0;
    CHECK(tendril::start(twice(2)).get() == 4);
    CHECK(*tendril::start(boxed(2)).get() == 2);
    CHECK(&tendril::start(refer(target)).get() == &target);
    tendril::start(nothing()).get();
    CHECK_THROWS_AS(tendril::start(fail()).get(), std::runtime_error);
  }

  TEST_CASE("what waits delivers all the same, and its arguments are gone before") {
    with_workers([](tendril::runtime&) {
      tendril::promise<void> go;
      auto shared = std::make_shared<int>(3);
      const auto when = [](tendril::future<void> f,
                           std::shared_ptr<int> p) -> task<std::unique_ptr<int>> {
        co_await std::move(f);
        co_return std::make_unique<int>(*p);
      };
      auto result = tendril::start(when(go.get_future(), shared));
      tendril::fiber setter([&] { go.set_value(); });
      CHECK(*result.get() == 3);
      CHECK(shared.use_count() == 1);
      setter.join();
      const auto throws = [](tendril::future<void> f) -> task<int&> {
        co_await std::move(f);
        throw std::runtime_error("late");
      };
      auto failing = tendril::start(throws(tendril::async([] {})));
      CHECK_THROWS_AS(failing.get(), std::runtime_error);
    });
  }

  TEST_CASE("a forgotten result is destroyed") {
    tendril::promise<int> p;
    { auto dropped = tendril::start(get(p.get_future())); }
    p.set_value(1);
  }

  TEST_CASE("within a coroutine: independent chains") {
    with_workers([](tendril::runtime&) {
      const auto both = []() -> task<int> {
        auto a = tendril::start(get(tendril::async([] { return 1; })));
        auto b = tendril::start(get(tendril::async([] { return 2; })));
        co_return co_await std::move(a) + co_await std::move(b);
      };
      int sum = 0;
      for (int i = 0; i != 50; ++i) sum += await(both());
      CHECK(sum == 150);
    });
  }
}

TEST_SUITE("task_stop") {
  TEST_CASE("a fiber's stop request reaches the coroutine at the bottom, which may clean up") {
    with_workers([](tendril::runtime&) {
      tendril::promise<int> never;
      std::atomic<bool> cleaned = false;
      tendril::binary_semaphore begun(0);
      const auto bottom = [&](tendril::future<int> f) -> task<int> {
        struct cleanup {
          std::atomic<bool>& done;
          ~cleanup() { done = true; }
        } const c{cleaned};
        begun.release();
        co_return co_await std::move(f);
      };
      const auto top = [&]() -> task<int> { co_return co_await bottom(never.get_future()); };
      std::error_code code;
      tendril::fiber waits([&] { code = error_of([&] { await(top()); }); });
      begun.acquire();
      waits.request_stop();
      waits.join();
      CHECK(code == std::errc::operation_canceled);
      CHECK(cleaned);
    });
  }

  TEST_CASE("a deadline ends the coroutine's wait with timed_out") {
    with_workers([](tendril::runtime&) {
      tendril::promise<int> never;
      std::error_code code;
      tendril::fiber waits([&] {
        code = error_of([&] {
          const tendril::deadline_scope limit(1ms);
          await(get(never.get_future()));
        });
      });
      waits.join();
      CHECK(code == std::errc::timed_out);
    });
  }

  TEST_CASE("a stop token ends this wait and the later ones, not what is ready") {
    with_workers([](tendril::runtime&) {
      tendril::promise<int> first, second;
      std::vector<std::error_code> codes;
      bool asked_before = true, asked_after = false, token_after = false;
      int ready = 0;
      const auto waits = [&](tendril::future<int> a, tendril::future<int> b) -> task<int> {
        const std::stop_token token = co_await tendril::this_task::get_stop_token();
        asked_before = co_await tendril::this_task::stop_requested();
        for (tendril::future<int>* f : {&a, &b}) {
          try {
            co_await std::move(*f);
          } catch (const std::system_error& e) {
            codes.push_back(e.code());
          }
        }
        try {
          co_await tendril::on_fiber([] { tendril::this_fiber::sleep_for(1h); });
        } catch (const std::system_error& e) {
          codes.push_back(e.code());
        }
        asked_after = co_await tendril::this_task::stop_requested();
        token_after = token.stop_requested();
        ready = co_await tendril::make_ready_future(3);
        co_return 1;
      };
      std::stop_source source;
      auto f = tendril::start(waits(first.get_future(), second.get_future()), source.get_token());
      source.request_stop();
      CHECK(f.get() == 1);
      CHECK(codes ==
            std::vector<std::error_code>(3, std::make_error_code(std::errc::operation_canceled)));
      CHECK_FALSE(asked_before);
      CHECK(asked_after);
      CHECK(token_after);
      CHECK(ready == 3);
    });
  }

  TEST_CASE("one that was requested before the start") {
    std::stop_source source;
    source.request_stop();
    tendril::promise<int> never;
    auto f = tendril::start(get(never.get_future()), source.get_token());
    CHECK(f.is_ready());
    CHECK(error_of([&] { f.get(); }) == std::errc::operation_canceled);
  }

  TEST_CASE("channels, sleeps and joins end") {
    with_workers([](tendril::runtime&) {
      tendril::channel<int> empty;
      tendril::promise<void> end;
      tendril::fiber runs([&, f = end.get_future()]() mutable { f.get(); });
      std::vector<std::error_code> codes;
      const auto waits = [&]() -> task<> {
        const auto record = [&](task<> t) -> task<> {
          try {
            co_await std::move(t);
          } catch (const std::system_error& e) {
            codes.push_back(e.code());
          }
        };
        const auto receive = [&]() -> task<> { co_await tendril::async_receive(empty); };
        co_await record(receive());
        co_await record(tendril::async_send(empty, 1));
        co_await record(tendril::this_task::sleep_for(1h));
        co_await record(tendril::async_join(runs));
      };
      std::stop_source source;
      auto f = tendril::start(waits(), source.get_token());
      source.request_stop();
      f.get();
      CHECK(codes ==
            std::vector<std::error_code>(4, std::make_error_code(std::errc::operation_canceled)));
      end.set_value();
      runs.join();
    });
  }
}

TEST_SUITE("task_context") {
  TEST_CASE("a coroutine goes on in the context in which it began to wait, or not") {
    tendril::loop_context loop;
    const auto here = std::this_thread::get_id();
    std::thread::id on_loop, off_loop;
    const auto waits = [&](tendril::future<int> a, tendril::future<int> b) -> task<> {
      co_await std::move(a);
      on_loop = std::this_thread::get_id();
      co_await tendril::awaiting(std::move(b), tendril::configure_await(false));
      off_loop = std::this_thread::get_id();
    };
    tendril::promise<int> a, b;
    tendril::future<void> done;
    {
      const tendril::use_context in(&loop);
      done = tendril::start(waits(a.get_future(), b.get_future()));
    }
    std::thread([&] { a.set_value(1); }).join();
    CHECK(on_loop == std::thread::id());
    CHECK(loop.run_queued() == 1);
    std::thread::id other;
    std::thread([&] {
      other = std::this_thread::get_id();
      b.set_value(2);
    }).join();
    done.get();
    CHECK(on_loop == here);
    CHECK(off_loop == other);
  }

  TEST_CASE("ambient values stay with the coroutine, and the flow that resumes it keeps its own") {
    tendril::ambient<int> who(0);
    tendril::promise<int> p;
    std::vector<int> seen;
    const auto waits = [&](tendril::future<int> f) -> task<> {
      seen.push_back(who.get());
      who.set(2);
      co_await std::move(f);
      seen.push_back(who.get());
      who.set(3);
    };
    who.set(1);
    auto f = tendril::start(waits(p.get_future()));
    seen.push_back(who.get());
    int outside = 0;
    std::thread setter([&] {
      who.set(7);
      p.set_value(0);
      outside = who.get();
    });
    setter.join();
    f.get();
    CHECK(seen == std::vector<int>{1, 1, 2});
    CHECK(outside == 7);
  }
}

TEST_SUITE("task_frames") {
  TEST_CASE(
      "calls that do not wait allocate nothing once the chain is warm, completed futures neither") {
    const auto loop = []() -> task<std::uint64_t> {
      int sum = co_await twice(1);
      const std::uint64_t before = tendril::test::allocations();
      constexpr int rounds = very_many > 1000 ? 100 : 5;
      for (int i = 0; i != rounds; ++i) {
        sum += co_await twice(1);
        sum += co_await tendril::make_ready_future(1);
        sum += co_await deep(3);
      }
      co_return sum == 2 + 6 * rounds ? tendril::test::allocations() - before : 1000;
    };
    CHECK(await(loop()) == 0);
    tendril::runtime rt({.workers = 1});
    CHECK(rt.run(loop()) == 0);
  }

  TEST_CASE("a root is one allocation, its first callee another") {
    const auto count = [](auto f) {
      const std::uint64_t before = tendril::test::allocations();
      f();
      return tendril::test::allocations() - before;
    };
    await(value(1));  // the thread's waiter
    CHECK(count([] { await(value(1)); }) == 1);
    CHECK(count([] { await(twice(1)); }) == 2);
    CHECK(count([] { tendril::start(value(1)).get(); }) == 1);
  }

  TEST_CASE("frames are freed in any order") {
    const auto any_order = []() -> task<int> {
      std::vector<task<int>> made;
      for (int i = 0; i != 300; ++i) made.push_back(deep(i % 7));
      int sum = 0;
      for (std::size_t i = 0; i < made.size(); i += 3) sum += co_await std::move(made[i]);
      for (std::size_t i = made.size(); i > 2; i -= 3) sum += co_await std::move(made[i - 2]);
      made.erase(made.begin() + 50, made.begin() + 100);
      sum += co_await deep(50);
      made.clear();
      co_return sum + co_await deep(3);
    };
    int expected = 53;
    for (int i = 0; i < 300; i += 3) expected += i % 7;
    for (int i = 298; i >= 1; i -= 3) expected += i % 7;
    for (int round = 0; round != 3; ++round) CHECK(await(any_order()) == expected);
  }

  TEST_CASE("frames outlive the chain they were made in, and end elsewhere") {
    with_workers([](tendril::runtime&) {
      const auto makes = []() -> task<std::vector<task<int>>> {
        std::vector<task<int>> made;
        for (int i = 0; i != 50; ++i) made.push_back(deep(i));
        co_return made;
      };
      std::atomic<int> sum = 0;
      on_everyone(2, 2, [&](int) {
        for (task<int>& t : await(makes())) sum += await(std::move(t));
        auto unused = await(makes());
      });
      CHECK(sum == 4 * 49 * 50 / 2);
    });
  }

  TEST_CASE("a chain that starts others for ever keeps a bounded arena") {
    with_workers({1}, [](tendril::runtime& rt) {
      // Each is started from the arena of the first and ends elsewhere, one while the next is there already.
      const auto starts = []() -> task<std::uint64_t> {
        tendril::future<int> before;
        std::uint64_t last = 0, blocks = 0;
        for (int i = 0; i != 20'000; ++i) {
          auto next = tendril::start(get(tendril::async([] { return 1; })));
          if (before.valid()) co_await std::move(before);
          before = std::move(next);
          if (i == 10'000) last = tendril::test::allocations();
        }
        co_await std::move(before);
        blocks = tendril::test::allocations() - last;
        co_return blocks;
      };
      // The state of async, that of start and the chain of a frame in another's arena; few blocks.
      CHECK(rt.run(starts()) < 10'000 * 3 + 2'000);
    });
  }
}
