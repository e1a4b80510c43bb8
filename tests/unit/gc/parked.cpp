// SPDX-License-Identifier: Apache-2.0
//
// tendril::gc with the world stopped while fibers are parked: what only they refer to stays, and goes when they end.
#include "nodes.hpp"

#include <tendril/fiber.hpp>
#include <tendril/latch.hpp>
#include <tendril/pin.hpp>
#include <tendril/runtime.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

using tendril::fiber;
using tendril::runtime;
using tendril::test::collect;
using tendril::test::collector;
using tendril::test::is_whole;
using tendril::test::node;
using tendril::test::node_count;
namespace this_fiber = tendril::this_fiber;

namespace {

constexpr int fibers = 200;
constexpr int depth = 8;
constexpr long held = long{fibers} * depth;

/// `frames` frames, each of which holds a node of its own over the wait. Tells how many nodes were not whole.
template <class Wait>
[[gnu::noinline]] long hold(node_count& count, long seed, int frames, Wait& wait) {
  node* const mine = count.make(seed + frames);
  long broken = 0;
  if (frames == 1) wait();
  else broken = hold(count, seed, frames - 1, wait);
  return broken + (is_whole(mine, seed + frames) ? 0 : 1);
}

struct outcome {
  long while_parked = 0;
  long broken = 0;
  long at_end = 0;
};

/// Fibers hold nodes while `look` runs in another fiber of the runtime.
template <class Look>
outcome hold_in_fibers(runtime& rt, Look look) {
  outcome r;
  node_count& count = tendril::test::new_count();
  std::atomic<long> broken{0};
  rt.run([&] {
    auto gate = std::make_unique<tendril::latch>(1);
    auto arrived = std::make_unique<tendril::latch>(fibers);
    std::vector<fiber> all;
    for (int i = 0; i != fibers; ++i)
      all.emplace_back([&, &gate = *gate, &arrived = *arrived, i] {
        auto wait = [&] {
          arrived.count_down();
          gate.wait();
        };
        broken += hold(count, 100L * i, depth, wait);
      });
    arrived->wait();
    look();
    r.while_parked = count.collected;
    gate->count_down();
    for (fiber& f : all) f.join();
    collect();
    r.at_end = count.collected;
  });
  r.broken = broken;
  return r;
}

}  // namespace

