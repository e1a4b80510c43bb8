// SPDX-License-Identifier: Apache-2.0
//
// Finding the memory of fibers that do not run. Fibers hold tokens; one fiber of the only worker, which runs while
// all others are parked or queued, looks for them, and the test checks what it has counted.
#include "support/allocations.hpp"
#include "support/tokens.hpp"

#include <tendril/channel.hpp>
#include <tendril/detail/sanitizers.hpp>
#include <tendril/fiber_local.hpp>
#include <tendril/inspect.hpp>
#include <tendril/latch.hpp>
#include <tendril/pin.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/thunk.hpp>

#include "sched/thread_pin.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <vector>

using tendril::fiber;
using tendril::fiber_options;
using tendril::for_each_parked;
using tendril::parked_epoch;
using tendril::runtime;
using tendril::runtime_options;
using tendril::test::holding;
using tendril::test::token;
namespace this_fiber = tendril::this_fiber;

namespace {

using tokens = tendril::test::token_count<16>;

runtime one_worker(tendril::stack_kind kind = tendril::stack_kind::reserved) {
  return runtime({.workers = 1, .stack = {kind}});
}

tokens look() {
  tokens t;
  for_each_parked(t);
  return t;
}

tokens look(parked_epoch& epoch) {
  tokens t;
  epoch = for_each_parked(t, epoch);
  return t;
}

}  // namespace

