// SPDX-License-Identifier: Apache-2.0
//
// tendril::gc while workers run fibers: threads are stopped at any instruction, on any stack.
#include "nodes.hpp"
#include "support/stress.hpp"

#include <tendril/channel.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <string_view>
#include <thread>
#include <vector>

using tendril::fiber;
using tendril::runtime;
using tendril::test::collector;
using tendril::test::is_whole;
using tendril::test::node;
using tendril::test::node_count;
namespace this_fiber = tendril::this_fiber;

namespace {

/// A list that only the caller's frames refer to.
[[gnu::noinline]] node* list_of(node_count& count, long length, long seed) {
  node* first = nullptr;
  for (long i = 0; i != length; ++i) first = count.make(seed + i, first);
  return first;
}

[[gnu::noinline]] long broken_in(const node* first, long length, long seed) {
  long broken = 0;
  for (long i = length; i-- != 0; first = first->next) {
    if (!is_whole(first, seed + i)) return broken + 1;  // its link is as wrong
  }
  return broken;
}

/// How many threads the collections since the last call have stopped.
std::atomic<int> stopped{0};
void GC_CALLBACK count_stopped(GC_EventType what, void*) {
  if (what == GC_EVENT_THREAD_SUSPENDED) ++stopped;
}

/// Holds a node in each of its frames, and gives the others room in the innermost.
[[gnu::noinline]] long churn(node_count& count, int frames, long seed) {
  node* const list = list_of(count, 4, seed);
  long broken = 0;
  if (frames == 1) this_fiber::yield();
  else broken = churn(count, frames - 1, seed + 10);
  return broken + broken_in(list, 4, seed);
}

}  // namespace

TEST_SUITE("gc_running") {
  TEST_CASE("fibers that allocate, yield and end while others collect lose nothing") {
    collector();
    const long rounds = tendril::test::rounds(60, 4);
    node_count& count = tendril::test::new_count();
    std::atomic<long> broken{0};
    std::atomic<long> running{32};
    std::atomic<bool> end{false};
    runtime rt({.workers = 3});
    // Never switches away: stopped in the middle of its code, on whatever it stands on.
    auto busy = std::thread([&] {
      rt.run([&] {
        node* const mine = count.make(5);
        long steps = 0;
        while (!end.load(std::memory_order_relaxed)) ++steps;
        broken += is_whole(mine, 5) ? 0 : 1;
      });
    });
    rt.run([&] {
      std::vector<fiber> all;
      for (int i = 0; i != 32; ++i)
        all.emplace_back([&, i] {
          for (long k = 0; k != rounds; ++k) broken += churn(count, 1 + (i + k) % 6, 1000 * i + k);
          --running;
        });
      while (running != 0) {
        GC_gcollect();
        this_fiber::yield();
      }
      for (fiber& f : all) f.join();
    });
    end = true;
    busy.join();
    tendril::test::collect();  // the collections above may all have come before the first end
    CHECK(broken == 0);
    CHECK(count.collected > 0);
  }

  TEST_CASE(
      "fibers that begin as calls, leave their hosts and are started anew, while others collect") {
    collector();
    const long rounds = tendril::test::rounds(200, 10);
    node_count& count = tendril::test::new_count();
    std::atomic<long> broken{0};
    std::atomic<int> running{3};
    runtime rt({.workers = 2});
    const auto call = [&](long seed) {
      node* const mine = count.make(seed);
      auto second = tendril::thunk([&count, &broken, seed] {
        node* const list = list_of(count, 8, seed);
        if (seed % 3 == 0) this_fiber::yield();
        broken += broken_in(list, 8, seed);
      })();
      second.get();
      broken += is_whole(mine, seed) ? 0 : 1;
    };
    std::vector<std::thread> threads;
    for (int t = 0; t != 2; ++t)
      threads.emplace_back([&] {
        for (long i = 0; i != rounds; ++i) tendril::thunk([&] { call(i); })().get();
        --running;
      });
    rt.run([&] {
      fiber f([&] {
        for (long i = 0; i != rounds; ++i) call(i);
        --running;
      });
      while (running != 0) {
        GC_gcollect();
        this_fiber::yield();
      }
      f.join();
    });
    for (std::thread& t : threads) t.join();
    CHECK(broken == 0);
  }

  TEST_CASE("workers that block and are replaced are known to the collector") {
    collector();
    node_count& count = tendril::test::new_count();
    std::atomic<long> broken{0};
    std::atomic<int> blocked{0};
    std::atomic<bool> end{false};
    runtime rt({.workers = 1, .on_blocked_worker = [](std::string_view) {}});
    rt.run([&] {
      std::vector<fiber> all;
      for (int i = 0; i != 3; ++i)
        all.emplace_back([&, i] {
          node* const mine = count.make(i);
          ++blocked;
          end.wait(false);  // until then the monitor gives the worker other threads
          broken += is_whole(mine, i) ? 0 : 1;
        });
      while (blocked != 3) this_fiber::yield();
      tendril::test::collect();
      end = true;
      end.notify_all();
      for (fiber& f : all) f.join();
    });
    CHECK(broken == 0);
  }

  TEST_CASE("threads that sleep are not woken to be stopped, and what they hold is found") {
    collector();
    node_count& count = tendril::test::new_count();
    node* const mine = count.make(7);
    runtime rt({.workers = 3});
    GC_set_on_thread_event(&count_stopped);
    // The test's thread waits, two workers have nothing to do, after a while.
    rt.run([&] {
      do {
        stopped = 0;
        GC_gcollect();
        this_fiber::yield();
      } while (stopped != 0);
      tendril::test::collect();
    });
    GC_set_on_thread_event(nullptr);
    CHECK(is_whole(mine, 7));
  }

  TEST_CASE("threads that fall asleep and are woken, while others collect, lose nothing") {
    collector();
    const long rounds = tendril::test::rounds(200, 20);
    node_count& count = tendril::test::new_count();
    std::atomic<long> broken{0};
    std::atomic<int> running{3};
    runtime sleepers({.workers = 3});
    runtime rt({.workers = 1});
    std::vector<std::thread> threads;
    for (int t = 0; t != 3; ++t)
      threads.emplace_back([&, t] {
        GC_stack_base base;
        GC_get_stack_base(&base);
        GC_register_my_thread(&base);
        for (long i = 0; i != rounds; ++i) {
          node* const mine = count.make(i);
          // Wakes a worker, which goes to sleep again, and sleeps meanwhile.
          node* other = nullptr;
          sleepers.run([&, t] {
            other = count.make(t, count.make(i));
            if (i % 2 == 0) this_fiber::sleep_for(std::chrono::microseconds(50));
          });
          broken += is_whole(mine, i) && is_whole(other, t) && is_whole(other->next, i) ? 0 : 1;
        }
        --running;
        GC_unregister_my_thread();
      });
    rt.run([&] {
      while (running != 0) {
        GC_gcollect();
        this_fiber::yield();
      }
    });
    for (std::thread& t : threads) t.join();
    CHECK(broken == 0);
  }
}