TEST_SUITE("gc") {
  TEST_CASE("what nobody holds is collected") {
    collector();
    node_count& count = tendril::test::new_count();
    const auto hidden = std::make_unique<std::vector<node*>>();  // on the heap of malloc
    runtime rt({.workers = 1});
    rt.run([&] {
      for (int i = 0; i != held; ++i) hidden->push_back(count.make(i));
      collect();
    });
    CHECK(count.collected >= held * 9 / 10);
  }

  TEST_CASE("what parked fibers hold is not collected, until they have ended") {
    collector();
    for (const unsigned workers : {1U, 3U}) {
      CAPTURE(workers);
      runtime rt({.workers = workers});
      const outcome r = hold_in_fibers(rt, [] { collect(); });
      CHECK(r.while_parked == 0);
      CHECK(r.broken == 0);
      CHECK(r.at_end >= held * 9 / 10);
    }
  }

  TEST_CASE("the same when everything is looked at each time") {
    collector();
    tendril::gc::set_mode(tendril::gc::mode::naive);
    runtime rt({.workers = 1});
    const outcome r = hold_in_fibers(rt, [] { collect(); });
    tendril::gc::set_mode(tendril::gc::mode::aged);
    CHECK(r.while_parked == 0);
    CHECK(r.broken == 0);
    CHECK(r.at_end >= held * 9 / 10);
  }

  TEST_CASE("the same when a thread collects that is none of the runtime's") {
    collector();
    runtime rt({.workers = 2});
    std::atomic<bool> done{false};
    const outcome r = hold_in_fibers(rt, [&] {
      std::thread other([&] {
        GC_stack_base base{};
        GC_get_stack_base(&base);
        GC_register_my_thread(&base);
        collect();
        GC_unregister_my_thread();
        done = true;
      });
      while (!done) this_fiber::yield();
      other.join();
    });
    CHECK(r.while_parked == 0);
    CHECK(r.broken == 0);
    CHECK(r.at_end >= held * 9 / 10);
  }

  TEST_CASE("fibers that have moved between workers hold what they held") {
    collector();
    runtime rt({.workers = 3});
    const outcome r = hold_in_fibers(rt, [] {
      for (int i = 0; i != 3; ++i) {
        std::vector<fiber> busy;
        for (int k = 0; k != 3 * 64; ++k) busy.emplace_back([] { this_fiber::yield(); });
        for (fiber& f : busy) f.join();
        collect();
      }
    });
    CHECK(r.while_parked == 0);
    CHECK(r.broken == 0);
  }

  TEST_CASE("what a fiber captures is held before it has begun") {
    collector();
    node_count& count = tendril::test::new_count();
    std::atomic<long> broken{0};
    long collected = 0;
    runtime rt({.workers = 1, .max_spare_threads = 0});
    rt.run([&] {
      std::vector<fiber> all;
      for (int i = 0; i != fibers; ++i)
        all.emplace_back(
            [mine = count.make(i), &broken, i] { broken += is_whole(mine, i) ? 0 : 1; });
      collect();  // the only worker is ours, and stays it while we wait for the collector
      collected = count.collected;
      for (fiber& f : all) f.join();
    });
    CHECK(collected == 0);
    CHECK(broken == 0);
  }

  TEST_CASE("a call that began a fiber, and the fiber, hold what they refer to") {
    collector();
    node_count& count = tendril::test::new_count();
    runtime rt({.workers = 1});
    long broken = 0;
    // On this thread, which is none of the runtime's, and on a fiber; each two calls deep.
    const auto nest = [&] {
      auto nothing = [&] {
        auto inner = [&] {
          auto look = [] { collect(); };
          broken += hold(count, 1, depth, look);
        };
        auto wait = [&] { tendril::thunk(inner)().get(); };
        broken += hold(count, 2, depth, wait);
      };
      auto wait = [&] { tendril::thunk(nothing)().get(); };
      broken += hold(count, 3, depth, wait);
      return count.collected.load();
    };
    CHECK(nest() == 0);
    long on_fiber = -1;
    rt.run([&] { on_fiber = nest() - count.collected; });
    CHECK(on_fiber == 0);
    CHECK(broken == 0);
  }

  TEST_CASE("around a pin and inside of it, parked and running, what is held is not collected") {
    collector();
    node_count& count = tendril::test::new_count();
    std::atomic<long> broken{0};
    long collected = -1;
    runtime rt({.workers = 1});
    const auto pinned = [&](long seed, auto wait) {
      auto pin = [&] { this_fiber::pin([&] { broken += hold(count, -seed, depth, wait); }); };
      broken += hold(count, seed, depth, pin);
    };
    rt.run([&] {
      auto gate = std::make_unique<tendril::latch>(1);
      auto arrived = std::make_unique<tendril::latch>(fibers);
      std::vector<fiber> all;
      for (int i = 0; i != fibers; ++i)
        all.emplace_back([&pinned, &gate = *gate, &arrived = *arrived, i] {
          pinned(100 * i, [&] {
            arrived.count_down();
            gate.wait();
          });
        });
      arrived->wait();
      fiber([&pinned] { pinned(7, [] { collect(); }); }).join();
      collected = count.collected;
      gate->count_down();
      for (fiber& f : all) f.join();
    });
    CHECK(collected <= 2 * depth);  // those of the fiber that collected, which has ended
    CHECK(broken == 0);
  }

  TEST_CASE("threads that have begun fibers end, and others go on") {
    collector();
    node_count& count = tendril::test::new_count();
    runtime rt({.workers = 1});
    std::atomic<long> broken{0};
    for (int i = 0; i != 8; ++i) {
      std::thread([&] {
        tendril::thunk([&] {
          auto look = [] { collect(); };
          broken += hold(count, 7, depth, look);
        })()
            .get();
      }).join();
    }
    const outcome r = hold_in_fibers(rt, [] { collect(); });
    CHECK(r.while_parked == 0);
    CHECK(r.broken == 0);
    CHECK(broken == 0);
  }

  TEST_CASE("it is enabled once") {
    collector();
    CHECK_THROWS_AS(tendril::gc::enable(), std::system_error);
  }
}
