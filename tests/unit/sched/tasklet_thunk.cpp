// SPDX-License-Identifier: Apache-2.0
//
// Thunks on tasklets: calls that run in a slot at once, and are tasklets from their first wait on.
#include <tendril/detail/sanitizers.hpp>
#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace tendril;

namespace {

runtime_options with(unsigned workers, std::size_t slots, bool strict = false) {
  runtime_options o;
  o.workers = workers;
  o.stack.kind = stack_kind::reserved;  // whatever the environment says
  o.tasklets.slots = slots;
  o.tasklets.strict = strict;
  return o;
}

/// On a fiber, and on a thread that no runtime knows. f returns how often it found something wrong.
template <class F>
int wrong_everywhere(runtime& rt, F f) {
  int on_fiber = -1;
  rt.run([&] { on_fiber = f(); });
  int on_thread = -1;
  std::thread([&] { on_thread = f(); }).join();
  return on_fiber + on_thread;
}

template <class F>
auto on_tasklet(F&& f) {
  return thunk(std::forward<F>(f), stack_kind::tasklet);
}

int nested(int depth) {
  if (depth == 0) return 0;
  auto below = on_tasklet(nested)(depth - 1);
  if (depth % 3 == 0) this_fiber::yield();
  return below.get() + 1;
}

}  // namespace

