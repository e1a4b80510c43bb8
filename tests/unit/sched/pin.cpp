// SPDX-License-Identifier: Apache-2.0
//
// this_fiber::pin: what others point to stays where it is while a tasklet waits, and what its callers have is there
// again whenever it runs.
#include <tendril/channel.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/inspect.hpp>
#include <tendril/latch.hpp>
#include <tendril/mutex.hpp>
#include <tendril/pin.hpp>
#include <tendril/runtime.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

using namespace tendril;

namespace {

struct shape {
  unsigned workers;
  std::size_t slots;
  bool strict;
};
constexpr shape shapes[] = {{1, 1, false}, {1, 1, true}, {2, 1, false},
                            {2, 3, true},  {4, 2, true}, {1, 1024, false}};

runtime_options with(const shape& s) {
  runtime_options o;
  o.workers = s.workers;
  o.stack.kind = stack_kind::tasklet;
  o.tasklets.slots = s.slots;
  o.tasklets.strict = s.strict;
  return o;
}

/// Calls check(runtime&) with every shape; it returns how often it found something wrong.
template <class F>
void with_shapes(F check) {
  for (const shape& s : shapes) {
    CAPTURE(s.workers);
    CAPTURE(s.slots);
    CAPTURE(s.strict);
    runtime rt(with(s));
    CHECK(check(rt) == 0);
    rt.drain();
  }
}

[[gnu::noinline]] std::uintptr_t here() {
  volatile char local = 0;
  return reinterpret_cast<std::uintptr_t>(&local);
}

/// How often two words in a row have that value. Reads the red zones of suspended stacks, too.
__attribute__((no_sanitize("address"))) int pairs_of(std::uint64_t value, const void* low,
                                                     const void* high) {
  int n = 0;
  const auto* const end = static_cast<const std::uint64_t*>(high);
  for (auto* w = static_cast<const std::uint64_t*>(low); w + 1 < end; ++w)
    if (w[0] == value && w[1] == value) ++n;
  return n;
}

bool near(std::uintptr_t a, std::uintptr_t b) { return (a > b ? a - b : b - a) < 4096; }

}  // namespace

