// SPDX-License-Identifier: Apache-2.0
//
// tendril::gc in the collector's generational mode: a young collection looks at what has run since the last, and
// that is enough.
#include "nodes.hpp"

#include <tendril/fiber.hpp>
#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

using tendril::fiber;
using tendril::runtime;
using tendril::gc::collections;
using tendril::test::collect;
using tendril::test::collector;
using tendril::test::is_whole;
using tendril::test::node;
using tendril::test::node_count;
namespace this_fiber = tendril::this_fiber;

namespace {

/// One young collection. False: it was a full one.
bool collect_young() {
  const auto before = collections();
  GC_start_incremental_collection();
  while (GC_collect_a_little() != 0) {
  }
  GC_invoke_finalizers();
  const auto after = collections();
  return after.young == before.young + 1 && after.full == before.full;
}

struct group {
  static constexpr int fibers = 300;
  node_count& count = tendril::test::new_count();
  tendril::counting_semaphore<> turns{0};
  long broken = 0;  // one worker
  int waiting = 0;
  bool end = false;
  std::vector<fiber> all;

  /// Each holds a node, and a new one after each of its turns.
  void start(int n) {
    for (int i = 0; i != n; ++i)
      all.emplace_back([this, i] {
        for (long k = 0; !end; ++k) {
          node* const mine = count.make(i + k);
          ++waiting;
          turns.acquire();
          broken += is_whole(mine, i + k) ? 0 : 1;
        }
      });
    settle();
  }
  void let_run(int n) {
    waiting -= n;
    turns.release(n);
    settle();
  }
  void settle() {
    while (waiting != static_cast<int>(all.size())) this_fiber::yield();
  }
  void finish() {
    end = true;
    turns.release(static_cast<std::ptrdiff_t>(all.size()));
    for (fiber& f : all) f.join();
    all.clear();
  }
};

}  // namespace

TEST_SUITE("gc_generational") {
  TEST_CASE(
      "a young collection looks at few fibers, and finds what new ones and those that ran hold") {
    collector(true);
    GC_set_full_freq(1000);
    REQUIRE(GC_is_incremental_mode() != 0);
    runtime rt({.workers = 1, .max_spare_threads = 0});  // one fiber at a time
    auto g = std::make_unique<group>();
    bool young[4] = {};
    std::uint64_t bytes[5] = {};
    long collected[4] = {};
    rt.run([&] {
      g->start(group::fibers);
      collect();
      bytes[0] = collections().parked_bytes;
      const long at_first = g->count.collected;
      young[0] = collect_young();
      bytes[1] = collections().parked_bytes;
      collected[0] = g->count.collected - at_first;
      g->start(10);
      young[1] = collect_young();
      bytes[2] = collections().parked_bytes;
      collected[1] = g->count.collected - at_first;
      g->let_run(20);  // they let go of one node each
      young[2] = collect_young();
      bytes[3] = collections().parked_bytes;
      collected[2] = g->count.collected - at_first;
      young[3] = collect_young();
      bytes[4] = collections().parked_bytes;
      collected[3] = g->count.collected - at_first;
      g->finish();
      collect();
    });
    for (const bool y : young) CHECK(y);
    CHECK(bytes[1] < bytes[0] / 20);
    CHECK(bytes[2] > bytes[1]);
    CHECK(bytes[2] < bytes[0] / 10);
    CHECK(bytes[3] > bytes[1]);
    CHECK(bytes[3] < bytes[0] / 5);
    CHECK(bytes[4] < bytes[0] / 20);
    CHECK(collected[0] == 0);
    CHECK(collected[1] == 0);
    CHECK(collected[3] <= 20);
    CHECK(g->broken == 0);
    CHECK(g->count.collected >= group::fibers * 9 / 10);
  }

  TEST_CASE("many young collections while fibers come, run and go lose nothing") {
    collector(true);
    GC_set_full_freq(8);                                 // full ones among them
    runtime rt({.workers = 1, .max_spare_threads = 0});  // one fiber at a time
    auto g = std::make_unique<group>();
    const auto before = collections();
    rt.run([&] {
      for (int i = 0; i != 60; ++i) {
        g->start(5);
        g->let_run(3 + i % 7);
        collect_young();
        if (i % 13 == 12) tendril::gc::set_mode(tendril::gc::mode::naive);
        if (i % 13 == 2) tendril::gc::set_mode(tendril::gc::mode::aged);
      }
      g->finish();
    });
    const auto after = collections();
    tendril::gc::set_mode(tendril::gc::mode::aged);
    CHECK(after.young > before.young);
    CHECK(after.full > before.full);
    CHECK(g->broken == 0);
  }

  TEST_CASE("collections that run out of time, and go on while fibers run, lose nothing") {
    collector(true);
    GC_set_time_limit(0);
    runtime rt({.workers = 3});
    std::atomic<long> broken{0};
    node_count& count = tendril::test::new_count();
    rt.run([&] {
      std::vector<fiber> all;
      for (int i = 0; i != 12; ++i)
        all.emplace_back([&, i] {
          for (long k = 0; k != 300; ++k) {
            node* const mine = count.make(i + k);
            node* const other = count.make(i - k, mine);
            this_fiber::yield();
            if (k % 16 == 0) GC_start_incremental_collection();
            GC_collect_a_little();
            broken +=
                is_whole(mine, i + k) && is_whole(other, i - k) && other->next == mine ? 0 : 1;
          }
        });
      for (fiber& f : all) f.join();
    });
    GC_set_time_limit(GC_TIME_UNLIMITED);
    CHECK(broken == 0);
  }
}
