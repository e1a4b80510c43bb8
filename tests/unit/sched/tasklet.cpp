// SPDX-License-Identifier: Apache-2.0
//
// Tasklets: what a fiber has on its stack is there again when it resumes, whoever used the addresses meanwhile.
#include <tendril/channel.hpp>
#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cerrno>
#include <cfenv>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <vector>

using namespace tendril;

namespace {

struct shape {
  unsigned workers;
  std::size_t slots;
  bool strict;
};

runtime_options with(const shape& s) {
  runtime_options o;
  o.workers = s.workers;
  o.stack.kind = stack_kind::tasklet;
  o.tasklets.slots = s.slots;
  o.tasklets.strict = s.strict;
  o.seed = 7;
  return o;
}

const std::vector<shape>& shapes() {
  static const std::vector<shape> all = {{1, 1, false},  {1, 3, false}, {2, 1, false},
                                         {2, 3, false},  {2, 3, true},  {4, 2, true},
                                         {1, 1024, true}};
  return all;
}

std::string text_of(const shape& s) {
  return std::to_string(s.workers) + " workers, " + std::to_string(s.slots) + " slots" +
         (s.strict ? ", strict" : "");
}

/// Recurses, parks at the bottom, and finds on the way back what it left on the way down.
[[gnu::noinline]] std::uint64_t descend(unsigned depth, std::uint64_t seed, latch& gate) {
  volatile std::uint64_t mine[4] = {seed, seed * 3, ~seed, seed ^ depth};
  const volatile std::uint64_t* const where = mine;  // a pointer into the frame survives, too
  if (depth == 0) gate.wait();
  const std::uint64_t below = depth == 0 ? 0 : descend(depth - 1, seed + 1, gate);
  const bool intact = where[0] == seed && where[1] == seed * 3 && where[2] == ~seed &&
                      where[3] == (seed ^ depth) && where == mine;
  return below + (intact ? 1 : 1'000'000);
}

/// The same, with frames that have one word of their own, as the calls of one server have.
[[gnu::noinline]] std::uint64_t descend_alike(unsigned depth, std::uint64_t own, latch& gate) {
  volatile std::uint64_t mine[4] = {own, depth, depth * 3, ~std::uint64_t{depth}};
  if (depth == 0) gate.wait();
  const std::uint64_t below = depth == 0 ? 0 : descend_alike(depth - 1, own, gate);
  const bool intact = mine[0] == own && mine[1] == depth && mine[2] == depth * 3 &&
                      mine[3] == ~std::uint64_t{depth};
  return below + (intact ? 1 : 1'000'000);
}

}  // namespace