TEST_SUITE("parked") {
  TEST_CASE("a parked fiber's frames are found, each of them, and not after its end") {
    auto rt = one_worker();
    tokens parked;
    tokens ended;
    rt.run([&] {
      auto gate = std::make_unique<tendril::latch>(1);
      fiber f([&gate = *gate] { holding(1, [&] { holding(2, [&] { gate.wait(); }); }); });
      this_fiber::yield();
      parked = look();
      gate->count_down();
      f.join();
      ended = look();
    });
    CHECK(parked.found[1] >= 1);
    CHECK(parked.found[2] >= 1);
    CHECK(ended.found[1] == 0);
    CHECK(ended.found[2] == 0);
  }

  TEST_CASE("a runnable fiber is found as a parked one is") {
    auto rt = one_worker();
    tokens queued;
    rt.run([&] {
      fiber f([] { holding(3, [] { this_fiber::yield(); }); });
      this_fiber::yield();
      queued = look();
      f.join();
    });
    CHECK(queued.found[3] >= 1);
  }

  TEST_CASE("what a fiber that has not started captures is found, small or large") {
    auto rt = one_worker();
    tokens queued;
    tokens running;
    rt.run([&] {
      auto gate = std::make_unique<tendril::latch>(1);
      // Made on a stack that is gone afterwards.
      std::optional<fiber> small;
      std::optional<fiber> large;
      fiber([&small, &large, &gate = *gate] {
        small.emplace([held = token(4)] { static_cast<void>(held); });
        std::array<std::uint64_t, 40> many{};
        many[37] = token(5);
        large.emplace([many, &gate] {
          gate.wait();
          static_cast<void>(many);
        });
      }).join();
      queued = look();
      this_fiber::yield();
      running = look();
      gate->count_down();
      small->join();
      large->join();
    });
    CHECK(queued.found[4] == 1);
    CHECK(queued.found[5] == 1);
    CHECK(running.found[5] >= 1);  // its callable is on the heap as long as it lives
  }

  TEST_CASE("fiber-local values are found, and not those that were destroyed") {
    auto rt = one_worker();
    static const tendril::fiber_local<std::array<std::uint64_t, 4>> first;
    static const tendril::fiber_local<std::uint64_t> second;
    tokens parked;
    tokens reset;
    rt.run([&] {
      auto gate = std::make_unique<tendril::counting_semaphore<>>(0);
      fiber f([&gate = *gate] {
        first.get()[3] = token(6);
        *second = token(7);
        gate.acquire();
        first.reset();
        gate.acquire();
      });
      this_fiber::yield();
      parked = look();
      gate->release();
      this_fiber::yield();
      reset = look();
      gate->release();
      f.join();
    });
    CHECK(parked.found[6] == 1);
    CHECK(parked.found[7] == 1);
    CHECK(reset.found[6] == 0);
    CHECK(reset.found[7] == 1);
  }

  TEST_CASE("a value that was handed over is found before its receiver runs") {
    auto rt = one_worker();
    tokens handed_over;
    rt.run([&] {
      auto c = std::make_unique<tendril::channel<std::uint64_t>>(0);
      fiber f([&c = *c] { static_cast<void>(c.receive()); });
      this_fiber::yield();
      c->send(token(8));
      handed_over = look();
      f.join();
    });
    CHECK(handed_over.found[8] >= 1);
  }

  TEST_CASE("a fiber that began as a call is found once it has suspended") {
    auto rt = one_worker();
    tokens suspended;
    rt.run([&] {
      auto gate = std::make_unique<tendril::latch>(1);
      auto call = tendril::thunk([&gate = *gate] { holding(9, [&] { gate.wait(); }); });
      auto pending = call();
      suspended = look();
      gate->count_down();
      pending.get();
    });
    CHECK(suspended.found[9] >= 1);
  }

  TEST_CASE("one runtime's fibers are told from another's") {
    auto a = one_worker();
    auto b = one_worker();
    tendril::counting_semaphore<> parked(0);
    tendril::latch gate(1);
    const auto park = [&](std::uint32_t number) {
      return [&, number] {
        holding(number, [&] {
          parked.release();
          gate.wait();
        });
      };
    };
    // Of b the first fiber lets the second wait: when that one runs, the first has parked.
    b.spawn(park(1));
    b.run([&] { parked.acquire(); });
    tokens of_a;
    tokens of_b;
    tokens of_both;
    a.run([&] {
      fiber f(park(2));
      this_fiber::yield();
      for_each_parked(a, of_a);
      for_each_parked(b, of_b);
      of_both = look();
      gate.count_down();
      f.join();
    });
    CHECK(of_a.found[1] == 0);
    CHECK(of_a.found[2] >= 1);
    CHECK(of_b.found[1] >= 1);
    CHECK(of_b.found[2] == 0);
    CHECK(of_both.found[1] >= 1);
    CHECK(of_both.found[2] >= 1);
  }

  TEST_CASE("nothing is allocated") {
    auto rt = one_worker();
    std::uint64_t before = 0;
    std::uint64_t after = 0;
    rt.run([&] {
      auto gate = std::make_unique<tendril::latch>(1);
      std::vector<fiber> fibers;
      for (int i = 0; i != 300; ++i) fibers.emplace_back([&gate = *gate] { gate.wait(); });
      this_fiber::yield();
      parked_epoch epoch{};
      before = tendril::test::allocations();
      look(epoch);
      look(epoch);
      look();
      after = tendril::test::allocations();
      gate->count_down();
      for (auto& f : fibers) f.join();
    });
    CHECK(after == before);
  }

  TEST_CASE("an epoch gives what has run since, and what is new") {
    auto rt = one_worker();
    std::array<tokens, 8> seen{};
    rt.run([&] {
      std::array<std::unique_ptr<tendril::counting_semaphore<>>, 3> g;
      for (auto& s : g) s = std::make_unique<tendril::counting_semaphore<>>(0);
      const auto waits_twice = [&g](unsigned i) {
        return [&gate = *g[i], i] {
          holding(i, [&] {
            gate.acquire();
            gate.acquire();
          });
        };
      };
      fiber zero(waits_twice(0));
      fiber one(waits_twice(1));
      this_fiber::yield();
      this_fiber::yield();
      parked_epoch epoch{};
      seen[0] = look(epoch);  // both
      seen[1] = look(epoch);  // neither
      g[1]->release();
      seen[2] = look(epoch);  // neither: runnable, but it has not run
      this_fiber::yield();
      seen[3] = look(epoch);  // it has
      fiber two(waits_twice(2));
      seen[4] = look(epoch);  // new, not started
      this_fiber::yield();
      seen[5] = look(epoch);  // started
      seen[6] = look(epoch);  // nothing
      parked_epoch other{};
      look(other);
      seen[7] = look(epoch);  // somebody else has begun an epoch
      for (auto& s : g) s->release(2);
      zero.join();
      one.join();
      two.join();
    });
    const auto found = [&](std::size_t look) {
      return std::array{seen[look].found[0] != 0, seen[look].found[1] != 0,
                        seen[look].found[2] != 0};
    };
    CHECK(found(0) == std::array{true, true, false});
    CHECK(found(1) == std::array{false, false, false});
    CHECK(found(2) == std::array{false, false, false});
    CHECK(found(3) == std::array{false, true, false});
    CHECK(seen[4].ranges >= 1);  // a callable without tokens
    CHECK(found(5) == std::array{false, false, true});
    CHECK(found(6) == std::array{false, false, false});
    CHECK(seen[6].bytes < seen[5].bytes);
    CHECK(found(7) == std::array{true, true, true});
  }

  TEST_CASE("tasklets are found in their slots, in their images and before they have one") {
    runtime_options options{.workers = 1};
    options.stack.kind = tendril::stack_kind::reserved;  // of the fiber that looks
    options.tasklets.slots = 2;
    runtime rt(options);
    std::array<tokens, 5> seen{};
    std::uint64_t captures = 0;
    rt.run([&] {
      auto gate = std::make_unique<tendril::counting_semaphore<>>(0);
      const fiber_options tasklet{.stack = {tendril::stack_kind::tasklet}};
      parked_epoch epoch{};
      std::vector<fiber> fibers;
      for (std::uint32_t i = 0; i != 8; ++i)
        fibers.emplace_back(tasklet, [&gate = *gate, i, captured = token(8 + i)] {
          static_cast<void>(captured);
          holding(i, [&] { gate.acquire(); });
        });
      seen[0] = look(epoch);
      for (int i = 0; i != 40; ++i) this_fiber::yield();  // each lets one more run
      seen[1] = look(epoch);
      seen[2] = look(epoch);
      captures = rt.stats().tasklets.captures;
      gate->release();  // the first of those that wait goes on
      for (int i = 0; i != 4; ++i) this_fiber::yield();
      seen[3] = look(epoch);
      seen[4] = look();
      gate->release(7);
      for (auto& f : fibers) f.join();
    });
    REQUIRE(captures >= 6);  // eight in two slots
    for (std::uint32_t i = 0; i != 8; ++i) {
      CAPTURE(i);
      CHECK(seen[0].found[i] == 0);
      CHECK(seen[0].found[8 + i] >= 1);
      CHECK(seen[1].found[i] >= 1);
      CHECK(seen[2].found[i] == 0);
      CHECK(seen[3].found[i] == 0);  // one has ended, the others have not run
    }
    int left = 0;
    for (std::uint32_t i = 0; i != 8; ++i) left += seen[4].found[i] != 0 ? 1 : 0;
    CHECK(left == 7);
  }

  TEST_CASE(
      "a tasklet that was moved out of its slot is not new, one that has run is; pins included") {
    runtime_options options{.workers = 1};
    options.stack.kind = tendril::stack_kind::reserved;  // of the fiber that looks
    options.tasklets.slots = 2;
    runtime rt(options);
    std::array<tokens, 2> seen{};
    std::uint64_t moved = 0;
    rt.run([&] {
      using semaphore = tendril::counting_semaphore<>;
      std::array<std::unique_ptr<semaphore>, 8> gates;
      for (auto& g : gates) g = std::make_unique<semaphore>(0);
      const fiber_options tasklet{.stack = {tendril::stack_kind::tasklet}};
      std::vector<fiber> fibers;
      for (std::uint32_t i = 0; i != 8; ++i)
        fibers.emplace_back(tasklet, [&gate = *gates[i], i] {
          holding(i, [&] {
            const auto wait = [&] {
              gate.acquire();
              gate.acquire();
            };
            if (i % 2 == 0) wait();
            else this_fiber::pin([&] { holding(8 + i, wait); });
          });
        });
      for (int i = 0; i != 40; ++i) this_fiber::yield();  // each lets one more run
      parked_epoch epoch{};
      seen[0] = look(epoch);
      const std::uint64_t before = rt.stats().tasklets.captures;
      for (const std::size_t i : {0U, 1U}) gates[i]->release();  // they wait once more
      for (int i = 0; i != 8; ++i) this_fiber::yield();
      moved = rt.stats().tasklets.captures - before;
      seen[1] = look(epoch);
      for (auto& g : gates) g->release(2);
      for (auto& f : fibers) f.join();
    });
    CHECK(moved >= 1);
    for (std::uint32_t i = 0; i != 8; ++i) {
      CAPTURE(i);
      CHECK(seen[0].found[i] >= 1);
      CHECK((seen[0].found[8 + i] >= 1) == (i % 2 == 1));
      CHECK((seen[1].found[i] >= 1) == (i < 2));
      CHECK((seen[1].found[8 + i] >= 1) == (i == 1));
    }
  }

  TEST_CASE("tasklets are found in images that were folded, with what only they hold") {
    runtime_options options{.workers = 1};
    options.stack.kind = tendril::stack_kind::reserved;  // of the fiber that looks
    options.tasklets.slots = 1;
    runtime rt(options);
    tokens seen;
    tokens again;
    tendril::tasklet_stats stats;
    rt.run([&] {
      auto gate = std::make_unique<tendril::latch>(1);
      parked_epoch epoch{};
      const fiber_options tasklet{.stack = {tendril::stack_kind::tasklet}};
      std::vector<fiber> fibers;
      for (std::uint32_t i = 0; i != 16; ++i)
        fibers.emplace_back(tasklet, [&gate = *gate, i] { holding(i, [&] { gate.wait(); }); });
      for (int i = 0; i != 80; ++i) this_fiber::yield();
      stats = rt.stats().tasklets;
      seen = look(epoch);
      again = look(epoch);
      gate->count_down();
      for (auto& f : fibers) f.join();
    });
    REQUIRE(stats.folds >= 8);
    REQUIRE(stats.unfolds == 0);
    for (std::uint32_t i = 0; i != 16; ++i) {
      CAPTURE(i);
      CHECK(seen.found[i] >= 1);
      CHECK(again.found[i] == 0);
    }
  }

  TEST_CASE("a fiber that hosts a call is not taken for one that does not run") {
    auto rt = one_worker();
    tokens in_call;
    tokens later;
    rt.run([&] {
      auto gate = std::make_unique<tendril::latch>(1);
      parked_epoch epoch{};
      fiber f([&] {
        holding(1, [&] {
          tendril::thunk([&] { in_call = look(epoch); })().get();
          gate->wait();
        });
      });
      this_fiber::yield();
      later = look(epoch);
      gate->count_down();
      f.join();
    });
    CHECK(later.found[1] >= 1);
  }

  TEST_CASE("a pinned fiber that has blocked its thread is new again when it goes on") {
    // Two threads in the end: the worker's, which blocks, and the spare one that goes on with the worker. The token is
    // no part of the stack, on which the thread still stands.
    auto rt = one_worker();
    static const tendril::fiber_local<std::uint64_t> local;
    std::array<tokens, 3> seen{};
    tendril::counting_semaphore<> gate(0);
    parked_epoch epoch{};
    std::atomic<tendril::detail::fiber_core*> core{nullptr};
    std::atomic<bool> gone_on{false};
    const auto wait_until_parked = [&] {
      while (core.load() == nullptr || !core.load()->park.looks_parked()) this_fiber::yield();
    };
    rt.run([&] {
      fiber f([&] {
        *local = token(2);
        core = tendril::detail::current_fiber();
        tendril::detail::pin_thread();
        gate.acquire();
        gone_on = true;
        gate.acquire();
        tendril::detail::unpin_thread();
      });
      wait_until_parked();
      seen[0] = look(epoch);
      seen[1] = look(epoch);
      gate.release();
      while (!gone_on) this_fiber::yield();
      wait_until_parked();
      seen[2] = look(epoch);
      gate.release();
      f.join();
    });
    CHECK(seen[0].found[2] == 1);
    CHECK(seen[1].found[2] == 0);
    CHECK(seen[2].found[2] == 1);
  }
}
