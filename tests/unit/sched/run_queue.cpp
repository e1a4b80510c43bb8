// SPDX-License-Identifier: Apache-2.0
//
// run_queue, spawn_stack and park_word one operation at a time, then with real threads. Their
// interleavings are explored in tests/model; the threads here are for ThreadSanitizer and for what
// full-sized queues do.
#include "sched/run_queue.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <thread>
#include <vector>

#include "sched/park_word.hpp"
#include "sched/spawn_stack.hpp"

namespace {

using namespace tendril::detail;

struct item {
  int value = 0;
  int taken = 0;  // plain: whoever takes an item owns it
  item* next = nullptr;
  item* prev = nullptr;
};

template <std::size_t N>
std::array<item, N> numbered() {
  std::array<item, N> items;
  for (std::size_t i = 0; i != N; ++i) items[i].value = static_cast<int>(i);
  return items;
}

using spawn_stack = basic_spawn_stack<item, &item::next, &item::prev>;

TEST_SUITE("run_queue") {
  TEST_CASE("first in, first out, round the ring") {
    auto items = numbered<3>();
    basic_run_queue<item, 4> queue;
    CHECK(queue.pop() == nullptr);
    for (int round = 0; round != 10; ++round) {
      for (item& i : items) REQUIRE(queue.push(&i));
      CHECK(queue.size() == 3);
      for (item& i : items) REQUIRE(queue.pop() == &i);
      CHECK(queue.empty());
    }
  }

  TEST_CASE("pop_exclusive is pop without the lock") {
    auto items = numbered<4>();
    basic_run_queue<item, 4> queue;
    for (int round = 0; round != 5; ++round) {
      for (item& i : items) REQUIRE(queue.push(&i));
      for (item& i : items) REQUIRE(queue.pop_exclusive() == &i);
      CHECK(queue.pop_exclusive() == nullptr);
    }
  }

  TEST_CASE("who pops is told what follows, round the ring") {
    auto items = numbered<3>();
    basic_run_queue<item, 4> queue;
    for (int round = 0; round != 6; ++round) {
      for (item& i : items) REQUIRE(queue.push(&i));
      decltype(queue)::followers f;
      const auto pop = [&] { return round % 2 == 0 ? queue.pop(f) : queue.pop_exclusive(f); };
      REQUIRE(pop() == &items[0]);
      CHECK(f.next == &items[1]);
      CHECK(f.after_next == &items[2]);
      REQUIRE(pop() == &items[1]);
      CHECK(f.next == &items[2]);
      CHECK(f.after_next == nullptr);
      REQUIRE(pop() == &items[2]);
      CHECK(f.next == nullptr);
      CHECK(f.after_next == nullptr);
      CHECK(pop() == nullptr);
    }
  }

  TEST_CASE("a full queue refuses, and gives out its older half") {
    auto items = numbered<5>();
    basic_run_queue<item, 4> queue;
    for (std::size_t i = 0; i != 4; ++i) REQUIRE(queue.push(&items[i]));
    CHECK_FALSE(queue.push(&items[4]));
    std::array<item*, 2> out{};
    REQUIRE(queue.pop_half(out.data()) == 2);
    CHECK(out[0] == &items[0]);
    CHECK(out[1] == &items[1]);
    CHECK(queue.push(&items[4]));
    for (std::size_t i = 2; i != 5; ++i) CHECK(queue.pop() == &items[i]);
    CHECK(queue.pop_half(out.data()) == 0);
  }

  TEST_CASE("steal takes the older half, rounded up") {
    auto items = numbered<5>();
    basic_run_queue<item, 8> victim;
    basic_run_queue<item, 8> thief;
    item* first = nullptr;
    CHECK(victim.steal_into(thief, first) == 0);
    for (item& i : items) REQUIRE(victim.push(&i));
    CHECK(victim.steal_into(thief, first) == 3);
    CHECK(first == &items[0]);
    CHECK(thief.pop() == &items[1]);
    CHECK(thief.pop() == &items[2]);
    CHECK(thief.pop() == nullptr);
    CHECK(victim.pop() == &items[3]);
    CHECK(victim.pop() == &items[4]);
    CHECK(victim.pop() == nullptr);
  }

  TEST_CASE("steal takes the last one") {
    item only;
    basic_run_queue<item, 2> victim;
    basic_run_queue<item, 2> thief;
    REQUIRE(victim.push(&only));
    item* first = nullptr;
    CHECK(victim.steal_into(thief, first) == 1);
    CHECK(first == &only);
    CHECK(victim.empty());
    CHECK(thief.empty());
  }

  TEST_CASE("steal takes no more than the thief has room for") {
    auto items = numbered<8>();
    auto own = numbered<7>();
    basic_run_queue<item, 8> victim;
    basic_run_queue<item, 8> thief;
    for (item& i : items) REQUIRE(victim.push(&i));
    for (item& i : own) REQUIRE(thief.push(&i));
    item* first = nullptr;
    CHECK(victim.steal_into(thief, first) == 2);  // one to run, one to queue
    CHECK(first == &items[0]);
    CHECK(thief.size() == 8);
    CHECK(victim.steal_into(thief, first) == 1);
    CHECK(first == &items[2]);
    CHECK(thief.size() == 8);
    CHECK(victim.size() == 5);
  }

  TEST_CASE("an owner and three thieves take each item once") {
    constexpr std::size_t count = 100'000;
    constexpr int thieves = 3;
    std::vector<item> items(count);
    basic_run_queue<item> queue;
    std::atomic<bool> done{false};
    std::atomic<std::size_t> taken{0};
    std::vector<std::thread> pool;
    for (int t = 0; t != thieves; ++t)
      pool.emplace_back([&] {
        basic_run_queue<item> mine;
        const auto take = [&](item* i) {
          ++i->taken;
          taken.fetch_add(1, std::memory_order_relaxed);
        };
        while (!done.load(std::memory_order_acquire) || !queue.empty()) {
          item* first = nullptr;
          if (queue.steal_into(mine, first) == 0) {
            std::this_thread::yield();
            continue;
          }
          take(first);
          while (item* i = mine.pop()) take(i);
        }
      });
    std::vector<item*> half(basic_run_queue<item>::capacity / 2);
    std::size_t own = 0;
    const auto take = [&](item* i) {
      ++i->taken;
      ++own;
    };
    for (std::size_t i = 0; i != count; ++i) {
      while (!queue.push(&items[i])) {
        const std::size_t moved = queue.pop_half(half.data());
        for (std::size_t k = 0; k != moved; ++k) take(half[k]);
      }
      if (i % 3 == 0)
        if (item* popped = queue.pop()) take(popped);
    }
    done.store(true, std::memory_order_release);
    while (item* popped = queue.pop()) take(popped);
    for (std::thread& thread : pool) thread.join();
    CHECK(own + taken.load() == count);
    std::size_t wrong = 0;
    for (const item& i : items) wrong += i.taken != 1;
    CHECK(wrong == 0);
  }
}

TEST_SUITE("spawn_stack") {
  TEST_CASE("the owner takes the newest, or on request the oldest") {
    for (const bool exclusive : {true, false}) {
      CAPTURE(exclusive);
      auto items = numbered<4>();
      spawn_stack stack(exclusive);
      CHECK(stack.pop() == nullptr);
      CHECK(stack.pop_oldest() == nullptr);
      for (item& i : items) stack.push(&i);
      CHECK(stack.size() == 4);
      CHECK(stack.pop() == &items[3]);
      CHECK(stack.pop_oldest() == &items[0]);
      CHECK(items[0].next == nullptr);
      CHECK(items[0].prev == nullptr);
      CHECK(stack.pop_oldest() == &items[1]);
      CHECK(stack.pop() == &items[2]);
      CHECK(stack.empty());
      CHECK(stack.pop() == nullptr);
      stack.push(&items[0]);
      CHECK(stack.pop_oldest() == &items[0]);
      CHECK(stack.empty());
    }
  }

  TEST_CASE("a thief takes the oldest half, and keeps its order") {
    auto items = numbered<7>();
    spawn_stack victim(false);
    spawn_stack thief(false);
    for (item& i : items) victim.push(&i);
    item* first = nullptr;
    CHECK(victim.steal_into(thief, first) == 4);
    CHECK(first == &items[0]);
    CHECK(victim.size() == 3);
    CHECK(thief.size() == 3);
    CHECK(thief.pop() == &items[3]);
    CHECK(thief.pop_oldest() == &items[1]);
    CHECK(thief.pop() == &items[2]);
    CHECK(thief.pop() == nullptr);
    for (std::size_t i = 6; i != 3; --i) CHECK(victim.pop() == &items[i]);
    CHECK(victim.pop() == nullptr);
  }

  TEST_CASE("what is stolen goes below what the thief has") {
    auto items = numbered<4>();
    item own;
    spawn_stack victim(false);
    spawn_stack thief(false);
    thief.push(&own);
    for (item& i : items) victim.push(&i);
    item* first = nullptr;
    CHECK(victim.steal_into(thief, first) == 2);
    CHECK(thief.pop() == &own);
    CHECK(thief.pop() == &items[1]);
    CHECK(thief.empty());
    CHECK(victim.steal_into(thief, first) == 1);
    CHECK(victim.steal_into(thief, first) == 1);
    CHECK(first == &items[3]);
    CHECK(victim.steal_into(thief, first) == 0);
  }

  TEST_CASE("a theft is bounded") {
    std::vector<item> items(1000);
    spawn_stack victim(false);
    spawn_stack thief(false);
    for (item& i : items) victim.push(&i);
    item* first = nullptr;
    CHECK(victim.steal_into(thief, first) == spawn_stack::steal_limit);
    CHECK(thief.size() == spawn_stack::steal_limit - 1);
    CHECK(victim.size() == items.size() - spawn_stack::steal_limit);
    while (thief.pop() != nullptr) {
    }
    while (victim.pop() != nullptr) {
    }
  }

  TEST_CASE("an owner and two thieves take each item once") {
    constexpr std::size_t count = 100'000;
    std::vector<item> items(count);
    spawn_stack stack(false);
    std::atomic<bool> done{false};
    std::atomic<std::size_t> taken{0};
    std::vector<std::thread> pool;
    for (int t = 0; t != 2; ++t)
      pool.emplace_back([&] {
        spawn_stack mine(false);
        const auto take = [&](item* i) {
          ++i->taken;
          taken.fetch_add(1, std::memory_order_relaxed);
        };
        while (!done.load(std::memory_order_acquire) || !stack.empty()) {
          item* first = nullptr;
          if (stack.steal_into(mine, first) == 0) {
            std::this_thread::yield();
            continue;
          }
          take(first);
          while (item* i = mine.pop()) take(i);
        }
      });
    std::size_t own = 0;
    for (std::size_t i = 0; i != count; ++i) {
      stack.push(&items[i]);
      if (i % 2 == 0) {
        item* const popped = i % 4 == 0 ? stack.pop() : stack.pop_oldest();
        if (popped != nullptr) {
          ++popped->taken;
          ++own;
        }
      }
    }
    done.store(true, std::memory_order_release);
    for (std::thread& thread : pool) thread.join();
    CHECK(own + taken.load() == count);
    std::size_t wrong = 0;
    for (const item& i : items) wrong += i.taken != 1;
    CHECK(wrong == 0);
  }
}

TEST_SUITE("park_word") {
  TEST_CASE("an unpark that comes first leaves a permit") {
    park_word word;
    CHECK_FALSE(word.try_consume());
    CHECK_FALSE(word.unpark());
    CHECK(word.try_consume());
    CHECK_FALSE(word.try_consume());
  }

  TEST_CASE("an unpark of a parked waiter hands over the right to schedule it") {
    park_word word;
    CHECK(word.commit_park());
    CHECK(word.looks_parked());
    CHECK(word.unpark());
    CHECK_FALSE(word.looks_parked());
    CHECK_FALSE(word.try_consume());  // used up by the handing over
    CHECK_FALSE(word.unpark());
    CHECK(word.try_consume());
  }

  TEST_CASE("a permit refuses the park and is used up by it") {
    park_word word;
    word.unpark();
    CHECK_FALSE(word.commit_park());
    CHECK(word.commit_park());
    CHECK(word.unpark());
  }

  TEST_CASE("any number of unparks make one permit") {
    park_word word;
    for (int i = 0; i != 5; ++i) CHECK_FALSE(word.unpark());
    CHECK(word.try_consume());
    CHECK_FALSE(word.try_consume());
    for (int i = 0; i != 5; ++i) CHECK_FALSE(word.unpark());
    CHECK_FALSE(word.commit_park());
    CHECK(word.commit_park());
    CHECK(word.unpark());
    CHECK_FALSE(word.unpark());
    CHECK(word.try_consume());
  }
}

}  // namespace
