// SPDX-License-Identifier: Apache-2.0
//
// E3: what does a new fiber cost? Each fiber counts and spawns its successor.
//   reuse  the fiber then ends: its successor gets a stack that is still warm
//   fresh  the fiber then stays, parked: its successor needs a stack never touched before, and pays
//          for the kernel's page faults
// Beside it std::thread doing the same (glibc, too, reuses stacks of threads that have ended).
//
// Does not show: joining, deep first calls (E4), spawning across workers.

#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>

#include <chrono>
#include <latch>
#include <memory>
#include <stdexcept>
#include <thread>

namespace bench {
namespace {

using steady = std::chrono::steady_clock;

/// Of a chain of fibers or threads. Successors see what predecessors wrote: spawning synchronises.
template <class Latch>
struct chain {
  long remaining;
  bool hold;
  steady::time_point end{};
  Latch last{1};     // the last link has run
  Latch release{1};  // those who stay may go
};

using fiber_chain = chain<tendril::latch>;
using thread_chain = chain<std::latch>;

void next_fiber(fiber_chain& c) {
  if (--c.remaining == 0) {
    c.end = steady::now();
    c.last.count_down();
    return;
  }
  tendril::spawn([&c] { next_fiber(c); });
  if (c.hold) c.release.wait();
}

void next_thread(const std::shared_ptr<thread_chain>& c) {
  if (--c->remaining == 0) {
    c->end = steady::now();
    c->last.count_down();
    return;
  }
  const bool hold = c->hold;  // the successor may end everything at any time
  std::thread([c] { next_thread(c); }).detach();
  if (hold) c->release.wait();
}

double ns_each(steady::time_point begin, steady::time_point end, long count) {
  return std::chrono::duration<double, std::nano>(end - begin).count() / static_cast<double>(count);
}

double spawn_fibers(const std::string& stack, long count, bool hold) {
  double ns = 0;
  tendril::run(runtime_with(stack, 1), [&] {
    const auto c = std::make_unique<fiber_chain>(count, hold);
    const auto begin = steady::now();
    tendril::spawn([&c = *c] { next_fiber(c); });
    c->last.wait();
    ns = ns_each(begin, c->end, count);
    c->release.count_down();
    // The chain is theirs until the last has left the gate.
    while (tendril::runtime::current()->stats().fibers_alive() > 1) tendril::this_fiber::yield();
  });
  return ns;
}

double spawn_threads(long count, bool hold) {
  const auto c = std::make_shared<thread_chain>(count, hold);
  const auto begin = steady::now();
  std::thread([c] { next_thread(c); }).detach();
  c->last.wait();
  const double ns = ns_each(begin, c->end, count);
  c->release.count_down();
  return ns;
}

int spawn_role_main(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const long count = args.number("count");
  const bool hold = args.number("hold") != 0;
  if (impl == "fiber") out.send("ns", spawn_fibers(args.text("stack", "reserved"), count, hold));
  else if (impl == "thread") out.send("ns", spawn_threads(count, hold));
  else throw std::invalid_argument("unknown --impl '" + impl + "'; known: fiber, thread");
  return 0;
}
const role_registration spawn_role("spawn", spawn_role_main);

double best_of(int runs, const arguments& args, int core) {
  double best = 0;
  for (int i = 0; i < runs; ++i) {
    const double ns = run_role("spawn", args, core).at("ns");
    if (i == 0 || ns < best) best = ns;
  }
  return best;
}

void run(context& ctx) {
  const int runs = 3;
  const int core = usable_cores().front();
  table out({"variant", "reuse ns", "fresh ns", "published reuse", "published create"});
  const auto measure = [&](const std::string& variant, const arguments& base, long reuse_count,
                           long fresh_count, const char* published_reuse,
                           const char* published_fresh) {
    ctx.attempt(variant, [&] {
      std::vector<std::string> cells{variant};
      for (const bool hold : {false, true}) {
        const long count = hold ? fresh_count : reuse_count;
        arguments args = base;
        args.set("hold", hold ? "1" : "0");
        args.set("count", std::to_string(count));
        const double ns = best_of(runs, args, core);
        ctx.add(variant, hold ? "ns_per_spawn_fresh" : "ns_per_spawn_reuse", ns, "ns",
                {{"count", count}, {"workers", 1}, {"core", core}, {"best_of", runs}});
        cells.push_back(fixed(ns, 0));
      }
      cells.insert(cells.end(), {published_reuse, published_fresh});
      out.row(cells);
    });
  };
  const long fibers = ctx.pick(1'000'000L, 10'000'000L);
  const long fresh = ctx.pick(50'000L, 200'000L);
  std::printf(
      "  reuse: %ld fibers or 20,000 threads; fresh: %ld fibers or 5,000 threads; one core; best "
      "of %d processes\n",
      fibers, fresh, runs);
  for (const std::string& stack : stack_variants())
    measure("fiber/" + stack, fiber_arguments(stack), fibers, fresh, "600", "3,000");
  measure("thread", {{"impl", "thread"}}, 20'000, 5'000, "-", "-");
  out.print();
}

const registration entry(
    {"E3",
     "spawn: each fiber counts and spawns its successor",
     "the cost of a fiber that starts, runs and ends, on a warm stack and on one never touched",
     "joining, deep first calls, spawning across workers",
     {"fiber/<stack>", "thread"},
     run});

}  // namespace
}  // namespace bench
