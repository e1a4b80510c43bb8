// SPDX-License-Identifier: Apache-2.0
//
// Exceptions on tasklets: thrown, caught, in flight and handed over while the stack is copied out and in, on one
// worker and from one to another.
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

using namespace tendril;

namespace {

struct shape {
  unsigned workers;
  std::size_t slots;
  bool strict;
};
constexpr shape shapes[] = {{1, 1, false}, {1, 1, true}, {1, 64, true},
                            {2, 1, false}, {2, 3, true}, {4, 2, true}};

/// body(i) on 40 tasklets at once, each of which returns how often it found something wrong.
template <class F>
void on_tasklets(F body) {
  for (const shape& s : shapes) {
    CAPTURE(s.workers);
    CAPTURE(s.slots);
    CAPTURE(s.strict);
    runtime_options o;
    o.workers = s.workers;
    o.stack.kind = stack_kind::tasklet;
    o.tasklets.slots = s.slots;
    o.tasklets.strict = s.strict;
    runtime rt(o);
    std::atomic<int> wrong{0};
    for (int i = 0; i != 40; ++i)
      rt.spawn([&wrong, body, i] {
        wrong += body(i);
        if (std::current_exception() != nullptr || std::uncaught_exceptions() != 0) ++wrong;
      });
    rt.drain();
    CHECK(wrong == 0);
    CHECK(rt.stats().tasklets.captures >= 40);
  }
}

/// Waits long enough for others of the slot to come in between.
void wait() {
  for (int k = 0; k != 3; ++k) this_fiber::yield();
}

/// So many frames, each with something to destroy; waits and throws at the bottom.
struct counted {
  int& count;
  explicit counted(int& c) : count(++c) {}
  ~counted() { --count; }
};
[[gnu::noinline]] int throw_below(int depth, const std::string& text, int& alive, bool before,
                                  bool waits) {
  const counted here(alive);
  if (waits && !before) this_fiber::yield();
  if (depth == 0) {
    if (waits) wait();
    throw std::runtime_error(text);
  }
  return throw_below(depth - 1, text, alive, before, waits) + 1;
}

}  // namespace

TEST_SUITE("tasklet_exceptions") {
  TEST_CASE("thrown before and after waits, through frames that were copied") {
    on_tasklets([](int i) {
      int bad = 0;
      for (const bool waits : {false, true})
        for (const bool before : {false, true}) {
          const std::string text = std::to_string(i);
          int alive = 0;
          if (before) wait();
          try {
            throw_below(i % 20, text, alive, before, waits);
            ++bad;
          } catch (const std::runtime_error& e) {
            if (alive != 0) ++bad;
            wait();
            if (e.what() != text) ++bad;
          }
          wait();
        }
      return bad;
    });
  }

  TEST_CASE("in flight while it waits in handlers, nested and rethrown") {
    on_tasklets([](int i) {
      int bad = 0;
      try {
        try {
          throw i;
        } catch (int& outer) {
          wait();
          try {
            throw std::to_string(i);
          } catch (const std::string& inner) {
            wait();
            if (outer != i || inner != std::to_string(i)) ++bad;
            try {
              wait();
              throw;
            } catch (const std::string& again) {
              wait();
              if (&again != &inner) ++bad;
            }
          }
          wait();
          outer = i + 1;  // the object itself is what goes on
          throw;
        }
      } catch (int v) {
        wait();
        if (v != i + 1) ++bad;
      }
      return bad;
    });
  }

  TEST_CASE("nested exceptions keep their causes") {
    on_tasklets([](int i) {
      int bad = 0;
      try {
        try {
          wait();
          throw std::runtime_error("cause " + std::to_string(i));
        } catch (...) {
          wait();
          std::throw_with_nested(std::logic_error("effect " + std::to_string(i)));
        }
      } catch (const std::logic_error& e) {
        wait();
        if (e.what() != "effect " + std::to_string(i)) ++bad;
        try {
          std::rethrow_if_nested(e);
          ++bad;
        } catch (const std::runtime_error& cause) {
          wait();
          if (cause.what() != "cause " + std::to_string(i)) ++bad;
        }
      }
      return bad;
    });
  }

  TEST_CASE("waits in destructors during unwinding, which throw and catch as well") {
    struct waits_at_end {
      int& bad;
      int number;
      ~waits_at_end() {
        if (std::uncaught_exceptions() != 1) ++bad;
        wait();
        try {
          throw number;
        } catch (int v) {
          wait();
          if (v != number) ++bad;
        }
        wait();
        if (std::uncaught_exceptions() != 1) ++bad;
      }
    };
    on_tasklets([](int i) {
      int bad = 0;
      try {
        const waits_at_end outer{bad, i};
        const waits_at_end inner{bad, i + 100};
        wait();
        throw std::runtime_error(std::to_string(i));
      } catch (const std::runtime_error& e) {
        wait();
        if (e.what() != std::to_string(i)) ++bad;
      }
      return bad;
    });
  }

  TEST_CASE("become the join's, the future's, and are thrown again there") {
    on_tasklets([](int i) {
      int bad = 0;
      const auto expect = [&](auto&& get) {
        try {
          get();
          ++bad;
        } catch (const std::runtime_error& e) {
          wait();
          if (e.what() != std::to_string(i)) ++bad;
        }
      };
      for (const bool waits : {false, true}) {
        const auto fails = [i, waits]() -> int {
          const std::string text = std::to_string(i);
          if (waits) wait();
          throw std::runtime_error(text);
        };
        fiber f([fails] { fails(); });
        expect([&] { f.join(); });
        auto called = thunk(fails, stack_kind::tasklet)();
        wait();
        expect([&] { called.get(); });
        // One exception, which goes through three futures.
        auto through = thunk(
            [fails] {
              auto below = thunk(fails, stack_kind::tasklet)();
              wait();
              try {
                return below.get();
              } catch (...) {
                wait();
                throw;
              }
            },
            stack_kind::tasklet)();
        expect([&] { through.get(); });
      }
      return bad;
    });
  }

  TEST_CASE("pointers to exceptions travel from one to another and outlive who threw") {
    on_tasklets([](int i) {
      int bad = 0;
      promise<std::exception_ptr> box;
      auto received = box.get_future();
      fiber thrower([i, box = std::move(box)]() mutable {
        try {
          wait();
          throw std::runtime_error(std::to_string(i));
        } catch (...) {
          wait();
          box.set_value(std::current_exception());
          wait();
        }
      });
      const std::exception_ptr e = received.get();
      thrower.join();
      for (int k = 0; k != 2; ++k) {
        try {
          std::rethrow_exception(e);
        } catch (const std::runtime_error& again) {
          wait();
          if (again.what() != std::to_string(i)) ++bad;
        }
      }
      return bad;
    });
  }

  TEST_CASE("a thousand in flight at once, each its own") {
    runtime_options o;
    o.workers = 2;
    o.stack.kind = stack_kind::tasklet;
    o.tasklets.slots = 8;
    runtime rt(o);
    std::atomic<int> wrong{0};
    std::atomic<int> inside{0};
    for (int i = 0; i != 1000; ++i)
      rt.spawn([&wrong, &inside, i] {
        try {
          throw i;
        } catch (int& v) {
          ++inside;
          while (inside != 1000) this_fiber::yield();
          if (v != i) ++wrong;
        }
      });
    rt.drain();
    CHECK(wrong == 0);
  }
}