TEST_SUITE("pin") {
  TEST_CASE("others use the variables of pinned code while it waits") {
    with_shapes([](runtime& rt) {
      std::atomic<int> wrong{0};
      for (int i = 0; i != 20; ++i)
        rt.spawn([&wrong, i] {
          const int sum = this_fiber::pin([i] {
            latch done(3);
            mutex lock;
            int total = i;
            for (int k = 1; k <= 3; ++k)
              spawn([&, k] {
                this_fiber::yield();
                const std::lock_guard hold(lock);
                total += k;
                done.count_down();
              });
            done.wait();
            const std::lock_guard hold(lock);
            return total;
          });
          if (sum != i + 6) ++wrong;
        });
      rt.drain();
      return wrong.load();
    });
  }

  TEST_CASE("what the callers have is in place whenever pinned code runs, and after it") {
    with_shapes([](runtime& rt) {
      std::atomic<int> wrong{0};
      for (int i = 0; i != 30; ++i)
        rt.spawn([&wrong, i] {
          volatile int outside[8];
          for (int k = 0; k != 8; ++k) outside[k] = i * 8 + k;
          for (int round = 0; round != 5; ++round) {
            this_fiber::pin([&] {
              for (int k = 0; k != 8; ++k) {
                this_fiber::yield();
                if (outside[k] != i * 8 + k + round) ++wrong;
                outside[k] = outside[k] + 1;
              }
            });
            this_fiber::yield();
          }
          for (int k = 0; k != 8; ++k)
            if (outside[k] != i * 8 + k + 5) ++wrong;
        });
      rt.drain();
      return wrong.load();
    });
  }

  TEST_CASE("what it returns and throws is the caller's") {
    with_shapes([](runtime& rt) {
      int wrong = 0;
      rt.run([p = &wrong] {
        int& bad = *p;
        const auto owner = this_fiber::pin([] {
          this_fiber::yield();
          return std::make_unique<int>(7);
        });
        if (*owner != 7) ++bad;
        auto cell = std::make_unique<int>(1);
        int& reference = this_fiber::pin([&]() -> int& { return *cell; });
        if (&reference != cell.get()) ++bad;
        for (const bool waits : {false, true}) {
          try {
            this_fiber::pin([waits] {
              const std::string text = waits ? "late" : "soon";
              if (waits) this_fiber::yield();
              throw std::runtime_error(text);
            });
            ++bad;
          } catch (const std::runtime_error& e) {
            this_fiber::yield();
            if (std::string(e.what()) != (waits ? "late" : "soon")) ++bad;
          }
        }
        if (std::current_exception() != nullptr || std::uncaught_exceptions() != 0) ++bad;
      });
      return wrong;
    });
  }

  TEST_CASE("in a handler and in a destructor during unwinding") {
    struct pins_at_end {
      int& bad;
      ~pins_at_end() {
        const int inside = this_fiber::pin([] {
          this_fiber::yield();
          try {
            throw 5;
          } catch (int v) {
            this_fiber::yield();
            return v + std::uncaught_exceptions();
          }
        });
        if (inside != 6) ++bad;
      }
    };
    with_shapes([](runtime& rt) {
      std::atomic<int> wrong{0};
      for (int i = 0; i != 10; ++i)
        rt.spawn([&wrong, i] {
          int bad = 0;
          try {
            const pins_at_end at_end{bad};
            throw std::runtime_error(std::to_string(i));
          } catch (const std::runtime_error& e) {
            this_fiber::pin([&] {
              this_fiber::yield();
              if (std::current_exception() == nullptr) ++bad;
              try {
                throw;
              } catch (const std::runtime_error& again) {
                this_fiber::yield();
                if (&again != &e) ++bad;
              }
            });
            if (std::to_string(i) != e.what()) ++bad;
          }
          wrong += bad;
        });
      rt.drain();
      return wrong.load();
    });
  }

  TEST_CASE("a pin in a pin is a plain call") {
    with_shapes([](runtime& rt) {
      int wrong = 0;
      rt.run([p = &wrong] {
        const std::uintptr_t slot = here();
        std::uintptr_t outer = 0;
        std::uintptr_t inner = 0;
        this_fiber::pin([&] {
          outer = here();
          this_fiber::yield();
          this_fiber::pin([&] {
            this_fiber::yield();
            inner = here();
          });
        });
        if (near(slot, outer) || !near(outer, inner) || !near(here(), slot)) ++*p;
      });
      return wrong;
    });
  }

  TEST_CASE("elsewhere it is a plain call") {
    const auto differs = [] {
      const std::uintptr_t before = here();
      return this_fiber::pin([&] { return near(here(), before) ? 0 : 1; });
    };
    CHECK(differs() == 0);
    runtime_options o;
    o.stack.kind = stack_kind::reserved;
    CHECK(run(o, differs) == 0);
  }

  TEST_CASE("a thunk pins before it has left its host, and hosts others in a pin") {
    with_shapes([](runtime& rt) {
      int wrong = 0;
      rt.run([p = &wrong] {
        int bad = 0;
        for (int i = 0; i != 20; ++i) {
          auto f = thunk(
              [](int x) {
                volatile int outside = x;
                return this_fiber::pin([&] {
                  promise<int> gate;
                  spawn([&gate, x] { gate.set_value(x); });
                  auto below = thunk(
                      [](int y) {
                        this_fiber::yield();
                        return y;
                      },
                      stack_kind::tasklet)(x);
                  const int got = gate.get_future().get();
                  return got + outside + below.get();
                });
              },
              stack_kind::tasklet)(i);
          if (f.get() != 3 * i) ++bad;
        }
        *p = bad;
      });
      return wrong;
    });
  }

  TEST_CASE("stacks are given back and used again") {
    runtime rt(with({1, 4, false}));
    const auto pin_some = [&rt](int count) {
      rt.run([count] {
        for (int i = 0; i != count; ++i) this_fiber::pin([] { this_fiber::yield(); });
      });
      return rt.stats().stacks.created;
    };
    const std::size_t first = pin_some(1);
    CHECK(pin_some(1000) == first);
    CHECK(rt.stats().stacks.in_use == 0);
  }

  TEST_CASE("the memory of both stacks is reported to who looks for parked fibers") {
    for (const bool strict : {false, true}) {
      runtime rt(with({1, 1, strict}));
      static constexpr std::uint64_t in_slot = 0x5EED'0001'ABCD'0001;
      static constexpr std::uint64_t in_pin = 0x5EED'0002'ABCD'0002;
      latch gate(1);
      latch parked(1);
      rt.spawn([&] {
        volatile std::uint64_t outer[2] = {in_slot, in_slot};
        this_fiber::pin([&] {
          volatile std::uint64_t inner[2] = {in_pin, in_pin};
          parked.count_down();
          gate.wait();
          outer[0] = inner[0];
        });
      });
      parked.wait();
      int found_slot = 0;
      int found_pin = 0;
      rt.run([&found_slot, &found_pin, &rt] {  // it has parked, and has been copied out
        for_each_parked(rt, [&](const void* low, const void* high) {
          found_slot += pairs_of(in_slot, low, high);
          found_pin += pairs_of(in_pin, low, high);
        });
      });
      CHECK(found_slot == 1);
      CHECK(found_pin == 1);
      gate.count_down();
      rt.drain();
    }
  }
}