TEST_SUITE("tasklet") {
  TEST_CASE("frames and pointers into them survive being copied out and in") {
    for (const shape& s : shapes()) {
      CAPTURE(text_of(s));
      runtime rt(with(s));
      constexpr unsigned count = 200;
      latch gate(1);
      std::atomic<std::uint64_t> sum{0};
      std::uint64_t expected = 0;
      for (unsigned i = 0; i != count; ++i) {
        expected += i % 40 + 1;
        rt.spawn([&, i] { sum += descend(i % 40, i, gate); });
      }
      rt.run([] {
        for (int i = 0; i != 10; ++i) this_fiber::yield();
      });
      gate.count_down();
      rt.drain();
      CHECK(sum == expected);
      const tasklet_stats stats = rt.stats().tasklets;
      CHECK(stats.slots <= s.slots);
      if (s.slots < 10) CHECK(stats.captures > 0);
      CHECK(stats.restores <= stats.captures);
    }
  }

  TEST_CASE("a crowd that waits is folded, and comes back as it was") {
    for (const bool strict : {false, true}) {
      CAPTURE(strict);
      runtime rt(with({1, 2, strict}));
      constexpr unsigned count = 400;
      constexpr unsigned depth = 12;
      latch gate(1);
      std::atomic<std::uint64_t> sum{0};
      std::atomic<int> wrong{0};
      tasklet_stats parked;
      rt.run([&] {
        for (unsigned i = 0; i != count; ++i)
          spawn([&, i] {
            try {
              throw i;
            } catch (unsigned& caught) {  // in flight meanwhile
              sum += descend(depth, i, gate);
              try {
                throw;
              } catch (unsigned& again) {
                if (&again != &caught || again != i) ++wrong;
              }
            }
          });
        for (unsigned i = 0; i != count + 20; ++i) this_fiber::yield();
        parked = rt.stats().tasklets;
        gate.count_down();
      });
      rt.drain();
      CHECK(sum == count * (depth + 1));
      CHECK(wrong == 0);
      CHECK(parked.folds > count / 2);
      CHECK(parked.unfolds <= count / 8);  // of the fiber that yields, until it is known to
      CHECK(parked.patterns >= 1);
      CHECK(parked.fold_output_bytes * 2 < parked.fold_input_bytes);
      const tasklet_stats ended = rt.stats().tasklets;
      CHECK(ended.unfolds == ended.folds);
    }
  }

  TEST_CASE("of a crowd with large stacks hardly any is kept whole") {
    constexpr unsigned slots = 8;
    constexpr unsigned count = 80;
    constexpr unsigned depth = 60;
    runtime rt(with({1, slots, false}));
    latch gate(1);
    std::atomic<std::uint64_t> sum{0};
    tasklet_stats parked;
    rt.run([&] {
      for (unsigned i = 0; i != count; ++i) spawn([&, i] { sum += descend_alike(depth, i, gate); });
      for (unsigned i = 0; i != count + 20; ++i) this_fiber::yield();
      parked = rt.stats().tasklets;
      gate.count_down();
    });
    rt.drain();
    CHECK(sum == count * (depth + 1));
    CHECK(parked.captures - parked.restores >= count - slots);
    CHECK(parked.folds - parked.unfolds + 2 * slots >= parked.captures - parked.restores);
  }

  TEST_CASE("who starts the next and ends leaves it the slot, and nothing of its own") {
    runtime rt(with({1, 1, false}));
    struct chain {
      unsigned left = 100;
      unsigned unclean = 0;
      void next() {
        volatile double one = 1;
        volatile double little = 1e-30;
        const bool nearest = std::fegetround() == FE_TONEAREST && one + little == one;
        if (!nearest || errno != 0 || std::uncaught_exceptions() != 0 ||
            std::current_exception() != nullptr)
          ++unclean;
        if (--left != 0) spawn([this] { next(); });
        std::fesetround(FE_UPWARD);
        errno = EDOM;
      }
    } c;
    rt.spawn([&c] { c.next(); });
    rt.drain();
    CHECK(c.left == 0);
    CHECK(c.unclean == 0);
    const char* const strict = std::getenv("TENDRIL_TASKLETS");
    if (strict == nullptr) CHECK(rt.stats().tasklets.conflicts == 0);
  }

  TEST_CASE("those that take turns are soon not folded any more") {
    runtime rt(with({1, 1, false}));
    constexpr unsigned count = 20;
    constexpr int rounds = 200;
    rt.run([] {  // which does not wait: they all begin together
      for (unsigned i = 0; i != count; ++i)
        spawn([] {
          for (int k = 0; k != rounds; ++k) this_fiber::yield();
        });
    });
    rt.drain();
    const tasklet_stats stats = rt.stats().tasklets;
    CHECK(stats.restores > count * (rounds - 1));
    CHECK(stats.folds > 0);
    CHECK(stats.unfolds <= 2 * count);
  }

  TEST_CASE("two that share one slot take turns") {
    runtime rt(with({1, 1, false}));
    channel<int> there(0);
    channel<int> back(0);
    int wrong = 0;
    rt.spawn([&] {
      for (int i = 0; i != 1000; ++i) {
        there.send(i);
        if (back.receive() != i + 1) ++wrong;
      }
      there.close();
    });
    rt.spawn([&] {
      while (const auto v = there.receive()) back.send(*v + 1);
    });
    rt.drain();
    CHECK(wrong == 0);
    CHECK(rt.stats().tasklets.captures >= 1000);
  }

  TEST_CASE("a slot that one worker keeps as free, and another's tasklet has used, is free once") {
    runtime rt(with({2, 2, false}));  // whose end finds a slot that is listed twice
    for (int round = 0; round != 4; ++round)
      for (const int worker : {0, 1}) {
        fiber_options o;
        o.affinity = worker;
        rt.run([&o] {
          std::vector<fiber> two;
          for (int i = 0; i != 2; ++i) two.emplace_back(o, [] { this_fiber::yield(); });
          for (fiber& f : two) f.join();
        });
      }
    CHECK(rt.stats().tasklets.slots == 2);
  }

  TEST_CASE("one that yields in a loop makes room for who waits for its slot") {
    for (const unsigned workers : {1U, 2U}) {
      runtime rt(with({workers, 1, false}));
      std::atomic<bool> done{false};
      rt.spawn([&] {
        while (!done) this_fiber::yield();
      });
      rt.spawn([&] { done = true; });
      rt.drain();
      CHECK(done);
    }
  }

  TEST_CASE("exceptions: caught after a copy, rethrown, suspended inside a handler") {
    for (const shape& s : shapes()) {
      CAPTURE(text_of(s));
      runtime rt(with(s));
      std::atomic<int> wrong{0};
      for (int i = 0; i != 50; ++i)
        rt.spawn([&wrong, i] {
          for (int k = 0; k != 20; ++k) {
            const std::string text = std::to_string(i * 100 + k);
            try {
              this_fiber::yield();
              throw std::runtime_error(text);
            } catch (const std::runtime_error& e) {
              this_fiber::yield();  // the exception is in flight meanwhile
              if (e.what() != text) ++wrong;
              try {
                throw;
              } catch (const std::runtime_error& again) {
                this_fiber::yield();
                if (&again != &e) ++wrong;
              }
            }
            if (std::current_exception() != nullptr) ++wrong;
          }
        });
      rt.drain();
      CHECK(wrong == 0);
    }
  }

  TEST_CASE("what asks for more than a slot gets a stack of its own, and is counted") {
    runtime rt(with({1, 4, false}));
    fiber_options o;
    o.stack = {stack_kind::tasklet, std::size_t{1} << 20};
    bool ran = false;
    rt.run([&] { fiber(o, [&ran] { ran = true; }).join(); });
    CHECK(ran);
    CHECK(rt.stats().tasklets.own_stacks == 1);
  }

  TEST_CASE("a kind of fiber that was seen with a deep stack gets one of its own, and is counted") {
    struct nest {
      static void run(int depth) {
        if (depth != 0) thunk([=] { run(depth - 1); })().get();
      }
    };
    enum class by { spawn, call_with_options, call, call_of_a_fiber };
    for (const by how : {by::spawn, by::call_with_options, by::call, by::call_of_a_fiber}) {
      CAPTURE(static_cast<int>(how));
      const bool plain = how == by::call || how == by::call_of_a_fiber;
      runtime_options o = with(plain ? shape{1, 64, true} : shape{2, 2, true});
      o.tasklets.slot_bytes = std::size_t{1} << 20;
      runtime rt(o);
      std::atomic<std::uint64_t> wrong{0};
      const auto waits_with = [&wrong](auto bytes) {
        volatile unsigned char mine[decltype(bytes)::value];
        for (std::size_t i = 0; i < sizeof mine; i += 512) mine[i] = static_cast<unsigned char>(i);
        this_fiber::yield();
        for (std::size_t i = 0; i < sizeof mine; i += 512)
          if (mine[i] != static_cast<unsigned char>(i)) ++wrong;
      };
      const auto deep = [&] { waits_with(std::integral_constant<std::size_t, 80 << 10>()); };
      const auto shallow = [&] { waits_with(std::integral_constant<std::size_t, 2 << 10>()); };
      const auto run_some = [&](auto f) {
        const auto start = [&] {
          if (how == by::spawn) rt.spawn(f);
          else if (how == by::call_with_options)
            thunk(rt, f, {.stack = {stack_kind::tasklet}})().get();
          else thunk(f)().get();
        };
        // Calls find slots that others of their thread have left.
        if (how == by::call) nest::run(20);
        if (how == by::call_of_a_fiber) rt.run([] { nest::run(20); });
        const std::uint64_t before = rt.stats().tasklets.own_stacks;
        for (int i = 0; i != 10; ++i) {
          if (how == by::call_of_a_fiber) rt.run(start);
          else start();
          rt.drain();
        }
        return rt.stats().tasklets.own_stacks - before;
      };
      CHECK(run_some(shallow) == 0);
      CHECK(run_some(deep) == 9);  // all but the first
      CHECK(run_some(shallow) == 0);
      CHECK(wrong == 0);
    }
  }

  TEST_CASE("options that cannot be are refused with their values") {
    for (const std::size_t slots : {std::size_t{0}, std::size_t{65'537}}) {
      runtime_options o;
      o.tasklets.slots = slots;
      std::string what;
      try {
        runtime rt(o);
      } catch (const std::system_error& e) {
        CHECK(e.code() == errc::invalid_option);
        what = e.what();
      }
      CHECK(what.find("slots = " + std::to_string(slots)) != std::string::npos);
    }
    runtime_options o;
    o.tasklets.slot_bytes = std::size_t{16} << 20;
    CHECK_THROWS_AS(runtime{o}, std::system_error);
  }
}
