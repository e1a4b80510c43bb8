// SPDX-License-Identifier: Apache-2.0
//
// Thunks from fibers and from plain threads at once, which wait at random, nest, throw, and meet their results
// and the loss of workers at any moment. Every call has a known result, and every one is counted.
#include "support/stress.hpp"
#include "support/with_workers.hpp"

#include "sched/scheduler.hpp"

#include <tendril/future.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using tendril::future;
using tendril::runtime;
using tendril::thunk;
using tendril::test::rounds;
using tendril::test::stress_seed;
using tendril::test::watchdog;
namespace detail = tendril::detail;
namespace this_fiber = tendril::this_fiber;

/// Depth levels of thunk in thunk, each of which may wait before and after; some throw on the way back.
int descend(std::uint32_t dice, int depth) {
  if ((dice & 1) != 0) this_fiber::yield();
  int below = 0;
  if (depth != 0) {
    auto f = thunk(&descend)(dice >> 1, depth - 1);
    if ((dice & 2) != 0) this_fiber::yield();
    try {
      below = f.get();
    } catch (const std::runtime_error&) {
      below = depth;
      if ((dice & 4) != 0) this_fiber::yield();  // in a catch block
    }
  }
  if (dice % 7 == 0) throw std::runtime_error("on the way back");
  return below + 1;
}

/// What descend() gives; nullopt: it throws.
std::optional<int> expected(std::uint32_t dice, int depth) {
  int below = 0;
  if (depth != 0) below = expected(dice >> 1, depth - 1).value_or(depth);
  if (dice % 7 == 0) return std::nullopt;
  return below + 1;
}

/// The number of calls whose result was right.
std::uint64_t calls(std::uint64_t n, std::uint64_t seed) {
  std::minstd_rand random(static_cast<unsigned>(seed));
  std::uint64_t right = 0;
  for (std::uint64_t i = 0; i != n; ++i) {
    const auto dice = static_cast<std::uint32_t>(random());
    const int depth = static_cast<int>(random() % 5);
    const auto wanted = expected(dice, depth);
    try {
      right += thunk(&descend)(dice, depth).get() == wanted ? 1U : 0U;
    } catch (const std::runtime_error&) {
      right += wanted ? 0U : 1U;
    }
  }
  return right;
}

}  // namespace

TEST_SUITE("thunks") {
  TEST_CASE("from fibers and threads at once, while workers change hands") {
    const std::uint64_t seed = stress_seed("thunks");
    for (const bool robbed : {false, true}) {
      CAPTURE(robbed);
      const std::uint64_t each = rounds(4000, 50);
      std::uint64_t right = 0;
      constexpr std::uint64_t fibers = 4, threads = 2;
      runtime rt({.workers = 2, .on_blocked_worker = [](std::string_view) {}});
      const watchdog dog("thunks", &rt);
      detail::scheduler* s = nullptr;
      rt.run([&] { s = detail::current_scheduler(); });
      std::atomic<bool> done{false};
      std::thread robber;
      if (robbed)
        robber = std::thread([&] {
          while (!done) {
            for (unsigned i = 0; i != s->worker_count(); ++i) {
              detail::blocked_fiber who;
              static_cast<void>(s->threads().take_over(s->worker_at(i), who));
            }
            std::this_thread::yield();
          }
        });
      std::vector<future<std::uint64_t>> counts;
      std::atomic<std::uint64_t> on_threads{0};
      std::vector<std::thread> natives;
      for (std::uint64_t i = 0; i != fibers; ++i)
        counts.push_back(tendril::async(calls, each, seed + i));
      for (std::uint64_t i = 0; i != threads; ++i)
        natives.emplace_back([&, i] { on_threads += calls(each, seed + fibers + i); });
      for (auto& c : counts) right += c.get();
      for (auto& t : natives) t.join();
      done = true;
      if (robber.joinable()) robber.join();
      CHECK(right + on_threads == (fibers + threads) * each);
      rt.drain();
      CHECK(rt.stats().fibers_alive() == 0);
    }
  }

  TEST_CASE("results that come as the fiber leaves its host") {
    const std::uint64_t n = rounds(20000, 500);
    runtime rt({.workers = 2});
    const watchdog dog("results", &rt);
    // Two threads: one starts calls that wait for a promise, the other keeps it at that moment.
    std::atomic<tendril::promise<std::uint64_t>*> next{nullptr};
    std::atomic<bool> done{false};
    std::thread giver([&] {
      for (std::uint64_t i = 0; !done;)
        if (auto* const p = next.exchange(nullptr)) p->set_value(i++);
    });
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i != n; ++i) {
      tendril::promise<std::uint64_t> p;
      auto f = thunk([&] {
        auto awaited = p.get_future();
        next = &p;
        return awaited.get();
      })();
      sum += f.get();
      while (next != nullptr) {
      }
    }
    done = true;
    giver.join();
    CHECK(sum == n * (n - 1) / 2);
  }

  TEST_CASE("threads that come and go, with runtimes that do") {
    const std::uint64_t n = rounds(60, 6);
    std::atomic<std::uint64_t> finished{0}, refused{0};
    for (std::uint64_t i = 0; i != n; ++i) {
      std::vector<std::thread> callers;
      std::atomic<bool> started{false};
      {
        runtime rt({.workers = 2});
        for (int k = 0; k != 3; ++k)
          callers.emplace_back([&, k, t = thunk(rt, [](int x) {
                                        if (x % 2 != 0) this_fiber::yield();
                                        return x;
                                      })] {
            for (int x = k;; ++x) {
              try {
                t(x).get();
                ++finished;
                started = true;
              } catch (const std::system_error&) {
                ++refused;
                return;
              }
            }
          });
        while (!started) std::this_thread::yield();
      }
      for (auto& c : callers) c.join();
    }
    CHECK(refused == 3 * n);
    CHECK(finished >= n);
  }
}
