// SPDX-License-Identifier: Apache-2.0
//
// E8h: what does it cost to cross the edge of a segment? The loop for which Go and Rust gave segmented
// stacks up: it runs in the last frame of a segment, and the function that it calls at every iteration
// needs the next one.
//   fiber/segmented  that loop
//   edge_avoided     the same loop, same code, one frame further up: its calls stay on the segment
// Each walks down with small frames from a fiber's first one until a callee's locals are somewhere else,
// and runs the loop there; one frame up it runs it again. Where the callee's locals were is looked at in
// every iteration: all must be beyond the edge, or none. ns_per_crossing is the whole of an iteration in
// both; what the crossing adds is the difference.
//
// Does not show: the first crossing, which allocates; edges at which a foreign callee is borrowed a stack
// (E8 at_edge).

#include "bench/scenario/variants.hpp"
#include "bench/support/cpu_clock.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/statistics.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

struct hot_run {
  long iterations;
  int frames = 0;  // above the edge
  bool found = false;
  bool avoided = false;
  long crossings_at_edge = 0;
  long crossings_above = 0;
  double ns_at_edge = 0;  // an iteration
  double ns_above = 0;
};

constexpr int deepest = 100'000;
constexpr std::uintptr_t farther_than_a_frame = 1024;

[[gnu::noinline]] double now_ns() { return thread_cpu_ns(); }

/// Where its local is.
[[gnu::noinline]] std::uintptr_t callee() {
  char local[16];
  asm volatile("" : : "r"(local) : "memory");
  return reinterpret_cast<std::uintptr_t>(local);
}

/// A callee on the caller's segment is just below it.
inline bool crossed(std::uintptr_t caller, std::uintptr_t callee) {
  return caller - callee > farther_than_a_frame;
}

/// In the frame of whoever calls it.
[[gnu::always_inline]] inline double loop(long iterations, std::uintptr_t here, long& crossings) {
  const double begin = now_ns();
  long count = 0;
  for (long i = 0; i < iterations; ++i) count += crossed(here, callee()) ? 1 : 0;
  crossings = count;
  return (now_ns() - begin) / static_cast<double>(iterations);
}

[[gnu::noinline]] void descend(hot_run& run) {
  char local[16];
  asm volatile("" : : "r"(local) : "memory");
  const auto here = reinterpret_cast<std::uintptr_t>(local);
  if (crossed(here, callee())) {
    run.found = true;
    run.ns_at_edge = loop(run.iterations, here, run.crossings_at_edge);
  } else if (run.frames < deepest) {
    ++run.frames;
    descend(run);
    if (run.found && !run.avoided) {
      run.avoided = true;
      run.ns_above = loop(run.iterations, here, run.crossings_above);
    }
  }
  asm volatile("" : : "r"(local) : "memory");
}

int hot_split(const arguments& args, role_output& out) {
  const long iterations = args.number("iterations");
  const long runs = args.number("runs");
  std::vector<double> at_edge;
  std::vector<double> above;
  int frames = 0;
  tendril::runtime runtime(runtime_with(args.text("stack"), 1));
  for (long i = -1; i < runs; ++i) {  // the first warms up
    const auto run = std::make_unique<hot_run>(hot_run{iterations});
    tendril::fiber fiber([&run = *run] { descend(run); });
    fiber.join();
    if (!run->found || !run->avoided)
      throw std::runtime_error("no edge of a segment within " + std::to_string(deepest) +
                               " frames: is this code compiled for segmented stacks?");
    if (run->crossings_at_edge != iterations || run->crossings_above != 0)
      throw std::runtime_error(
          "of " + std::to_string(iterations) + " calls, " + std::to_string(run->crossings_at_edge) +
          " crossed at the edge and " + std::to_string(run->crossings_above) + " above it");
    if (i < 0) continue;
    at_edge.push_back(run->ns_at_edge);
    above.push_back(run->ns_above);
    frames = run->frames;
  }
  const auto send = [&](const std::string& name, const quartiles& q) {
    out.send(name, q.median);
    out.send(name + "_q1", q.q1);
    out.send(name + "_q3", q.q3);
  };
  send("at_edge", quartiles_of(at_edge));
  send("above", quartiles_of(above));
  out.send("frames", frames);
  return 0;
}
const role_registration hot_split_role("hot-split", hot_split);

void run(context& ctx) {
  if (const std::string why = why_not_segmented(); !why.empty()) {
    std::printf("  nothing to measure, there are no segmented stacks here: %s\n", why.c_str());
    return;
  }
  const long iterations = ctx.pick(200'000L, 1'000'000L);
  const int runs = ctx.pick(25, 100);
  const int core = usable_cores().front();
  arguments args = fiber_arguments("segmented");
  args.set("iterations", std::to_string(iterations));
  args.set("runs", std::to_string(runs));
  auto figures = run_role("hot-split", args, core);
  const parameters params{{"iterations", iterations},
                          {"runs", runs},
                          {"frames_above_edge", figures.at("frames")},
                          {"core", core}};
  std::printf("  %s; every iteration's place is verified\n", to_text(params).c_str());
  table out({"variant", "ns per iteration", "quartiles", "published"});
  const auto report = [&](const std::string& variant, const std::string& key,
                          const char* published) {
    ctx.add(variant, "ns_per_crossing", figures.at(key), "ns", params);
    ctx.add(variant, "ns_per_crossing_q1", figures.at(key + "_q1"), "ns", params);
    ctx.add(variant, "ns_per_crossing_q3", figures.at(key + "_q3"), "ns", params);
    out.row({variant, fixed(figures.at(key), 2),
             fixed(figures.at(key + "_q1"), 2) + ".." + fixed(figures.at(key + "_q3"), 2),
             published});
  };
  report("fiber/segmented", "at_edge", "never measured by .NET's team");
  report("edge_avoided", "above", "-");
  out.print();
}

const registration entry(
    {"E8h",
     "hot split: a loop whose call crosses the edge of a segment every time",
     "what the worst place for a loop on a segmented stack costs, and the same "
     "loop one frame away from it",
     "the first crossing, which allocates",
     {"fiber/segmented", "edge_avoided"},
     run});

}  // namespace
}  // namespace bench
