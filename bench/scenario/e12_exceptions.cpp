// SPDX-License-Identifier: Apache-2.0
//
// E12: what do return and exception cost through D frames, of which the lowest waits, or does not? The program
// is in deep_calls.hpp. A metric is named by what the bottom does: return_suspend_64 yields once and returns, 64
// frames below who counts; throw_nosuspend_8 throws at once, 8 below. Figures are iterations in 250 ms, as the
// published ones.
// E13: the same at D = 32, throwing, with k of 32 frames having a finally block (a destructor with a side
// effect; the top frame, which counts, has none, so that with k = 1 there is none and with k = 32 there are 31).
//
//   thread, fiber/X     plain recursion. /restore and /capture: every call keeps the ambient values from being
//                       changed by its callee (ambient_flow); one value is set
//   fiber/tasklet copied    tasklets that share one slot: where one yields, its frames are copied to the heap and
//                       back, and then the exception goes through them
//   thunk               each iteration enters the recursion by tendril::thunk, whose future is awaited
//   async1, async1_valuetask, task, lean    each frame is a coroutine (docs/models.md)
//   task/passing        each frame but the top declares that it handles no exceptions (pass_exceptions)
//
// Does not show: handlers in between, exceptions that carry much, many threads throwing at once.

#include "bench/models/async1/task.hpp"
#include "bench/models/lean/task.hpp"
#include "bench/scenario/deep_calls.hpp"
#include "bench/scenario/places.hpp"
#include "bench/scenario/runs_by_turns.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/ambient.hpp>
#include <tendril/await.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>
#include <tendril/thunk.hpp>

#include <cstdio>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

using deep::job;
using tendril::ambient_mode;

const std::vector<long> depths{1, 2, 4, 8, 16, 32, 64};
const std::vector<long> finallys{1, 2, 4, 8, 16, 32};
constexpr long finally_depth = 32;

// --- one job in each model: iterations a second --------------------------------------------------------

using runner = std::function<double(job&)>;

template <ambient_mode Mode>
double run_plain(job& j) {
  return deep::run_top(j, [](job& k) { return deep::run_code<Mode>(k, k.top - 1); });
}

double run_thunk(job& j) {
  const auto enter =
      tendril::thunk([](job* k) { return deep::run_code<ambient_mode::flow_up>(*k, k->top - 1); });
  return deep::run_top(j, [&](job& k) { return tendril::await(enter(&k)); });
}

template <class Traits>
double run_tasks(tendril::runtime& runtime, job& j) {
  lean::loop loop;
  j.loop = &loop;
  using frame = tendril::task<std::int64_t>;
  return on_tasks(runtime, loop, [&j] {
    return deep::run_coroutine_top<tendril::task<double>, frame, Traits>(j);
  });
}

runner runner_of(const std::string& impl, tendril::runtime& runtime, async1::thread_pool& pool) {
  const auto fiber = [&runtime](runner run) {
    return [&runtime, run](job& j) {
      return on_fiber(runtime, j.yields != 0, [&] {
        tendril::ambient<int> value;
        value.set(1);
        return run(j);
      });
    };
  };
  if (impl == "thread") return run_plain<ambient_mode::flow_up>;
  if (impl == "fiber") return fiber(run_plain<ambient_mode::flow_up>);
  if (impl == "fiber/restore") return fiber(run_plain<ambient_mode::restore>);
  if (impl == "fiber/capture") return fiber(run_plain<ambient_mode::capture>);
  if (impl == "thunk") return fiber(run_thunk);
  if (impl == "async1")
    return [&pool](job& j) {
      return pool.run([&j] {
        using frame = async1::task<std::int64_t>;
        return deep::run_coroutine_top<async1::task<double>, frame, deep::async1_traits>(j);
      });
    };
  if (impl == "async1_valuetask")
    return [&pool](job& j) {
      return pool.run([&j] {
        using frame = async1::value_task<std::int64_t>;
        return deep::run_coroutine_top<async1::value_task<double>, frame, deep::async1_traits>(j);
      });
    };
  if (impl == "task") return [&](job& j) { return run_tasks<deep::loop_traits>(runtime, j); };
  if (impl == "task/passing")
    return [&](job& j) { return run_tasks<deep::passing_traits>(runtime, j); };
  if (impl == "lean")
    return [](job& j) {
      lean::loop loop;
      j.loop = &loop;
      using frame = lean::task<std::int64_t>;
      return loop.run(deep::run_coroutine_top<lean::task<double>, frame, deep::loop_traits>(j));
    };
  throw std::invalid_argument("unknown --impl '" + impl +
                              "'; known: thread, fiber, fiber/restore, fiber/capture, thunk, "
                              "async1, async1_valuetask, task, task/passing, lean");
}

std::string cell_name(bool throws, bool suspends) {
  return std::string(throws ? "throw_" : "return_") + (suspends ? "suspend_" : "nosuspend_");
}

