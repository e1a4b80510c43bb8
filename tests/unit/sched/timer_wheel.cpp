// SPDX-License-Identifier: Apache-2.0
//
// timer_wheel under a manual clock: rounding, each level's edges, cancellation, re-arming from
// callbacks, and random runs against std::multimap (the seed is printed on failure).
#include "sched/timer_wheel.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <vector>

namespace {

using namespace tendril::detail;
using namespace std::chrono_literals;
using std::chrono::nanoseconds;
using time_point = timer_wheel::time_point;

constexpr nanoseconds tick = timer_wheel::tick_length;
constexpr time_point epoch{};

struct timer : timer_node {
  explicit timer(int i = 0) : id(i) {}
  int id;
  time_point deadline{};
};

std::vector<int> fired_at(timer_wheel& wheel, time_point now) {
  std::vector<int> ids;
  wheel.expire(now, [&](timer_node& node) { ids.push_back(static_cast<timer&>(node).id); });
  return ids;
}

/// What the wheel promises: the deadline rounded up to a tick.
time_point rounded_up(time_point deadline) {
  const auto since = deadline.time_since_epoch();
  return time_point(since % tick == 0ns ? since : (since / tick + 1) * tick);
}

TEST_SUITE("timer_wheel") {
  TEST_CASE("an empty wheel has no deadline and fires nothing") {
    timer_wheel wheel(epoch);
    CHECK_FALSE(wheel.next_deadline().has_value());
    CHECK(wheel.size() == 0);
    CHECK(fired_at(wheel, epoch + 24h).empty());
  }

  TEST_CASE("nothing fires early, nor later than the next tick") {
    for (const nanoseconds after : {1ns, 65535ns, 65536ns, 65537ns, 1000000ns}) {
      CAPTURE(after.count());
      timer_wheel wheel(epoch + 5s);
      timer t(1);
      const time_point deadline = epoch + 5s + after;
      wheel.arm(t, deadline);
      CHECK(t.pending());
      CHECK(fired_at(wheel, deadline - 1ns).empty());
      const time_point due = rounded_up(deadline);
      CHECK(due - deadline < tick);
      CHECK(fired_at(wheel, due - 1ns).empty());
      CHECK(fired_at(wheel, due) == std::vector{1});
      CHECK_FALSE(t.pending());
      CHECK(wheel.size() == 0);
    }
  }

  TEST_CASE("a deadline in the past fires at the next call") {
    timer_wheel wheel(epoch + 10s);
    timer past(1), ancient(2), now(3);
    wheel.arm(past, epoch + 9s);
    wheel.arm(ancient, time_point::min());
    wheel.arm(now, epoch + 10s);
    REQUIRE(wheel.next_deadline().has_value());
    CHECK(*wheel.next_deadline() <= epoch + 10s);
    CHECK(fired_at(wheel, epoch + 10s) == std::vector{1, 2});
    CHECK(fired_at(wheel, rounded_up(epoch + 10s)) == std::vector{3});
  }

  TEST_CASE("time_point::max() never fires, but is pending and cancels") {
    timer_wheel wheel(epoch);
    timer t;
    wheel.arm(t, time_point::max());
    CHECK(t.pending());
    CHECK(wheel.size() == 1);
    CHECK_FALSE(wheel.next_deadline().has_value());
    CHECK(fired_at(wheel, time_point::max()).empty());
    CHECK(wheel.cancel(t));
    CHECK_FALSE(t.pending());
    CHECK_FALSE(wheel.cancel(t));
    CHECK(wheel.size() == 0);
  }

  TEST_CASE("the last expressible deadlines do not overflow") {
    timer_wheel wheel(epoch);
    timer last(1), year(2), century(3);
    wheel.arm(last, time_point::max() - 1ns);
    wheel.arm(year, epoch + 24h * 365);
    wheel.arm(century, epoch + 24h * 365 * 100);
    CHECK(*wheel.next_deadline() <= epoch + 24h * 365);
    CHECK(fired_at(wheel, epoch + 24h * 364).empty());
    CHECK(fired_at(wheel, epoch + 24h * 365 + tick) == std::vector{2});
    CHECK(fired_at(wheel, epoch + 24h * 365 * 100 + tick) == std::vector{3});
    CHECK(fired_at(wheel, time_point::max() - 2 * tick).empty());
    REQUIRE(wheel.next_deadline().has_value());
    CHECK(wheel.cancel(last));
    CHECK_FALSE(wheel.next_deadline().has_value());
  }

  TEST_CASE("each level's edges cascade to the exact tick") {
    // Around each power of 256, from a start that lies just before such an edge as well.
    for (const std::uint64_t start :
         {std::uint64_t{0}, std::uint64_t{255}, std::uint64_t{256 * 256 - 1},
          std::uint64_t{1} << 30, (std::uint64_t{1} << 40) - 1}) {
      for (int level = 1; level <= 5; ++level) {
        for (const int around : {-1, 0, 1}) {
          const std::uint64_t distance =
              (std::uint64_t{1} << (8 * level)) + static_cast<std::uint64_t>(around);
          CAPTURE(start);
          CAPTURE(distance);
          const time_point begin = epoch + tick * static_cast<std::int64_t>(start);
          const time_point deadline = begin + tick * static_cast<std::int64_t>(distance);
          timer_wheel wheel(begin);
          timer t(7);
          wheel.arm(t, deadline);
          // Follow next_deadline(), as a worker does: it must lead there in a few steps.
          time_point now = begin;
          int steps = 0;
          while (t.pending()) {
            REQUIRE(++steps <= 7);
            REQUIRE(wheel.next_deadline().has_value());
            const time_point next = *wheel.next_deadline();
            REQUIRE(next >= now);
            REQUIRE(next <= deadline);
            now = next;
            const auto fired = fired_at(wheel, now);
            REQUIRE(fired.empty() == (now < deadline));
          }
          REQUIRE(now == deadline);
        }
      }
    }
  }

  TEST_CASE("one late call fires everything, ordered by tick") {
    timer_wheel wheel(epoch);
    std::deque<timer> timers;
    std::vector<int> expected;
    std::vector<nanoseconds> delays{1s, 1ms, 1h, 70us, 24h, 10ms, 5s, 90us * 64, 200us, 2h};
    for (std::size_t i = 0; i != delays.size(); ++i) {
      wheel.arm(timers.emplace_back(static_cast<int>(i)), epoch + delays[i]);
      expected.push_back(static_cast<int>(i));
    }
    std::sort(expected.begin(), expected.end(), [&](int a, int b) {
      return delays[static_cast<std::size_t>(a)] < delays[static_cast<std::size_t>(b)];
    });
    CHECK(fired_at(wheel, epoch + 48h) == expected);
  }

  TEST_CASE("cancel prevents firing, and withdraws the deadline") {
    timer_wheel wheel(epoch);
    timer a(1), b(2), c(3);
    wheel.arm(a, epoch + 10ms);
    wheel.arm(b, epoch + 10ms);
    wheel.arm(c, epoch + 10s);
    CHECK(wheel.size() == 3);
    CHECK(wheel.cancel(a));
    CHECK_FALSE(wheel.cancel(a));
    CHECK(wheel.size() == 2);
    CHECK(*wheel.next_deadline() <= epoch + 11ms);
    CHECK(wheel.cancel(b));
    CHECK(*wheel.next_deadline() > epoch + 11ms);
    CHECK(fired_at(wheel, epoch + 1s).empty());
    CHECK(wheel.cancel(c));
    CHECK_FALSE(wheel.next_deadline().has_value());
    CHECK(fired_at(wheel, epoch + 100s).empty());
  }

  TEST_CASE("a node can be armed again after firing and after cancelling") {
    timer_wheel wheel(epoch);
    timer t(1);
    for (int round = 1; round != 200; ++round) {
      wheel.arm(t, epoch + 1ms * round);
      if (round % 2 == 0) {
        REQUIRE(wheel.cancel(t));
      } else {
        REQUIRE(fired_at(wheel, epoch + 1ms * round + tick).size() == 1);
      }
    }
  }

  TEST_CASE("a callback may cancel another timer that is due") {
    timer_wheel wheel(epoch);
    timer a(1), b(2), c(3), far(4);
    wheel.arm(a, epoch + 1ms);
    wheel.arm(b, epoch + 1ms);
    wheel.arm(c, epoch + 2ms);
    wheel.arm(far, epoch + 1h);
    std::vector<int> ids;
    bool cancelled_b = false;
    bool cancelled_self = true;
    bool cancelled_far = false;
    const std::size_t fired = wheel.expire(epoch + 5ms, [&](timer_node& node) {
      ids.push_back(static_cast<timer&>(node).id);
      if (&node != &a) return;
      cancelled_self = wheel.cancel(a);
      cancelled_b = wheel.cancel(b);
      cancelled_far = wheel.cancel(far);
    });
    CHECK(fired == 2);
    CHECK(ids == std::vector{1, 3});
    CHECK(cancelled_b);
    CHECK_FALSE(cancelled_self);
    CHECK(cancelled_far);
    CHECK(wheel.size() == 0);
    CHECK_FALSE(wheel.next_deadline().has_value());
  }

  TEST_CASE("cancelling a due timer leaves its former slot to those armed meanwhile") {
    // A slot of level 0 comes round every 256 ticks: here the due one's slot is in use again.
    timer_wheel wheel(epoch);
    timer a(1), due(2), again(3);
    wheel.arm(a, epoch + tick * 5);
    wheel.arm(due, epoch + tick * 5);
    std::vector<int> ids;
    wheel.expire(epoch + tick * 256, [&](timer_node& node) {
      ids.push_back(static_cast<timer&>(node).id);
      wheel.arm(again, epoch + tick * 261);
      wheel.cancel(due);
    });
    CHECK(ids == std::vector{1});
    CHECK(wheel.next_deadline() == epoch + tick * 261);
    CHECK(fired_at(wheel, epoch + tick * 261) == std::vector{3});
  }

  TEST_CASE("due timers are taken in portions, in order, whatever the portion's size") {
    for (const std::size_t portion : {1U, 2U, 3U, 7U, 8U, 100U}) {
      CAPTURE(portion);
      timer_wheel wheel(epoch);
      std::deque<timer> timers;
      std::vector<int> expected, taken;
      // Far enough to cascade, and several to a tick.
      for (int i = 0; i != 8; ++i) {
        wheel.arm(timers.emplace_back(i), epoch + 10s + (i / 3) * 300ms);
        expected.push_back(i);
      }
      CHECK(wheel.advance(epoch + 20s));
      std::vector<timer_node*> nodes(portion);
      while (const std::size_t n = wheel.pop_due(nodes.data(), portion)) {
        REQUIRE(n <= portion);
        for (std::size_t i = 0; i != n; ++i) {
          CHECK_FALSE(nodes[i]->pending());
          taken.push_back(static_cast<timer*>(nodes[i])->id);
        }
        CHECK(wheel.size() == timers.size() - taken.size());
      }
      CHECK(taken == expected);
      CHECK_FALSE(wheel.next_deadline().has_value());
    }
  }

  TEST_CASE("what a callback arms fires in a later call") {
    timer_wheel wheel(epoch);
    timer periodic(1), other(2);
    wheel.arm(periodic, epoch + 1ms);
    int calls = 0;
    const auto back = [&](timer_node& node) {
      ++calls;
      wheel.arm(node, epoch);  // due already: no endless loop
      if (!other.pending()) wheel.arm(other, epoch + 1h);
    };
    CHECK(wheel.expire(epoch + 2ms, back) == 1);
    CHECK(calls == 1);
    CHECK(wheel.size() == 2);
    REQUIRE(wheel.next_deadline().has_value());
    CHECK(*wheel.next_deadline() <= epoch + 2ms);
    CHECK(wheel.expire(epoch + 2ms, back) == 1);
    CHECK(wheel.expire(epoch + 2ms, back) == 1);
    CHECK(wheel.cancel(periodic));
    CHECK(wheel.cancel(other));
  }

  TEST_CASE("advance and pop_due give the due ones out one at a time") {
    timer_wheel wheel(epoch);
    timer a(1), b(2), late(3);
    wheel.arm(a, epoch + 1ms);
    wheel.arm(b, epoch + 2ms);
    wheel.arm(late, epoch + 1s);
    CHECK(wheel.pop_due() == nullptr);
    CHECK_FALSE(wheel.advance(epoch + 900us));
    CHECK(wheel.advance(epoch + 10ms));
    CHECK(wheel.size() == 3);
    CHECK(*wheel.next_deadline() <= epoch + 10ms);
    CHECK(wheel.pop_due() == &a);
    CHECK(wheel.cancel(b));  // still on the due list
    CHECK(wheel.pop_due() == nullptr);
    CHECK(wheel.size() == 1);
    CHECK(wheel.cancel(late));
  }

  TEST_CASE("a clock that is read late or out of order moves nothing backwards") {
    timer_wheel wheel(epoch + 1s);
    timer t(1);
    wheel.arm(t, epoch + 2s);
    CHECK(fired_at(wheel, epoch + 500ms).empty());
    CHECK(fired_at(wheel, epoch + 1900ms).empty());
    CHECK(fired_at(wheel, epoch + 1s).empty());
    CHECK(fired_at(wheel, epoch + 2s + tick) == std::vector{1});
  }

  TEST_CASE("the destructor frees the nodes that are pending") {
    timer near(1), far(2), never(3), due(4);
    {
      timer_wheel wheel(epoch);
      wheel.arm(due, epoch);
      wheel.advance(epoch);
      wheel.arm(near, epoch + 1ms);
      wheel.arm(far, epoch + 24h);
      wheel.arm(never, time_point::max());
    }
    for (const timer* t : {&near, &far, &never, &due}) CHECK_FALSE(t->pending());
  }

  TEST_CASE("random runs agree with a multimap") {
    const unsigned seed = std::random_device{}();
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    for (int run = 0; run != 20; ++run) {
      // Each run has its own scale, so that all levels and their edges are met.
      const std::uint64_t scale = std::uint64_t{1} << (14 + random() % 44);
      time_point now =
          epoch + nanoseconds(static_cast<std::int64_t>(random() >> (3 + random() % 40)));
      std::deque<timer> timers;  // before the wheel, which frees those still pending
      timer_wheel wheel(now);
      for (int i = 0; i != 300; ++i) timers.emplace_back(i);
      std::multimap<time_point, timer*> reference;  // by the tick at which it is due
      const auto forget = [&](timer& t) {
        for (auto [it, end] = reference.equal_range(t.deadline); it != end; ++it)
          if (it->second == &t) {
            reference.erase(it);
            return;
          }
      };
      // The clock must not run out: a step adds at most the scale, 2^57.
      const time_point end_of_time = time_point::max() - nanoseconds(std::int64_t{1} << 59);
      for (int step = 0; step != 5'000 && now < end_of_time; ++step) {
        timer& some = timers[random() % timers.size()];
        switch (random() % 8) {
          case 0:
          case 1:
          case 2:
            if (!some.pending()) {
              const auto range = random() % 4 == 0 ? scale : scale >> (random() % 14);
              const time_point deadline =
                  now + nanoseconds(static_cast<std::int64_t>(random() % (range + 1))) -
                  nanoseconds(random() % 10 == 0 ? 1'000'000 : 0);
              some.deadline =
                  std::max(rounded_up(deadline), time_point(now.time_since_epoch() / tick * tick));
              wheel.arm(some, deadline);
              reference.emplace(some.deadline, &some);
            }
            break;
          case 3:
          case 4: {
            const bool pending = some.pending();
            if (pending) forget(some);
            REQUIRE(wheel.cancel(some) == pending);
            break;
          }
          default: {
            if (random() % 2 == 0) {
              if (const auto next = wheel.next_deadline()) now = std::max(now, *next);
            } else {
              now += nanoseconds(static_cast<std::int64_t>(random() % (scale >> (random() % 14))));
            }
            time_point last = time_point::min();
            wheel.expire(now, [&](timer_node& node) {
              timer& t = static_cast<timer&>(node);
              REQUIRE(t.deadline <= now);
              REQUIRE(t.deadline >= last);
              last = t.deadline;
              forget(t);
            });
            REQUIRE((reference.empty() || reference.begin()->first > now));
          }
        }
        REQUIRE(wheel.size() == reference.size());
        const auto next = wheel.next_deadline();
        REQUIRE(next.has_value() == !reference.empty());
        if (next.has_value()) {
          REQUIRE(*next <= reference.begin()->first);
        }
      }
    }
  }
}

}  // namespace
