// SPDX-License-Identifier: Apache-2.0
//
// What the monitor does to tasklets that are idle for long: residents are moved out, empty slots lose their memory,
// images are folded and packed; and all of it comes back. Each case waits until the counters say that it has happened,
// however long that takes.
#include "context/image_pack.hpp"
#include "support/tokens.hpp"

#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/inspect.hpp>
#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

using namespace tendril;
using namespace std::chrono_literals;

namespace {

runtime_options with(unsigned workers, std::size_t slots) {
  runtime_options o;
  o.workers = workers;
  o.stack.kind = stack_kind::tasklet;
  o.tasklets.slots = slots;
  o.tasklets.evict_idle_after = 1ms;
  o.deadlock_grace = 1h;
  o.seed = 7;
  return o;
}

template <class Done>
void until(const runtime& rt, Done done) {
  while (!done(rt.stats().tasklets)) std::this_thread::sleep_for(1ms);
}

/// Waits below bytes that are like nobody else's, but repeat themselves. Whether they are as they were.
[[gnu::noinline]] bool wait_below_text(std::uint64_t seed, latch& gate) {
  std::array<volatile std::uint64_t, 1024> text;
  const auto word = [seed](std::size_t i) {
    return (seed + i % 5 + 1) * 0x9E37'79B9'7F4A'7C15U;  // no two tasklets have one in common
  };
  for (std::size_t i = 0; i != text.size(); ++i) text[i] = word(i);
  gate.wait();
  for (std::size_t i = 0; i != text.size(); ++i)
    if (text[i] != word(i)) return false;
  return true;
}

std::string refusal_of(const runtime_options& o, std::error_code& code) {
  try {
    runtime rt(o);
  } catch (const std::system_error& e) {
    code = e.code();
    return e.what();
  }
  return "";
}

}  // namespace

TEST_SUITE("tasklet_idle") {
  TEST_CASE("idle residents are moved out, and slots that nobody is in lose their memory") {
    for (const unsigned workers : {1U, 3U}) {
      runtime rt(with(workers, 8));
      latch gate(1);
      std::atomic<int> intact{0};
      constexpr int count = 5;
      for (int i = 0; i != count; ++i)
        rt.spawn([&, i] { intact += wait_below_text(static_cast<std::uint64_t>(i) * 100, gate); });
      until(rt,
            [](const tasklet_stats& s) { return s.evictions >= count && s.discards >= s.slots; });
      const tasklet_stats idle = rt.stats().tasklets;
      CHECK(idle.slots >= 1);
      CHECK(idle.captures >= count);
      gate.count_down();
      rt.drain();
      CHECK(intact == count);
      CHECK(rt.stats().tasklets.restores >= count);
    }
  }

  TEST_CASE("who parks before the first look is not idle since the machine's start") {
    runtime_options o = with(1, 1);
    o.tasklets.evict_idle_after = 1h;
    runtime rt(o);
    latch gate(1);
    constexpr int count = 2;  // one copy: more would be folded because they are many
    for (int i = 0; i != count; ++i) rt.spawn([&] { gate.wait(); });
    until(rt, [](const tasklet_stats& s) { return s.captures >= count - 1; });
    std::this_thread::sleep_for(200ms);  // many looks, which find nothing
    CHECK(rt.stats().tasklets.folds == 0);
    gate.count_down();
    rt.drain();
  }

  TEST_CASE("an idle crowd is folded to the last one") {
    runtime rt(with(1, 2));
    latch gate(1);
    std::atomic<int> through{0};
    constexpr int count = 30;
    for (int i = 0; i != count; ++i)
      rt.spawn([&] {
        gate.wait();
        ++through;
      });
    until(rt, [](const tasklet_stats& s) { return s.folds >= count; });
    gate.count_down();
    rt.drain();
    CHECK(through == count);
    CHECK(rt.stats().tasklets.unfolds >= count);
  }

  TEST_CASE(
      "cold images that are like no other are packed, found, and brought back on any worker") {
    if (!detail::packing_available()) return;
    for (const unsigned workers : {1U, 2U}) {
      CAPTURE(workers);
      runtime_options o = with(workers, 3);
      o.pack_cold_after = 2ms;
      runtime rt(o);
      latch gate(1);
      std::atomic<int> intact{0};
      std::atomic<int> caught{0};
      constexpr int count = 40;
      for (int i = 0; i != count; ++i)
        rt.spawn([&, i] {
          try {
            if (!wait_below_text(static_cast<std::uint64_t>(i) * 1000, gate)) return;
            ++intact;
            throw std::runtime_error(std::to_string(i));
          } catch (const std::runtime_error& e) {
            this_fiber::yield();
            if (e.what() == std::to_string(i)) ++caught;
          }
        });
      // Those that became patterns for others are folded.
      until(rt, [](const tasklet_stats& s) { return s.packs + s.folds >= count; });
      const tasklet_stats cold = rt.stats().tasklets;
      CHECK(cold.packs >= count / 2);
      CHECK(cold.unpacks == 0);
      CHECK(cold.pack_output_bytes * 2 < cold.pack_input_bytes);
      gate.count_down();
      rt.drain();
      CHECK(intact == count);
      CHECK(caught == count);
      const tasklet_stats ended = rt.stats().tasklets;
      CHECK(ended.unpacks == ended.packs);
    }
  }

  TEST_CASE("what only packed images hold is found") {
    if (!detail::packing_available()) return;
    runtime_options o = with(1, 1);
    o.stack.kind = stack_kind::reserved;  // of the fiber that looks
    o.pack_cold_after = 2ms;
    runtime rt(o);
    test::token_count<16> seen;
    rt.run([&] {
      latch gate(1);
      const fiber_options tasklet{.stack = {stack_kind::tasklet}};
      std::array<fiber, 16> fibers;
      for (std::uint32_t i = 0; i != fibers.size(); ++i)
        fibers[i] = fiber(
            tasklet, [&gate, i] { test::holding(i, [&] { wait_below_text(i * 1000, gate); }); });
      while (rt.stats().tasklets.packs < 8) this_fiber::sleep_for(1ms);
      for_each_parked(seen);
      gate.count_down();
      for (fiber& f : fibers) f.join();
    });
    for (std::uint32_t i = 0; i != 16; ++i) {
      CAPTURE(i);
      CHECK(seen.found[i] >= 1);
    }
  }

  TEST_CASE("times that cannot be are refused with their values") {
    std::error_code code;
    for (const auto t : {0ns, -5ns}) {
      runtime_options o;
      o.tasklets.evict_idle_after = t;
      CHECK(refusal_of(o, code).find("evict_idle_after = " + std::to_string(t.count()) + " ns") !=
            std::string::npos);
      CHECK(code == errc::invalid_option);
      o = {};
      o.pack_cold_after = t;
      CHECK(refusal_of(o, code).find("pack_cold_after = " + std::to_string(t.count()) + " ns") !=
            std::string::npos);
      CHECK(code == errc::invalid_option);
    }
    runtime_options o;
    o.pack_cold_after = 3s;
    const std::string what = refusal_of(o, code);
    if (detail::packing_available()) {
      CHECK(what.empty());
    } else {
      CHECK(code == std::errc::not_supported);
      CHECK(what.find("pack_cold_after = 3000000000 ns") != std::string::npos);
    }
  }
}
