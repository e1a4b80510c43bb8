// SPDX-License-Identifier: Apache-2.0
#include "bench/models/async1/task.hpp"

#include "support/allocations.hpp"
#include "support/with_workers.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <queue>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace bench::async1;

namespace {

/// A context that runs what was posted when it is told to, on the calling thread.
class manual_context final : public synchronization_context {
 public:
  void post(void (*run)(void*), void* argument) override {
    const std::lock_guard hold(mutex_);
    queue_.emplace(run, argument);
    ++posts_;
  }
  /// Runs one with this as the current context; false: none.
  bool run_one() {
    std::pair<void (*)(void*), void*> item;
    {
      const std::lock_guard hold(mutex_);
      if (queue_.empty()) return false;
      item = queue_.front();
      queue_.pop();
    }
    synchronization_context* const before = current();
    set_current(this);
    item.first(item.second);
    set_current(before);
    return true;
  }
  int posts() {
    const std::lock_guard hold(mutex_);
    return posts_;
  }

 private:
  std::mutex mutex_;
  std::queue<std::pair<void (*)(void*), void*>> queue_;
  int posts_ = 0;
};

struct in_context {
  explicit in_context(synchronization_context& c) { synchronization_context::set_current(&c); }
  ~in_context() { synchronization_context::set_current(nullptr); }
};

task<int> immediate(int value) { co_return value; }
task<int> awaiting(task<int> what) { co_return co_await what + 1; }
task<void> throws(std::string what) {
  throw std::runtime_error(what);
  co_return;
}
value_task<long> value_of(long v) { co_return v; }
value_task<long> sum_to(long n) {
  long sum = 0;
  for (long i = 1; i <= n; ++i) sum += co_await value_of(i);
  co_return sum;
}
task<int> yielding(int times) {
  for (int i = 0; i != times; ++i) co_await yield{};
  co_return times;
}
task<int> nested_yield(int depth) {
  if (depth == 0) co_return co_await yielding(1);
  co_return 1 + co_await nested_yield(depth - 1);
}

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return {};
}

/// What f's task throws, looked at on the pool's own thread: the library's counting of exceptions is not
/// seen by ThreadSanitizer, which would take the last release on another thread for a race.
template <class F>
task<std::string> caught_from(F f) {
  try {
    co_await f();
  } catch (const std::exception& e) {
    co_return std::string(e.what());
  }
  co_return std::string();
}
template <class F>
std::string message_on(thread_pool& pool, F f) {
  return pool.run([&f] { return caught_from(f); });
}

}  // namespace

