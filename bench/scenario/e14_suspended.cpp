// SPDX-License-Identifier: Apache-2.0
//
// E14: what do 10,000 suspended tasks cost that are 100 frames deep? Each frame has an object on the heap and an
// integer that are used after the suspension. One worker; each variant in a process of its own, whose peak of
// resident memory it is; then the same once more on the heap of the Boehm-Demers-Weiser collector, of which young
// collections are forced and the time is taken for which threads are stopped (e14_pauses.cpp).
//
//   frame bytes    what for_each_parked visits; of coroutines what their frames take of malloc
//   object bytes   of the objects, as malloc rounds them
//   resident       when all wait; of tasklet_packed when those that are to be packed are
//
// The rows of .NET are what was published for its experiments, on another machine, with the heap and the runtime of
// .NET in the peak: a reference, no competitor in this run.
//
// Does not show: memory that is given back later, and what the system needs for page tables (E9 has it).

#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/e14_tasks.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/memory.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/inspect.hpp>
#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>

#include <malloc.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#ifndef TENDRIL_BENCH_WHY_NO_COLLECTOR  // tendril-experiments-gc was built
#define TENDRIL_BENCH_WHY_NO_COLLECTOR ""
#endif

namespace bench {
namespace {

using steady = std::chrono::steady_clock;

double ms_since(steady::time_point begin) {
  return std::chrono::duration<double, std::milli>(steady::now() - begin).count();
}

std::uint64_t malloc_bytes() {
  const struct mallinfo2 m = ::mallinfo2();
  return m.uordblks + m.hblkhd;
}

double object_bytes(long count, long frames) {
  const auto one = e14::plain_memory::make(0);
  const auto rounded = malloc_usable_size(one.get()) + sizeof(std::size_t);
  return static_cast<double>(rounded) * static_cast<double>(count) * static_cast<double>(frames);
}

long expected_sum(long count, long frames) {
  long sum = 0;
  for (long i = 0; i != count; ++i) sum += e14::expected(frames, i);
  return sum;
}

/// Until nothing has been made smaller for a while.
void wait_for_packing() {
  std::uint64_t done = 0;
  for (int quiet = 0; quiet != 20; ++quiet) {
    tendril::this_fiber::sleep_for(std::chrono::milliseconds(25));
    const tendril::tasklet_stats s = tendril::runtime::current()->stats().tasklets;
    // This fiber is one of them each time that it sleeps, and not when it looks.
    const std::uint64_t now = s.folds + s.packs - s.unfolds - s.unpacks;
    if (std::exchange(done, now) != now) quiet = 0;
  }
}

void suspend_fibers(const std::string& stack, long count, long frames, role_output& out) {
  tendril::run(runtime_with(stack, 1), [&] {
    struct shared {
      long arrived = 0;  // one worker: no two fibers at once
      long finished = 0;
      long sum = 0;
      tendril::latch gate{1};
    };
    const auto s = std::make_unique<shared>();
    const auto begin = steady::now();
    for (long i = 0; i < count; ++i)
      tendril::spawn([&s = *s, i, frames] {
        auto wait = [&s] {
          ++s.arrived;
          s.gate.wait();
        };
        s.sum += e14::descend<e14::plain_memory>(frames, i, wait);
        ++s.finished;
      });
    while (s->arrived < count) tendril::this_fiber::yield();
    out.send("ms_to_park_all", ms_since(begin));
    if (stack == tasklet_packed) wait_for_packing();
    std::uint64_t bytes = 0;
    tendril::for_each_parked([&](const void* low, const void* high) {
      bytes += static_cast<std::uint64_t>(static_cast<const char*>(high) -
                                          static_cast<const char*>(low));
    });
    out.send("frame_bytes", static_cast<double>(bytes));
    out.send("resident", static_cast<double>(read_memory_use().resident_bytes));
    const auto opened = steady::now();
    s->gate.count_down();
    while (s->finished < count) tendril::this_fiber::yield();
    out.send("ms_to_finish_all", ms_since(opened));
    if (s->sum != expected_sum(count, frames)) throw std::runtime_error("wrong sums");
  });
}

template <template <class> class Task>
void suspend_coroutines(long count, long frames, role_output& out) {
  coroutine_gate gate;
  long sum = 0;
  const std::uint64_t before = malloc_bytes();
  const auto begin = steady::now();
  for (long i = 0; i < count; ++i)
    run_detached(e14::run_as<Task, e14::plain_memory>(frames, i, gate, sum));
  out.send("ms_to_park_all", ms_since(begin));
  out.send("frame_bytes",
           static_cast<double>(malloc_bytes() - before) - object_bytes(count, frames));
  out.send("resident", static_cast<double>(read_memory_use().resident_bytes));
  const auto opened = steady::now();
  gate.open();
  out.send("ms_to_finish_all", ms_since(opened));
  if (sum != expected_sum(count, frames)) throw std::runtime_error("wrong sums");
}

int suspend(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const long count = args.number("count");
  const long frames = args.number("frames");
  if (impl == "fiber") suspend_fibers(args.text("stack"), count, frames, out);
  else if (impl == "async1") suspend_coroutines<async1_task>(count, frames, out);
  else if (impl == "task") suspend_coroutines<tendril_task>(count, frames, out);
  else throw std::invalid_argument("unknown --impl '" + impl + "'; known: fiber, async1, task");
  out.send("object_bytes", object_bytes(count, frames));
  out.send("peak_rss_bytes", static_cast<double>(read_memory_use().peak_bytes));
  return 0;
}
const role_registration suspend_role("suspend", suspend);

struct variant {
  std::string name;
  arguments args;
};

std::vector<variant> variants() {
  std::vector<variant> all;
  for (const std::string& stack : stack_variants())
    all.push_back({"fiber/" + stack, fiber_arguments(stack)});
  all.push_back({std::string("fiber/") + tasklet_packed, fiber_arguments(tasklet_packed)});
  all.push_back({"async1", {{"impl", "async1"}}});
  all.push_back({"task", {{"impl", "task"}}});
  return all;
}

constexpr const char* pause_metrics[] = {"pause_us_naive", "pause_us_aged",
                                         "pause_us_aged_100_new"};

/// The role of the program that has the collector.
arguments with_collector(arguments args, long collections) {
  args.set("program", args.text("stack", "") == "segmented" ? "tendril-experiments-gc-segmented"
                                                            : "tendril-experiments-gc");
  args.set("collections", std::to_string(collections));
  return args;
}

std::string megabytes(double bytes) { return fixed(bytes / 1e6, 1); }

void run(context& ctx) {
  constexpr long count = 10'000;
  constexpr long frames = 100;
  const long collections = ctx.pick(60L, 500L);
  const std::string why_no_collector = TENDRIL_BENCH_WHY_NO_COLLECTOR;
  std::printf("  %ld tasks of %ld frames; megabytes of 10^6\n", count, frames);
  if (why_no_collector.empty())
    std::printf(
        "  pauses: microseconds, means of %ld young collections; naive: every parked stack is "
        "reported each time,\n"
        "  aged: what has run since the last; 100 new: that many tasks ended and were suspended "
        "anew before each\n",
        collections);
  else std::printf("  no pauses: %s\n", why_no_collector.c_str());
  table out({"variant", "frames MB", "objects MB", "resident MB", "peak MB", "park ms", "finish ms",
             "pause naive", "aged", "100 new"});
  for (const variant& v : variants()) {
    ctx.attempt(v.name, [&] {
      arguments args = v.args;
      args.set("count", std::to_string(count));
      args.set("frames", std::to_string(frames));
      const auto r = run_role("suspend", args, any_core, std::chrono::seconds(120));
      const parameters params{{"count", count}, {"frames", frames}, {"workers", 1}};
      for (const char* metric : {"frame_bytes", "object_bytes", "peak_rss_bytes"})
        ctx.add(v.name, metric, r.at(metric), "bytes", params);
      for (const char* metric : {"ms_to_park_all", "ms_to_finish_all"})
        ctx.add(v.name, metric, r.at(metric), "ms", params);
      std::vector<std::string> row{v.name,
                                   megabytes(r.at("frame_bytes")),
                                   megabytes(r.at("object_bytes")),
                                   megabytes(r.at("resident")),
                                   megabytes(r.at("peak_rss_bytes")),
                                   fixed(r.at("ms_to_park_all"), 1),
                                   fixed(r.at("ms_to_finish_all"), 1)};
      if (why_no_collector.empty()) {
        const auto pauses = run_role("pauses", with_collector(args, collections), any_core,
                                     std::chrono::seconds(300));
        for (const char* metric : pause_metrics) {
          ctx.add(v.name, metric, pauses.at(metric), "us", params);
          row.push_back(fixed(pauses.at(metric), 1));
        }
      } else {
        row.insert(row.end(), 3, "-");
      }
      out.row(row);
    });
  }
  out.row({".NET async1, published", "130 heap", "", "", "148", "-", "-", "-", "120", "-"});
  out.row({".NET unwinder, published", "28 heap", "", "", "499", "-", "-", "48,690", "480", "-"});
  out.row({".NET runtime async, published", "157 heap", "", "", "328", "-", "-", "-", "100", "-"});
  out.print();
}

const registration entry(
    {"E14",
     "10,000 suspended tasks of 100 frames: memory, and pauses of a collector",
     "bytes of suspended frames and peak memory of each model; for how long a collector stops "
     "threads, by what is "
     "reported to it",
     "page tables; memory given back later; .NET's rows are published figures of another machine",
     {"fiber/<stack>", "fiber/tasklet_packed", "async1", "task"},
     run});

}  // namespace
}  // namespace bench