int deep_calls(const arguments& args, role_output& out) {
  const std::chrono::milliseconds window(args.number("window-ms"));
  const bool density = args.number("finally", 0) != 0;
  tendril::runtime runtime(runtime_with(args.text("stack", "reserved"), 1));
  async1::thread_pool pool(1);
  const runner run = runner_of(args.text("impl"), runtime, pool);
  const auto measure = [&](const std::string& cell, job j) {
    j.window = window / 4;
    run(j);  // warm up
    j.window = window;
    const double rate = run(j);
    if (j.failed) throw std::runtime_error(cell + ": an iteration did not end as it should");
    out.send(cell, rate / 4);  // in 250 ms
  };
  for (const bool suspends : {false, true}) {
    const long yields = suspends ? 1 : 0;
    if (density) {
      for (const long k : finallys)
        measure(cell_name(true, suspends) + "finally_" + std::to_string(k),
                {finally_depth, yields, true, finally_depth / k, {}});
    } else {
      for (const bool throws : {false, true})
        for (const long d : depths)
          measure(cell_name(throws, suspends) + std::to_string(d),
                  {d, yields, throws, deep::no_finally, {}});
    }
  }
  if (args.text("stack", "reserved") == tasklet_copied && runtime.stats().tasklets.restores == 0)
    throw std::runtime_error("no frames were copied");
  return 0;
}
const role_registration deep_calls_role("deep-calls", deep_calls);

// --- tables --------------------------------------------------------------------------------------------

struct published_row {
  const char* variant;
  std::vector<double> figures;  // of depths, or of finallys
};

const std::map<std::string, std::vector<published_row>> published{
    {"return_nosuspend_",
     {{".NET Task", {7976995, 4738359, 2884153, 1274335, 536064, 263823, 113187}},
      {".NET ValueTask", {7994790, 5036613, 2924123, 1324960, 533731, 249821, 114845}},
      {".NET async2", {13966110, 11573294, 8340047, 5308395, 2888828, 1157832, 488245}},
      {".NET async2, context kept",
       {12249438, 9306011, 6438143, 3836147, 2083270, 861826, 393380}}}},
    {"throw_nosuspend_",
     {{".NET Task", {21630, 13781, 7717, 4068, 2104, 1032, 484}},
      {".NET ValueTask", {21789, 13359, 7477, 4001, 2063, 989, 473}},
      {".NET async2", {46434, 38975, 29887, 20358, 12941, 7319, 3936}},
      {".NET async2, context kept", {45002, 37769, 28318, 18871, 11978, 6705, 3654}}}},
    {"return_suspend_",
     {{".NET Task", {589057, 390167, 276584, 217067, 132636, 71989, 37086}},
      {".NET ValueTask", {574660, 349900, 265590, 198172, 106605, 55860, 28365}},
      {".NET async2", {629310, 617464, 577707, 474723, 315191, 184699, 98769}},
      {".NET async2, context kept", {624336, 594730, 543293, 412340, 275944, 156610, 83977}}}},
    {"throw_suspend_",
     {{".NET Task", {15563, 9806, 5778, 3476, 1912, 973, 458}},
      {".NET ValueTask", {15584, 9740, 5495, 3376, 1909, 949, 456}},
      {".NET async2", {21208, 21514, 21288, 20877, 20496, 19379, 17565}},
      {".NET async2, context kept", {21005, 13163, 7253, 4160, 2234, 1133, 593}}}},
    {"throw_nosuspend_finally_",
     {{".NET Task", {1067, 1032, 1034, 1006, 972, 872}},
      {".NET async2", {7504, 7441, 7392, 7287, 7045, 6961}}}},
    {"throw_suspend_finally_",
     {{".NET Task", {965, 965, 959, 928, 912, 857}},
      {".NET async2", {20107, 12140, 7306, 4268, 2307, 1194}}}},
};

using figures = std::map<std::string, cells>;

void print_and_add(context& ctx, const figures& found, const std::vector<turn>& turns,
                   const std::string& group, const std::vector<long>& columns, const char* letter,
                   const parameters& params) {
  std::vector<std::string> head{group + letter};
  for (const long c : columns) head.push_back(std::to_string(c));
  table out(head);
  for (const turn& t : turns) {
    const auto of = found.find(t.variant);
    if (of == found.end()) continue;
    std::vector<std::string> row{t.variant};
    for (const long c : columns) {
      const std::string cell = group + std::to_string(c);
      ctx.add(t.variant, cell, of->second.at(cell), "1/250ms", params);
      row.push_back(fixed(of->second.at(cell), 0));
    }
    out.row(row);
  }
  for (const published_row& p : published.at(group)) {
    std::vector<std::string> row{std::string("published: ") + p.variant};
    for (const double f : p.figures) row.push_back(fixed(f, 0));
    out.row(row);
  }
  out.print();
}

