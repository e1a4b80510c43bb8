// SPDX-License-Identifier: Apache-2.0
//
// run_queue and spawn_stack, every interleaving: nothing is lost, nothing is taken twice, and what the
// owner wrote into an item before queueing it is there for whoever takes it. Capacities of 2 and 4 make
// the ring wrap and fill within a few operations.
#include "sched/run_queue.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <functional>
#include <vector>

#include "model/explorer.hpp"
#include "model/weakened_atomics.hpp"
#include "sched/spawn_stack.hpp"

namespace {

using namespace tendril;
using model::model_atomics;

struct item {
  model::plain<int> content{0};
  model::plain<int> taken{0};
  item* next = nullptr;
  item* prev = nullptr;

  /// By its producer, before it is queued.
  item* fill() {
    content.set(1);
    return this;
  }
};

/// By whoever gets an item; as plain variables, so that getting it must order everything.
void take(item* got) {
  if (got == nullptr) return;
  model::check(got->content.get() == 1, "an item was seen before it was complete");
  model::check(got->taken.get() == 0, "an item was taken twice");
  got->taken.set(1);
}

template <std::size_t N>
void check_all_taken(model::execution& run, const std::array<item, N>& items) {
  for (const item& i : items) run.check(i.taken.get() == 1, "an item was lost");
}

/// A thief's turn: runs what it was given first, then what it has queued.
template <class Queue>
void steal(Queue& victim, Queue& mine) {
  item* first = nullptr;
  if (victim.steal_into(mine, first) == 0) return;
  take(first);
  while (item* got = mine.pop()) take(got);
}

template <class Queue>
void drain(Queue& queue) {
  while (item* got = queue.pop()) take(got);
}

template <class Atomics>
model::result owner_against_thief(const char* name) {
  return model::explore(name, [](model::execution& run) {
    using queue_type = detail::basic_run_queue<item, 2, Atomics>;
    std::array<item, 3> items;
    queue_type queue, mine;
    const bool done = run.threads({[&] {
                                     queue.push(items[0].fill());
                                     queue.push(items[1].fill());
                                     take(queue.pop());
                                     if (!queue.push(items[2].fill())) take(&items[2]);
                                     drain(queue);
                                   },
                                   [&] { steal(queue, mine); }});
    if (done) check_all_taken(run, items);
  });
}

TEST_SUITE("run_queue") {
  TEST_CASE("capacity 2: an owner that wraps the ring, and a thief") {
    CHECK(owner_against_thief<model_atomics>("run_queue 2: owner, thief").passed());
  }

  TEST_CASE("without its release or acquire orders that fails") {
    CHECK_FALSE(owner_against_thief<model::no_release>("run_queue 2: no release").failure.empty());
    CHECK_FALSE(owner_against_thief<model::no_acquire>("run_queue 2: no acquire").failure.empty());
  }

  TEST_CASE("capacity 2: an owner and two thieves") {
    const auto found = model::explore("run_queue 2: owner, 2 thieves", [](model::execution& run) {
      using queue_type = detail::basic_run_queue<item, 2, model_atomics>;
      std::array<item, 2> items;
      queue_type queue, first, second;
      const bool done = run.threads({[&] {
                                       queue.push(items[0].fill());
                                       queue.push(items[1].fill());
                                       take(queue.pop());
                                     },
                                     [&] { steal(queue, first); }, [&] { steal(queue, second); }});
      if (!done) return;
      drain(queue);
      check_all_taken(run, items);
    });
    CHECK(found.passed());
  }

  TEST_CASE("capacity 4: a thief moves several at once") {
    const auto found = model::explore("run_queue 4: owner, thief", [](model::execution& run) {
      using queue_type = detail::basic_run_queue<item, 4, model_atomics>;
      std::array<item, 5> items;
      queue_type queue, mine;
      for (std::size_t i = 0; i != 3; ++i) queue.push(items[i].fill());
      const bool done = run.threads({[&] {
                                       for (std::size_t i = 3; i != 5; ++i)
                                         if (!queue.push(items[i].fill())) take(&items[i]);
                                       take(queue.pop());
                                       take(queue.pop());
                                     },
                                     [&] { steal(queue, mine); }});
      if (!done) return;
      drain(queue);
      check_all_taken(run, items);
    });
    CHECK(found.passed());
  }

  TEST_CASE("capacity 4: two thieves race for the same half") {
    const auto found = model::explore("run_queue 4: owner, 2 thieves", [](model::execution& run) {
      using queue_type = detail::basic_run_queue<item, 4, model_atomics>;
      std::array<item, 4> items;
      queue_type queue, first, second;
      for (std::size_t i = 0; i != 3; ++i) queue.push(items[i].fill());
      const bool done = run.threads({[&] {
                                       take(queue.pop());
                                       queue.push(items[3].fill());
                                     },
                                     [&] { steal(queue, first); }, [&] { steal(queue, second); }});
      if (!done) return;
      drain(queue);
      check_all_taken(run, items);
    });
    CHECK(found.passed());
  }

  TEST_CASE("a thief is robbed while it steals") {
    const auto found = model::explore("run_queue 4: thief of a thief", [](model::execution& run) {
      using queue_type = detail::basic_run_queue<item, 4, model_atomics>;
      std::array<item, 4> items;
      queue_type queue, first, second;
      for (item& i : items) queue.push(i.fill());
      const bool done = run.threads({[&] { steal(queue, first); }, [&] { steal(first, second); }});
      if (!done) return;
      drain(queue);
      check_all_taken(run, items);
    });
    CHECK(found.passed());
  }

  TEST_CASE("an owner that moves half away races with a thief") {
    const auto found = model::explore("run_queue 2: pop_half, thief", [](model::execution& run) {
      using queue_type = detail::basic_run_queue<item, 2, model_atomics>;
      std::array<item, 3> items;
      queue_type queue, mine;
      queue.push(items[0].fill());
      queue.push(items[1].fill());
      const bool done = run.threads({[&] {
                                       items[2].fill();
                                       while (!queue.push(&items[2])) {
                                         item* half[1] = {};
                                         if (queue.pop_half(half) == 1) take(half[0]);
                                       }
                                       drain(queue);
                                     },
                                     [&] { steal(queue, mine); }});
      if (done) check_all_taken(run, items);
    });
    CHECK(found.passed());
  }
}

template <class Atomics>
model::result spawner_against_thieves(const char* name, int thieves) {
  return model::explore(name, [thieves](model::execution& run) {
    using stack_type = detail::basic_spawn_stack<item, &item::next, &item::prev, Atomics>;
    std::array<item, 3> items;
    model::undestroyed<stack_type> stack(false), first(false), second(false);
    std::vector<std::function<void()>> bodies{[&] {
                                                stack->push(items[0].fill());
                                                stack->push(items[1].fill());
                                                take(stack->pop());
                                                stack->push(items[2].fill());
                                                take(stack->pop_oldest());
                                              },
                                              [&] { steal(*stack, *first); }};
    if (thieves == 2) bodies.push_back([&] { steal(*stack, *second); });
    if (!run.threads(bodies)) return;
    drain(*stack);
    check_all_taken(run, items);
  });
}

TEST_SUITE("spawn_stack") {
  TEST_CASE("an owner and thieves") {
    CHECK(spawner_against_thieves<model_atomics>("spawn_stack: owner, thief", 1).passed());
    CHECK(spawner_against_thieves<model_atomics>("spawn_stack: owner, 2 thieves", 2).passed());
  }

  TEST_CASE("without the lock's orders that fails") {
    CHECK_FALSE(
        spawner_against_thieves<model::no_release>("spawn_stack: no release", 1).failure.empty());
    CHECK_FALSE(
        spawner_against_thieves<model::no_acquire>("spawn_stack: no acquire", 1).failure.empty());
  }
}

}  // namespace
