// SPDX-License-Identifier: Apache-2.0
//
// Parking and waking in their narrow windows: a wake-up before the park, during its commit, by several
// wakers at once, by threads outside while workers go to sleep, by a timer that is being cancelled.
// Every case counts; a lost wake-up hangs it, and the watchdog prints the runtime's state.
#include "support/own_stack.hpp"
#include "support/stress.hpp"
#include "support/with_workers.hpp"

#include <tendril/detail/waiting.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <system_error>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using tendril::fiber;
using tendril::runtime;
using tendril::test::rounds;
using tendril::test::run_on_own_stack;
using tendril::test::stress_seed;
using tendril::test::watchdog;
using tendril::test::with_workers;
namespace detail = tendril::detail;
namespace this_fiber = tendril::this_fiber;

/// A number that only grows, and one who waits for it: the smallest thing one can lose a wake-up of.
class counter_gate {
 public:
  void open_to_caller() { who_ = detail::current_waiter(); }
  void add() noexcept {
    value_.fetch_add(1, std::memory_order_release);
    if (detail::waiter* const w = who_.load()) detail::unpark(w);
  }
  void wait_for(std::uint64_t wanted) noexcept {
    struct question {
      const std::atomic<std::uint64_t>& value;
      std::uint64_t wanted;
    } const q{value_, wanted};
    detail::wait_until_done(
        [](const void* a) noexcept {
          const auto& asked = *static_cast<const question*>(a);
          return asked.value.load(std::memory_order_acquire) >= asked.wanted;
        },
        &q, {.cancelable = false, .reason = "counter_gate"});
  }

 private:
  std::atomic<detail::waiter*> who_{nullptr};
  std::atomic<std::uint64_t> value_{0};
};

/// Nothing, a few instructions, a yield of the thread, or long enough for a worker to fall asleep.
void random_pause(std::minstd_rand& random) {
  switch (random() % 8) {
    case 0:
      std::this_thread::yield();
      break;
    case 1:
      std::this_thread::sleep_for(std::chrono::microseconds(random() % 60));
      break;
    case 2:
    case 3:
      for (unsigned i = random() % 400; i != 0; --i) asm volatile("" : : : "memory");
      break;
    default:
      break;
  }
}

}  // namespace

TEST_SUITE("stress.sched.parking") {
  TEST_CASE("unpark before, during and after the commit of a park, by several wakers") {
    const std::uint64_t seed = stress_seed("commit window");
    with_workers([&](runtime& rt) {
      constexpr std::uint64_t wakers = 3;
      const std::uint64_t total = rounds(80'000, 200);
      std::uint64_t passed = 0;
      run_on_own_stack(rt, [&] {
        counter_gate to_waiter, back[wakers];
        std::vector<fiber> all;
        all.emplace_back([&] {
          to_waiter.open_to_caller();
          for (std::uint64_t i = 1; i <= total; ++i) {
            to_waiter.wait_for(i * wakers);
            ++passed;
            for (counter_gate& b : back) b.add();
          }
        });
        for (std::uint64_t n = 0; n != wakers; ++n)
          all.emplace_back([&, n] {
            std::minstd_rand random(static_cast<unsigned>(seed + n));
            back[n].open_to_caller();
            for (std::uint64_t i = 1; i <= total; ++i) {
              if (random() % 4 == 0) this_fiber::yield();
              to_waiter.add();
              back[n].wait_for(i);
            }
          });
        for (fiber& f : all) f.join();
      });
      CHECK(passed == total);
    });
  }

  TEST_CASE("threads and fibers in turn, with workers that fall asleep between") {
    const std::uint64_t seed = stress_seed("thread to fiber");
    with_workers([&](runtime& rt) {
      const std::uint64_t total = rounds(3'000, 20);
      constexpr std::size_t pairs = 2;
      struct pair {
        counter_gate to_fiber, to_thread;
        std::uint64_t seen = 0;
      };
      std::vector<pair> all(pairs);
      std::vector<std::thread> threads;
      for (std::size_t n = 0; n != pairs; ++n) {
        rt.spawn([&, n] {
          all[n].to_fiber.open_to_caller();
          for (std::uint64_t i = 1; i <= total; ++i) {
            all[n].to_fiber.wait_for(i);
            ++all[n].seen;
            all[n].to_thread.add();
          }
        });
        threads.emplace_back([&, n] {
          std::minstd_rand random(static_cast<unsigned>(seed + n));
          all[n].to_thread.open_to_caller();
          for (std::uint64_t i = 1; i <= total; ++i) {
            random_pause(random);
            all[n].to_fiber.add();
            all[n].to_thread.wait_for(i);
          }
        });
      }
      for (std::thread& t : threads) t.join();
      rt.drain();
      for (const pair& p : all) CHECK(p.seen == total);
    });
  }

  TEST_CASE("pinned fibers are woken across workers that fall asleep") {
    const std::uint64_t seed = stress_seed("pinned ping-pong");
    runtime rt({.workers = 3});
    const watchdog dog("pinned ping-pong", &rt);
    const std::uint64_t total = rounds(10'000, 50);
    std::atomic<std::uint64_t> hops{0};
    run_on_own_stack(rt, [&] {
      constexpr std::size_t ring = 3;
      counter_gate gates[ring];
      std::vector<fiber> all;
      for (std::size_t n = 0; n != ring; ++n)
        all.emplace_back(tendril::fiber_options{.affinity = static_cast<int>(n)}, [&, n] {
          std::minstd_rand random(static_cast<unsigned>(seed + n));
          gates[n].open_to_caller();
          for (std::uint64_t i = 1; i <= total; ++i) {
            gates[n].wait_for(i);
            ++hops;
            if (random() % 64 == 0) random_pause(random);
            gates[(n + 1) % ring].add();
          }
        });
      gates[0].add();
      for (fiber& f : all) f.join();
    });
    CHECK(hops == 3 * total);
  }

  TEST_CASE("a sleep that ends while it is cancelled") {
    const std::uint64_t seed = stress_seed("sleep and cancel");
    with_workers([&](runtime& rt) {
      const std::uint64_t total = rounds(400, 2);
      constexpr std::size_t fibers = 32;
      std::atomic<std::uint64_t> slept{0}, canceled{0};
      run_on_own_stack(rt, [&] {
        std::minstd_rand random(static_cast<unsigned>(seed));
        for (std::uint64_t i = 0; i != total; ++i) {
          std::vector<fiber> all;
          for (std::size_t n = 0; n != fibers; ++n)
            all.emplace_back([&, d = std::chrono::microseconds(random() % 200)] {
              try {
                this_fiber::sleep_for(d);
                ++slept;
              } catch (const std::system_error&) {
                ++canceled;
              }
            });
          this_fiber::sleep_for(std::chrono::microseconds(random() % 200));
          for (fiber& f : all) f.request_stop();
          for (fiber& f : all) f.join();
        }
      });
      CHECK(slept + canceled == total * fibers);
    });
  }
}