/// Each variant's cell divided by that of `to`.
void headline(context& ctx, const figures& found, const std::vector<turn>& turns,
              const std::string& cell, const std::string& metric, const std::string& to,
              const char* said, const parameters& params) {
  const auto reference = found.find(to);
  if (reference == found.end()) return;
  std::string text;
  for (const turn& t : turns) {
    const auto of = found.find(t.variant);
    if (of == found.end() || t.variant == to) continue;
    const double ratio = of->second.at(cell) / reference->second.at(cell);
    ctx.add(t.variant, metric, ratio, "ratio", params);
    text += (text.empty() ? "" : ", ") + t.variant + " " + fixed(ratio, 1);
  }
  std::printf("  %s / %s: %s (%s)\n", cell.c_str(), to.c_str(), text.c_str(), said);
}

std::vector<turn> turns_of(int window_ms, bool density) {
  const arguments common{{"window-ms", std::to_string(window_ms)},
                         {"finally", density ? "1" : "0"}};
  std::vector<turn> turns =
      turns_of_models("deep-calls",
                      {"thread", "fiber", "fiber/restore", "fiber/capture", "thunk", "async1",
                       "async1_valuetask", "task", "task/passing", "lean"},
                      common);
  arguments copied = common;
  copied.set("impl", "fiber");
  copied.set("stack", tasklet_copied);
  turns.push_back({"fiber/tasklet copied", "deep-calls", copied});
  return turns;
}

void run_exceptions(context& ctx) {
  const unsigned runs = ctx.pick(5u, 16u);  // of three, ratios move by 3 %
  const int window_ms = ctx.pick(6, 250);
  const int core = usable_cores().front();
  const parameters params{{"runs", runs}, {"window_ms", window_ms}, {"core", core}};
  std::printf("  %s; %s; figures are iterations in 250 ms of CPU\n", to_text(params).c_str(),
              describe_trimming(runs).c_str());
  const std::vector<turn> turns = turns_of(window_ms, false);
  const figures found = run_by_turns(ctx, turns, runs, core);
  for (const bool suspends : {false, true})
    for (const bool throws : {false, true})
      print_and_add(ctx, found, turns, cell_name(throws, suspends), depths, "D", params);
  headline(ctx, found, turns, "throw_suspend_64", "throw_suspend_ratio_to_async1_64", "async1",
           "published for async2: 38", params);
  headline(ctx, found, turns, "throw_nosuspend_64", "throw_nosuspend_ratio_to_async1_64", "async1",
           "published for async2: 8", params);
  headline(ctx, found, turns, "return_suspend_64", "return_suspend_ratio_to_async1_64", "async1",
           "published for async2: 2.7", params);
  headline(ctx, found, turns, "throw_suspend_64", "throw_suspend_ratio_to_task_64", "task", "-",
           params);
}

void run_finallys(context& ctx) {
  const unsigned runs = ctx.pick(3u, 16u);
  const int window_ms = ctx.pick(8, 250);
  const int core = usable_cores().front();
  const parameters params{
      {"D", finally_depth}, {"runs", runs}, {"window_ms", window_ms}, {"core", core}};
  std::printf("  %s; %s; figures are iterations in 250 ms of CPU\n", to_text(params).c_str(),
              describe_trimming(runs).c_str());
  const std::vector<turn> turns = turns_of(window_ms, true);
  const figures found = run_by_turns(ctx, turns, runs, core);
  for (const bool suspends : {false, true})
    print_and_add(ctx, found, turns, cell_name(true, suspends) + "finally_", finallys, "k", params);
  headline(ctx, found, turns, "throw_suspend_finally_1", "throw_suspend_ratio_to_async1_finally_1",
           "async1", "published for async2: 20.8", params);
  headline(ctx, found, turns, "throw_suspend_finally_32",
           "throw_suspend_ratio_to_async1_finally_32", "async1", "published for async2: 1.4",
           params);
}

const std::vector<std::string> variants{"thread",
                                        "fiber/<stack>",
                                        "fiber/tasklet copied",
                                        "fiber/reserved/restore",
                                        "fiber/reserved/capture",
                                        "thunk",
                                        "async1",
                                        "async1_valuetask",
                                        "task",
                                        "task/passing",
                                        "lean"};

const registration exceptions_entry(
    {"E12", "returning and throwing through D frames, with and without a suspension",
     "what depth costs in each model, and what an exception costs in each frame it passes",
     "handlers in between, exceptions that carry much, many threads throwing at once", variants,
     run_exceptions});

const registration finallys_entry(
    {"E13", "an exception through 32 frames, k of which have a finally block",
     "what each frame costs an exception that has to do something in it",
     "handlers in between, finally blocks that wait", variants, run_finallys});

}  // namespace
}  // namespace bench
