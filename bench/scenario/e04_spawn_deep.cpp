// SPDX-License-Identifier: Apache-2.0
//
// E4: what does a new fiber cost that uses a lot of stack at once? Each fiber recurses through 10,000
// frames that the compiler must keep, and at the bottom counts and spawns its successor.
//   reuse  it then returns and ends: its successor gets a stack that was this deep before
//   fresh  it then stays, parked at the bottom: its successor needs memory never touched before
// Tasklets have slots of that size, more than there are of them at once: nothing is copied. At such depths
// copies lose (E14c).
// The cost of a frame is in it: that of calling, writing to and returning from 10,000 of them is what
// a thread pays too. Beside it std::thread doing the same, on the system's default stacks.
//
// Does not show: growth on a stack that was never deep before and is not parked (E4g).

#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <latch>
#include <memory>
#include <stdexcept>
#include <thread>

namespace bench {
namespace {

using steady = std::chrono::steady_clock;

constexpr long depth = 10'000;
constexpr std::size_t reserved_bytes = std::size_t{4} << 20;  // many times what 10,000 frames take

/// Of a chain of fibers or threads. Successors see what predecessors wrote: spawning synchronises.
template <class Latch>
struct deep_chain {
  long remaining;
  bool hold;
  std::uint64_t frames = 0;  // counted while returning
  steady::time_point end{};
  Latch last{1};     // the last link has run
  Latch release{1};  // those who stay may go
};

using fiber_chain = deep_chain<tendril::latch>;
using thread_chain = deep_chain<std::latch>;

using at_bottom = void (*)(void* argument, std::uintptr_t here);

/// Calls f at the bottom; returns the number of frames, so that nobody can leave one out.
[[gnu::noinline]] std::uint64_t recurse(long left, at_bottom f, void* argument) {
  char frame[32];
  asm volatile("" : : "r"(frame) : "memory");
  std::uint64_t below = 0;
  if (left == 1) f(argument, reinterpret_cast<std::uintptr_t>(frame));
  else below = recurse(left - 1, f, argument);
  asm volatile("" : : "r"(frame) : "memory");  // still needed here: no tail call
  return below + 1;
}

/// Of one frame of recurse(). On a thread: segments are not one below the other.
double frame_bytes() {
  const auto note = [](void* into, std::uintptr_t here) {
    *static_cast<std::uintptr_t*>(into) = here;
  };
  std::uintptr_t shallow = 0;
  std::uintptr_t deep = 0;
  recurse(1, note, &shallow);
  recurse(101, note, &deep);
  return static_cast<double>(shallow - deep) / 100;
}

void link_fiber(fiber_chain& c) {
  c.frames += recurse(
      depth,
      [](void* argument, std::uintptr_t) {
        auto& c = *static_cast<fiber_chain*>(argument);
        if (--c.remaining == 0) {
          c.end = steady::now();
          c.last.count_down();
          return;
        }
        tendril::spawn([&c] { link_fiber(c); });
        if (c.hold) c.release.wait();
      },
      &c);
}

void link_thread(const std::shared_ptr<thread_chain>& chain) {
  const std::uint64_t frames = recurse(
      depth,
      [](void* argument, std::uintptr_t) {
        const auto c = *static_cast<const std::shared_ptr<thread_chain>*>(argument);
        if (--c->remaining == 0) {
          c->end = steady::now();
          c->last.count_down();
          return;
        }
        const bool hold = c->hold;  // the successor may end everything at any time
        std::thread([c] { link_thread(c); }).detach();
        if (hold) c->release.wait();
      },
      const_cast<std::shared_ptr<thread_chain>*>(&chain));
  if (frames != depth) std::abort();  // a thread of its own: nobody to throw to
}

double ns_each(steady::time_point begin, steady::time_point end, long count) {
  return std::chrono::duration<double, std::nano>(end - begin).count() / static_cast<double>(count);
}

void deep_fibers(const std::string& stack, long count, bool hold, role_output& out) {
  tendril::runtime_options options = runtime_with(stack, 1);
  if (options.stack.kind == tendril::stack_kind::reserved) options.stack.bytes = reserved_bytes;
  options.tasklets.slot_bytes = reserved_bytes;
  tendril::run(options, [&] {
    const auto c = std::make_unique<fiber_chain>(count, hold);
    const auto begin = steady::now();
    tendril::spawn([&c = *c] { link_fiber(c); });
    c->last.wait();
    const double ns = ns_each(begin, c->end, count);
    c->release.count_down();
    // The chain is theirs until the last has left the gate.
    while (tendril::runtime::current()->stats().fibers_alive() > 1) tendril::this_fiber::yield();
    if (c->frames != static_cast<std::uint64_t>(count) * depth)
      throw std::runtime_error("frames were left out: " + std::to_string(c->frames));
    out.send("ns", ns);
  });
}

void deep_threads(long count, bool hold, role_output& out) {
  const auto c = std::make_shared<thread_chain>(count, hold);
  const auto begin = steady::now();
  std::thread([c] { link_thread(c); }).detach();
  c->last.wait();
  out.send("ns", ns_each(begin, c->end, count));
  c->release.count_down();
}

int spawn_deep(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const long count = args.number("count");
  const bool hold = args.number("hold") != 0;
  out.send("frame_bytes", frame_bytes());
  if (impl == "fiber") deep_fibers(args.text("stack", "reserved"), count, hold, out);
  else if (impl == "thread") deep_threads(count, hold, out);
  else throw std::invalid_argument("unknown --impl '" + impl + "'; known: fiber, thread");
  return 0;
}
const role_registration spawn_deep_role("spawn-deep", spawn_deep);

void run(context& ctx) {
  const int runs = 3;
  const int core = usable_cores().front();
  const long reuse_count = ctx.pick(2'000L, 20'000L);
  const long fresh_count = ctx.pick(200L, 1'000L);
  std::printf(
      "  %ld frames each; reuse: %ld in a row; fresh: %ld at once; one core; best of %d "
      "processes\n",
      depth, reuse_count, fresh_count, runs);
  table out({"variant", "bytes/frame", "reuse ns", "fresh ns", "ns/frame, reuse", "published reuse",
             "published create"});
  const auto measure = [&](const std::string& variant, const arguments& base, const char* reuse,
                           const char* create) {
    ctx.attempt(variant, [&] {
      double ns[2] = {0, 0};
      double bytes = 0;
      for (const bool hold : {false, true}) {
        const long count = hold ? fresh_count : reuse_count;
        arguments args = base;
        args.set("hold", hold ? "1" : "0");
        args.set("count", std::to_string(count));
        for (int i = 0; i < runs; ++i) {
          auto r = run_role("spawn-deep", args, core);
          bytes = r.at("frame_bytes");
          ns[hold] = i == 0 ? r.at("ns") : std::min(ns[hold], r.at("ns"));
        }
        ctx.add(variant, hold ? "ns_per_spawn_fresh" : "ns_per_spawn_reuse", ns[hold], "ns",
                {{"frames", depth},
                 {"frame_bytes", bytes},
                 {"count", count},
                 {"workers", 1},
                 {"core", core},
                 {"best_of", runs}});
      }
      out.row({variant, fixed(bytes, 0), fixed(ns[0], 0), fixed(ns[1], 0),
               fixed(ns[0] / static_cast<double>(depth), 2), reuse, create});
    });
  };
  for (const std::string& stack : stack_variants())
    measure("fiber/" + stack, fiber_arguments(stack), "24,000", "120,000");
  measure("thread", {{"impl", "thread"}}, "-", "-");
  out.print();
}

const registration entry(
    {"E4",
     "spawn deep: each fiber recurses 10,000 frames, then spawns its successor",
     "the cost of a fiber that needs a deep stack at once, on a used one and on untouched memory",
     "growth of a stack that was never deep before, apart (E4g)",
     {"fiber/<stack>", "thread"},
     run});

}  // namespace
}  // namespace bench