TEST_SUITE("tasklet_thunk") {
  TEST_CASE("one that does not wait is a call: ready, and in a slot that calls share") {
    runtime rt(with(2, 64));
    const int wrong = wrong_everywhere(rt, [] {
      const auto twice = on_tasklet([](int x) { return 2 * x; });
      int bad = 0;
      for (int i = 0; i != 1000; ++i) {
        auto f = twice(i);
        if (!f.is_ready() || f.get() != 2 * i) ++bad;
      }
      return bad;
    });
    CHECK(wrong == 0);
    const runtime_stats s = rt.stats();
    CHECK(s.tasklets.slots >= 1);
    CHECK(s.tasklets.slots <= 2);  // each thread's own
    CHECK(s.tasklets.own_stacks == 0);
    CHECK(s.fibers_spawned == 1);  // run()'s
  }

  TEST_CASE("one that waits is a tasklet from then on, and its result a future's") {
    for (const bool strict : {false, true}) {
      runtime rt(with(2, 4, strict));
      const int wrong = wrong_everywhere(rt, [] {
        int bad = 0;
        for (int i = 0; i != 200; ++i) {
          promise<int> gate;
          auto f = on_tasklet([&gate](int x) {
            volatile int local = x;
            volatile int* const where = &local;
            const int got = gate.get_future().get();
            return got + *where;
          })(i);
          if (f.is_ready()) ++bad;
          // A call of another in between: at the same addresses, if the first was copied out.
          if (on_tasklet([] { return 5; })().get() != 5) ++bad;
          gate.set_value(1000);
          if (f.get() != 1000 + i) ++bad;
        }
        return bad;
      });
      CHECK(wrong == 0);
      if (strict) CHECK(rt.stats().tasklets.captures >= 400);
    }
  }

  TEST_CASE("exceptions of both halves are the future's") {
    for (const bool strict : {false, true}) {
      runtime rt(with(2, 4, strict));
      const int wrong = wrong_everywhere(rt, [] {
        int bad = 0;
        for (const bool waits : {false, true}) {
          for (int i = 0; i != 50; ++i) {
            auto f = on_tasklet([&]() -> int {
              const std::string text = "no " + std::to_string(i);
              if (waits) this_fiber::yield();
              throw std::runtime_error(text);
            })();
            if (!waits && !f.is_ready()) ++bad;
            try {
              f.get();
              ++bad;
            } catch (const std::runtime_error& e) {
              if (e.what() != "no " + std::to_string(i)) ++bad;
            }
          }
        }
        return bad;
      });
      CHECK(wrong == 0);
    }
  }

  TEST_CASE("what can only be moved goes in and comes out") {
    runtime rt(with(2, 4));
    const int wrong = wrong_everywhere(rt, [] {
      int bad = 0;
      for (const bool waits : {false, true}) {
        auto owner = std::make_unique<int>(4);
        auto f = on_tasklet([waits, own = std::move(owner)](std::unique_ptr<int> p) mutable {
          if (waits) this_fiber::yield();
          *p += *own;
          return p;
        });
        if (*std::move(f)(std::make_unique<int>(3)).get() != 7) ++bad;
      }
      return bad;
    });
    CHECK(wrong == 0);
  }

  TEST_CASE("nested deeper than there are slots, they are fibers all the same") {
    for (const std::size_t slots : {std::size_t{1}, std::size_t{8}, std::size_t{64}}) {
      runtime rt(with(2, slots));
      CHECK(wrong_everywhere(rt, [] { return nested(100) == 100 ? 0 : 1; }) == 0);
      CHECK(rt.stats().tasklets.slots <= slots);
    }
  }

  TEST_CASE("many more wait than the sixty-four that have slots") {
    for (const bool strict : {false, true}) {
      runtime rt(with(2, 64, strict));
      // ThreadSanitizer makes a thread's state for each, and knows 8,128.
      constexpr int count = TENDRIL_TSAN ? 500 : 10'000;
      const int wrong = wrong_everywhere(rt, [] {
        latch gate(1);
        std::vector<future<int>> all;
        all.reserve(count);
        const auto later = on_tasklet([&gate](int x) {
          volatile int local = x;
          volatile int* const where = &local;
          gate.wait();
          return *where;
        });
        for (int i = 0; i != count; ++i) all.push_back(later(i));
        gate.count_down();
        int bad = 0;
        for (int i = 0; i != count; ++i)
          if (all[static_cast<std::size_t>(i)].get() != i) ++bad;
        return bad;
      });
      CHECK(wrong == 0);
      const tasklet_stats s = rt.stats().tasklets;
      CHECK(s.slots <= 64);
      CHECK(s.captures >= count);
      CHECK(s.own_stacks < count / 10);
    }
  }

  TEST_CASE("shells keep no slot that others need") {
    runtime rt(with(1, 8));
    // As many threads as there are slots make calls, and then do nothing, with their shells.
    std::atomic<int> made{0};
    std::atomic<bool> end{false};
    std::vector<std::thread> threads;
    for (int i = 0; i != 8; ++i)
      threads.emplace_back([&] {
        on_tasklet([] {})().get();
        made.fetch_add(1);
        made.notify_all();
        end.wait(false);
      });
    for (int seen = 0; (seen = made.load()) != 8;) made.wait(seen);
    latch gate(1);
    fiber_options o;
    o.stack.kind = stack_kind::tasklet;
    std::atomic<int> ran{0};
    rt.run([&] {
      for (int i = 0; i != 100; ++i)
        spawn(o, [&] {
          gate.wait();
          ++ran;
        });
    });
    gate.count_down();
    rt.drain();
    CHECK(ran == 100);
    CHECK(rt.stats().tasklets.own_stacks == 0);
    end = true;
    end.notify_all();
    for (std::thread& t : threads) t.join();
  }

  TEST_CASE("a name, an affinity, and a runtime of its own go with it") {
    runtime rt(with(2, 4));
    runtime other(with(1, 4));
    fiber_options o;
    o.stack.kind = stack_kind::tasklet;
    o.name = "called";
    o.affinity = 1;
    const int wrong = wrong_everywhere(rt, [&] {
      int bad = 0;
      for (int i = 0; i != 20; ++i) {
        auto f = thunk(
            rt,
            [] {
              const bool before = this_fiber::name() == "called";
              this_fiber::yield();
              return before && this_fiber::name() == "called" && this_fiber::worker_index() == 1;
            },
            o);
        if (!f().get()) ++bad;
        if (on_tasklet([] { return std::string(this_fiber::name()); })().get() != "") ++bad;
        if (thunk(other, [] { return runtime::current(); }, {.stack = {stack_kind::tasklet}})()
                .get() != &other)
          ++bad;
      }
      return bad;
    });
    CHECK(wrong == 0);
  }
}