TEST_SUITE("async1") {
  TEST_CASE("a method starts at once, on the caller's thread") {
    std::thread::id where;
    bool ran = false;
    const auto method = [](bool* r, std::thread::id* w) -> task<void> {
      *r = true;
      *w = std::this_thread::get_id();
      co_return;
    };
    const auto t = method(&ran, &where);
    CHECK(ran);
    CHECK(where == std::this_thread::get_id());
    CHECK(t.is_completed());
  }

  TEST_CASE("a method that waits returns a pending task to its caller") {
    const thread_pool pool(1);
    completion_source<int> source;
    auto t = awaiting(source.get_task());
    CHECK_FALSE(t.is_completed());
    source.set_result(4);
    CHECK(t.get() == 5);
  }

  TEST_CASE("small results share the completed tasks, others get a task each") {
    const auto before = tendril::test::allocations();
    CHECK(immediate(8).get() == 8);
    CHECK(immediate(-1).get() == -1);
    // The frames come from lists of the thread, warm by now (with a sanitizer: from operator new).
    const auto warm = tendril::test::allocations();
    CHECK(immediate(8).get() == 8);
    const auto frame = tendril::test::allocations() - warm;
    CHECK(frame <= 1);
    CHECK(immediate(9).get() == 9);
    CHECK(tendril::test::allocations() - warm == 2 * frame + 1);
    CHECK(before <= warm);
  }

  TEST_CASE("a value_task that completes at once allocates no task") {
    CHECK(sum_to(1).get() == 1);
    const auto before = tendril::test::allocations();
    CHECK(sum_to(1000).get() == 500'500);
    const auto frames = TENDRIL_ASAN || TENDRIL_TSAN ? 1001 : 0;
    CHECK(tendril::test::allocations() - before == frames);
  }

  TEST_CASE("a method that suspends allocates its task once, however often it does") {
    thread_pool pool(1);
    pool.run([] { return yielding(1); });
    const auto count = [&pool](int yields) {
      const auto before = tendril::test::allocations();
      pool.run([yields] { return yielding(yields); });
      return tendril::test::allocations() - before;
    };
    const auto once = count(1);
    CHECK(once >= 1);
    CHECK(count(100) == once);
  }

  TEST_CASE("any number may await one task, and all go on") {
    for (const unsigned threads : {1u, 2u}) {
      thread_pool pool(threads);
      completion_source<int> source;
      std::vector<task<int>> awaiters;
      for (int i = 0; i != 10; ++i) awaiters.push_back(awaiting(source.get_task()));
      source.set_result(41);
      for (auto& t : awaiters) CHECK(t.get() == 42);
      CHECK(awaiting(source.get_task()).get() == 42);
    }
  }

  TEST_CASE("awaiters that come while the task completes are all resumed") {
    thread_pool pool(2);
    for (int round = 0; round != 300; ++round) {
      completion_source<int> source;
      std::vector<task<int>> awaiters;
      std::atomic<bool> started{false};
      std::thread completer([&] {
        while (!started.load()) std::this_thread::yield();
        source.set_result(1);
      });
      for (int i = 0; i != 8; ++i) {
        awaiters.push_back(awaiting(source.get_task()));
        started.store(true);
      }
      int sum = 0;
      for (auto& t : awaiters) sum += t.get();
      completer.join();
      REQUIRE(sum == 16);
    }
  }

  TEST_CASE("yielding goes on on the pool, through its queue") {
    thread_pool pool(1);
    const std::thread::id here = std::this_thread::get_id();
    const auto method = []() -> task<std::thread::id> {
      co_await yield{};
      co_return std::this_thread::get_id();
    };
    CHECK(method().get() != here);

    // Two methods on one thread take turns.
    std::string order;
    const auto both = [](std::string* into) -> task<void> {
      const auto one = [](std::string* o, char name) -> task<void> {
        for (int i = 0; i != 3; ++i) {
          o->push_back(name);
          co_await yield{};
        }
      };
      auto a = one(into, 'a');
      auto b = one(into, 'b');
      co_await a;
      co_await b;
    };
    pool.run([&] { return both(&order); });
    CHECK(order == "ababab");
  }

  TEST_CASE("a chain deeper than what runs inline comes back") {
    thread_pool pool(2);
    CHECK(pool.run([] { return nested_yield(1000); }) == 1001);
  }

  TEST_CASE("yielding without a pool is an error that says so") {
    CHECK(message_of([] { yielding(1).get(); }).find("make an async1::thread_pool") !=
          std::string::npos);
  }

  TEST_CASE("there is one pool at a time") {
    const thread_pool pool(1);
    CHECK(message_of([] { thread_pool second(1); }).find("there is one already") !=
          std::string::npos);
    CHECK(message_of([] { thread_pool none(0); }).find("0 threads") != std::string::npos);
  }
}

TEST_SUITE("async1 exceptions") {
  TEST_CASE("an exception before any suspension is the task's, not the call's") {
    auto t = throws("early");
    CHECK(t.is_completed());
    CHECK(message_of([&] { t.get(); }) == "early");
    CHECK(message_of([&] { t.get(); }) == "early");
  }

  TEST_CASE("every frame catches and throws again") {
    static std::atomic<int> caught{0};
    caught = 0;
    struct level {
      static task<int> run(int depth, bool suspend) {
        if (depth == 0) {
          if (suspend) co_await yield{};
          throw std::out_of_range("leaf");
        }
        try {
          co_return co_await run(depth - 1, suspend);
        } catch (const std::out_of_range&) {
          ++caught;
          throw;
        }
      }
      static value_task<long> run_value(int depth, bool suspend) {
        if (depth == 0) {
          if (suspend) co_await yield{};
          throw std::out_of_range("leaf");
        }
        try {
          co_return co_await run_value(depth - 1, suspend);
        } catch (const std::out_of_range&) {
          ++caught;
          throw;
        }
      }
    };
    thread_pool pool(1);
    for (const bool suspend : {false, true}) {
      caught = 0;
      CHECK(message_on(pool, [=] { return level::run(20, suspend); }) == "leaf");
      CHECK(caught == 20);
      CHECK(message_on(pool, [=] { return level::run_value(20, suspend); }) == "leaf");
      CHECK(caught == 40);
    }
  }

  TEST_CASE("destructors run as the exception passes") {
    struct guard {
      int* count;
      ~guard() { ++*count; }
    };
    int count = 0;
    struct level {
      static task<void> run(int depth, int* count) {
        const guard g{count};
        if (depth == 0) {
          co_await yield{};
          throw std::runtime_error("x");
        }
        co_await run(depth - 1, count);
      }
    };
    thread_pool pool(1);
    CHECK(message_on(pool, [&count] { return level::run(9, &count); }) == "x");
    CHECK(count == 10);
  }

  TEST_CASE("completing twice is an error") {
    completion_source<int> source;
    source.set_result(1);
    CHECK(message_of([&] { source.set_result(2); }).find("complete already") != std::string::npos);
    CHECK(source.get_task().get() == 1);
  }

  TEST_CASE("a move-only result is handed over") {
    const auto make = []() -> value_task<std::unique_ptr<int>> {
      co_return std::make_unique<int>(3);
    };
    CHECK(*make().get() == 3);
    thread_pool pool(1);
    const auto later = []() -> task<std::unique_ptr<int>> {
      co_await yield{};
      co_return std::make_unique<int>(4);
    };
    CHECK(*pool.run(later) == 4);
  }
}

TEST_SUITE("async1 contexts") {
  TEST_CASE("what a callee sets, its caller does not see: Outer") {
    static async_local<std::string> local;
    thread_pool pool(1);
    for (const bool suspend : {false, true}) {
      CAPTURE(suspend);
      const auto inner = [](bool s) -> task<void> {
        local.set("Inner");
        if (s) co_await yield{};
        if (local.get() != "Inner") throw std::logic_error("lost over a suspension");
      };
      const auto outer = [&inner](bool s) -> task<std::string> {
        local.set("Outer");
        co_await inner(s);
        co_return local.get();
      };
      CHECK(pool.run([&] { return outer(suspend); }) == "Outer");
      CHECK(outer(false).get() == "Outer");
      CHECK(local.get().empty());
    }
  }

  TEST_CASE("a method resumed elsewhere finds the values it had") {
    static async_local<int> local;
    thread_pool pool(2);
    const auto method = [](int mine) -> task<bool> {
      local.set(mine);
      for (int i = 0; i != 100; ++i) {
        co_await yield{};
        if (local.get() != mine) co_return false;
      }
      co_return true;
    };
    const auto all = [&method]() -> task<bool> {
      std::vector<task<bool>> started;
      for (int i = 1; i != 20; ++i) started.push_back(method(i));
      bool good = local.get() == 0;
      for (auto& t : started) good = co_await t && good;
      co_return good&& local.get() == 0;
    };
    CHECK(pool.run(all));
  }

  TEST_CASE("setting values over and over keeps what callers have saved") {
    static async_local<int> a;
    static async_local<int> b;
    const auto callee = []() -> task<void> {
      for (int i = 0; i != 10; ++i) {
        a.set(i);
        b.set(i);
      }
      co_return;
    };
    const auto caller = [&callee]() -> task<int> {
      a.set(100);
      co_await callee();
      b.set(20);
      co_await callee();
      co_return a.get() + b.get();
    };
    CHECK(caller().get() == 120);
    CHECK(a.get() + b.get() == 0);
  }

  TEST_CASE("what follows an await is posted to the context, unless told otherwise") {
    thread_pool pool(1);
    manual_context context;
    const auto method = [](task<int> what, bool return_to_context) -> task<bool> {
      co_await what.configure_await(return_to_context);
      co_return synchronization_context::current() != nullptr;
    };
    for (const bool back : {true, false}) {
      CAPTURE(back);
      const int before = context.posts();
      completion_source<int> source;
      task<bool> t;
      {
        const in_context here(context);
        t = method(source.get_task(), back);
      }
      source.set_result(1);
      while (!t.is_completed()) context.run_one();
      CHECK(t.get() == back);
      CHECK(context.posts() - before == (back ? 1 : 0));
    }
  }

  TEST_CASE("yielding in a context goes on there") {
    manual_context context;
    task<int> t;
    {
      const in_context here(context);
      t = yielding(3);
    }
    int ran = 0;
    while (context.run_one()) ++ran;
    CHECK(ran == 3);
    CHECK(t.get() == 3);
  }

  TEST_CASE("a callee's change of the synchronization context ends with the call") {
    manual_context context;
    const auto callee = [](manual_context* c) -> task<void> {
      synchronization_context::set_current(c);
      co_return;
    };
    callee(&context).get();
    CHECK(synchronization_context::current() == nullptr);
  }
}

TEST_SUITE("async1 features") {
  // What is switched off to see what it costs must still compute the same.
  struct bare {
    static constexpr bool contexts = false;
    static constexpr bool cached_tasks = false;
    static constexpr bool pooled_frames = false;
    static constexpr bool shared_tasks = false;
  };
  struct level {
    static task<int, bare> run(int depth) {
      if (depth == 0) {
        co_await yield{};
        co_return 1;
      }
      co_return 1 + co_await run(depth - 1);
    }
  };
  TEST_CASE("without any of them") {
    thread_pool pool(1);
    CHECK(pool.run([] { return level::run(50); }) == 51);
  }
}
