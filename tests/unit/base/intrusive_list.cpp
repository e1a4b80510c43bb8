// SPDX-License-Identifier: Apache-2.0
//
// intrusive_list and intrusive_queue, against each operation's description and, at random, against
// std::deque.
#include "base/intrusive_list.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <random>
#include <vector>

namespace {

using namespace tendril::detail;

struct first_tag;
struct second_tag;

struct item : list_node<first_tag>, list_node<second_tag> {
  explicit item(int v = 0) : value(v) {}
  int value;
};

using first_list = intrusive_list<item, first_tag>;
using second_list = intrusive_list<item, second_tag>;

bool on_first(const item& i) { return static_cast<const list_node<first_tag>&>(i).linked(); }

template <class List>
std::vector<int> values(List& list) {
  std::vector<int> result;
  list.for_each([&](item& i) { result.push_back(i.value); });
  return result;
}

template <class List>
void clear(List& list) {
  while (list.pop_front() != nullptr) {
  }
}

struct link {
  explicit link(int v = 0) : value(v) {}
  link* next = nullptr;
  int value;
};

TEST_SUITE("intrusive_list") {
  TEST_CASE("a new list is empty and pops nothing") {
    first_list list;
    CHECK(list.empty());
    CHECK_FALSE(list.singular());
    CHECK(list.front() == nullptr);
    CHECK(list.back() == nullptr);
    CHECK(list.pop_front() == nullptr);
    CHECK(list.pop_back() == nullptr);
  }

  TEST_CASE("both ends push and pop") {
    item a(1), b(2), c(3);
    first_list list;
    list.push_back(b);
    CHECK(list.singular());
    list.push_front(a);
    list.push_back(c);
    CHECK_FALSE(list.singular());
    CHECK(values(list) == std::vector{1, 2, 3});
    CHECK(list.pop_back() == &c);
    CHECK(list.pop_front() == &a);
    CHECK(list.pop_front() == &b);
    CHECK(list.empty());
  }

  TEST_CASE("linked() tells whether an element is on a list") {
    item a;
    first_list list;
    CHECK_FALSE(on_first(a));
    list.push_back(a);
    CHECK(on_first(a));
    first_list::remove(a);
    CHECK_FALSE(on_first(a));
    CHECK(list.empty());
  }

  TEST_CASE("remove takes the first, the middle and the last") {
    item a(1), b(2), c(3), d(4);
    first_list list;
    for (item* i : {&a, &b, &c, &d}) list.push_back(*i);
    first_list::remove(b);
    CHECK(values(list) == std::vector{1, 3, 4});
    first_list::remove(a);
    first_list::remove(d);
    CHECK(values(list) == std::vector{3});
    first_list::remove(c);
    CHECK(list.empty());
  }

  TEST_CASE("tags put one element on two lists at a time") {
    item a(1), b(2);
    first_list first;
    second_list second;
    first.push_back(a);
    first.push_back(b);
    second.push_back(b);
    second.push_back(a);
    CHECK(values(first) == std::vector{1, 2});
    CHECK(values(second) == std::vector{2, 1});
    first_list::remove(a);
    CHECK(values(first) == std::vector{2});
    CHECK(values(second) == std::vector{2, 1});
    clear(first);
    clear(second);
  }

  TEST_CASE("neighbours are null past the ends") {
    item a(1), b(2), c(3);
    first_list list;
    list.push_back(a);
    list.push_back(c);
    list.insert_before(c, b);
    CHECK(list.next(a) == &b);
    CHECK(list.next(b) == &c);
    CHECK(list.next(c) == nullptr);
    CHECK(list.prev(b) == &a);
    CHECK(list.prev(a) == nullptr);
    clear(list);
  }

  TEST_CASE("splice_back moves everything, in order") {
    item a(1), b(2), c(3), d(4);
    first_list one;
    first_list two;
    one.splice_back(two);
    CHECK(one.empty());
    two.push_back(a);
    two.push_back(b);
    one.splice_back(two);
    CHECK(two.empty());
    CHECK(values(one) == std::vector{1, 2});
    two.push_back(c);
    two.push_back(d);
    one.splice_back(two);
    CHECK(values(one) == std::vector{1, 2, 3, 4});
    CHECK(one.back() == &d);
    first_list::remove(b);
    CHECK(values(one) == std::vector{1, 3, 4});
    clear(one);
  }

  TEST_CASE("for_each allows removing the visited element") {
    first_list list;
    std::deque<item> pool;
    for (int i = 0; i != 10; ++i) list.push_back(pool.emplace_back(i));
    list.for_each([](item& i) {
      if (i.value % 2 == 0) first_list::remove(i);
    });
    CHECK(values(list) == std::vector{1, 3, 5, 7, 9});
    clear(list);
  }

  TEST_CASE("random operations agree with a deque") {
    const unsigned seed = std::random_device{}();
    CAPTURE(seed);
    std::mt19937 random(seed);
    std::deque<item> pool;
    for (int i = 0; i != 50; ++i) pool.emplace_back(i);
    first_list list;
    std::deque<int> reference;
    for (int step = 0; step != 20'000; ++step) {
      item& some = pool[random() % pool.size()];
      switch (random() % 5) {
        case 0:
          if (!on_first(some)) {
            list.push_back(some);
            reference.push_back(some.value);
          }
          break;
        case 1:
          if (!on_first(some)) {
            list.push_front(some);
            reference.push_front(some.value);
          }
          break;
        case 2:
          if (on_first(some)) {
            first_list::remove(some);
            reference.erase(std::find(reference.begin(), reference.end(), some.value));
          }
          break;
        case 3:
          if (const item* popped = list.pop_front()) {
            REQUIRE(popped->value == reference.front());
            reference.pop_front();
          }
          break;
        default:
          if (const item* popped = list.pop_back()) {
            REQUIRE(popped->value == reference.back());
            reference.pop_back();
          }
      }
      REQUIRE(list.empty() == reference.empty());
    }
    CHECK(values(list) == std::vector<int>(reference.begin(), reference.end()));
    clear(list);
  }
}

TEST_SUITE("intrusive_queue") {
  TEST_CASE("first in, first out") {
    link a(1), b(2), c(3);
    intrusive_queue<link> queue;
    CHECK(queue.pop() == nullptr);
    queue.push(&a);
    queue.push(&b);
    queue.push(&c);
    CHECK(queue.front() == &a);
    CHECK(queue.pop() == &a);
    CHECK(a.next == nullptr);
    CHECK(queue.pop() == &b);
    CHECK(queue.pop() == &c);
    CHECK(queue.empty());
    queue.push(&a);
    CHECK(queue.pop() == &a);
    CHECK(queue.pop() == nullptr);
  }

  TEST_CASE("push_front is the next to leave") {
    link a(1), b(2), c(3);
    intrusive_queue<link> queue;
    queue.push_front(&b);
    queue.push(&c);
    queue.push_front(&a);
    CHECK(queue.pop() == &a);
    CHECK(queue.pop() == &b);
    CHECK(queue.pop() == &c);
  }

  TEST_CASE("splice appends in order and empties the other") {
    link a(1), b(2), c(3), d(4);
    intrusive_queue<link> one;
    intrusive_queue<link> two;
    one.splice(two);
    CHECK(one.empty());
    two.push(&a);
    two.push(&b);
    one.splice(two);
    CHECK(two.empty());
    two.push(&c);
    one.splice(two);
    one.push(&d);
    for (link* expected : {&a, &b, &c, &d}) CHECK(one.pop() == expected);
    CHECK(one.empty());
  }

  TEST_CASE("a move leaves the source empty") {
    link a(1);
    intrusive_queue<link> one;
    one.push(&a);
    intrusive_queue<link> two(std::move(one));
    CHECK(one.empty());
    CHECK(two.pop() == &a);
  }
}

}  // namespace
