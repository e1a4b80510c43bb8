// SPDX-License-Identifier: Apache-2.0
//
// E11: what does a call cost that could wait, and does not? The callee reads a global variable; were it 0, which
// it never is, it would yield. The caller calls ten times, looks at the clock, and again, until the time is over.
// Each caller-callee pair is a variant, "caller->callee":
//   plain   an ordinary function on a thread
//   fiber   an ordinary function on a fiber: as a callee it would yield by this_fiber::yield
//   thunk   fiber code behind tendril::thunk: a future comes back, already complete; as a caller, the loop runs
//           in a thunk's body
//   async1, async1_valuetask, task, lean   coroutines (docs/models.md)
// No callee is inlined but in fiber->fiber_inline. "/restore" and "/capture" are the modes of ambient values in
// which a callee's changes do not reach the caller (ambient_flow); one value is set, so that there is something to
// keep. Plain names flow up: a call. What async1 does is to restore, always.
//
// "/value": the callee returns a number, of those for which .NET keeps no task ready (it does for those
// from -1 to 8, and for void): async1 allocates one, a thunk's future has the number in itself. The other
// callees return nothing, which is the dearest a thunk can be beside async1.
//
// A coroutine calls fiber code by a thunk (or like any function, if it may block the thread); a coroutine of
// another kind by co_await, where there is an awaiter for it, else by tendril::await or get() on what has
// completed.
//
// Does not show: calls that wait (E12, E17), arguments, results larger than a number.

#include "bench/models/async1/await_future.hpp"
#include "bench/models/async1/task.hpp"
#include "bench/models/lean/task.hpp"
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

#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace bench {

int min_call_never_zero = 1;  // not this unit's alone: nobody may assume that it stays 1

namespace {

using tendril::ambient_flow;
using tendril::ambient_mode;

// --- callees -------------------------------------------------------------------------------------------

[[gnu::noinline]] void plain_empty() {
  if (min_call_never_zero == 0) [[unlikely]]
    std::this_thread::yield();
}
inline void fiber_empty_inline() {
  if (min_call_never_zero == 0) [[unlikely]]
    tendril::this_fiber::yield();
}
[[gnu::noinline]] void fiber_empty() { fiber_empty_inline(); }
const auto thunk_empty = tendril::thunk(&fiber_empty);
[[gnu::noinline]] async1::task<void> async1_empty() {
  if (min_call_never_zero == 0) [[unlikely]]
    co_await async1::yield{};
}
constexpr int smallest_number = 1000;
[[gnu::noinline]] int fiber_number() {
  fiber_empty_inline();
  return smallest_number + min_call_never_zero;
}
const auto thunk_number = tendril::thunk(&fiber_number);
[[gnu::noinline]] async1::task<int> async1_number() {
  if (min_call_never_zero == 0) [[unlikely]]
    co_await async1::yield{};
  co_return smallest_number + min_call_never_zero;
}
[[gnu::noinline]] async1::value_task<void> async1_valuetask_empty() {
  if (min_call_never_zero == 0) [[unlikely]]
    co_await async1::yield{};
}
[[gnu::noinline]] tendril::task<void> task_empty() {
  if (min_call_never_zero == 0) [[unlikely]]
    co_await tendril::make_ready_future();
}
[[gnu::noinline]] lean::task<void> lean_empty(lean::loop& l) {
  if (min_call_never_zero == 0) [[unlikely]]
    co_await l.yield();
}

// --- callers -------------------------------------------------------------------------------------------

using window = std::chrono::nanoseconds;
constexpr int calls_a_look = 10;

/// Ordinary code, on a thread or a fiber.
template <class Call>
double from_code(window w, const Call& call) {
  return calls_a_look * rate_of(w, [&] {
           for (int i = 0; i != calls_a_look; ++i) call();
         });
}

/// The loop of a coroutine of type Handle; call() gives what is to be awaited, or nothing.
template <class Handle, class Call>
Handle coroutine_loop(window w, Call call) {
  for (bool warm = false;; warm = true) {
    const timed_loop time(warm ? w : w / 4);
    double calls = 0;
    while (time.go_on()) {
      for (int i = 0; i != calls_a_look; ++i) {
        if constexpr (std::is_void_v<decltype(call())>) call();
        else static_cast<void>(co_await call());
      }
      calls += calls_a_look;
    }
    if (warm) co_return time.rate(calls);
  }
}

struct cell {
  std::string name;
  std::function<double(window)> measure;
};

/// Callers that run on ordinary stacks: a thread's, a fiber's, a thunk's.
void add_stackful(std::vector<cell>& all, const std::string& caller,
                  const std::function<double(const std::function<double()>&)>& run_there) {
  const auto add = [&](const std::string& callee, auto call) {
    all.push_back({caller + "->" + callee,
                   [=](window w) { return run_there([=] { return from_code(w, call); }); }});
  };
  add("plain", [] { plain_empty(); });
  add("fiber", [] { fiber_empty(); });
  add("fiber_inline", [] { fiber_empty_inline(); });
  add("fiber/restore", [] { ambient_flow::call<ambient_mode::restore>(fiber_empty); });
  add("fiber/capture", [] { ambient_flow::call<ambient_mode::capture>(fiber_empty); });
  add("thunk", [] { tendril::await(thunk_empty()); });
  add("thunk/restore",
      [] { ambient_flow::call<ambient_mode::restore>([] { tendril::await(thunk_empty()); }); });
  add("thunk/capture",
      [] { ambient_flow::call<ambient_mode::capture>([] { tendril::await(thunk_empty()); }); });
  add("async1", [] { tendril::await(async1_empty()); });
  add("async1_valuetask", [] { tendril::await(async1_valuetask_empty()); });
  add("task", [] { tendril::await(task_empty()); });
}

template <class Handle>
void add_async1(std::vector<cell>& all, const std::string& caller, async1::thread_pool& pool) {
  const auto add = [&](const std::string& callee, auto call) {
    all.push_back({caller + "->" + callee, [call, &pool](window w) {
                     return pool.run([call, w] { return coroutine_loop<Handle>(w, call); });
                   }});
  };
  add("plain", [] { plain_empty(); });
  add("fiber", [] { fiber_empty(); });
  add("thunk", [] { return async1::from(thunk_empty()); });
  add("thunk/value", [] { return async1::from(thunk_number()); });
  add("async1", [] { return async1_empty(); });
  add("async1/value", [] { return async1_number(); });
  add("async1_valuetask", [] { return async1_valuetask_empty(); });
  add("task", [] { tendril::await(task_empty()); });
}

std::vector<cell> cells_of(const std::string& stack, tendril::runtime& runtime,
                           async1::thread_pool& pool, lean::loop& loop) {
  std::vector<cell> all;
  const auto on_fiber = [&runtime](const std::function<double()>& f) { return runtime.run(f); };
  if (stack != "reserved") {
    add_stackful(all, "fiber/" + stack, on_fiber);
    return all;
  }
  add_stackful(all, "plain", [](const std::function<double()>& f) { return f(); });
  add_stackful(all, "fiber", on_fiber);
  add_stackful(all, "thunk", [](const std::function<double()>& f) {
    return tendril::await(tendril::thunk(std::cref(f))());
  });
  add_async1<async1::task<double>>(all, "async1", pool);
  add_async1<async1::value_task<double>>(all, "async1_valuetask", pool);

  const auto from_task = [&](const std::string& callee, auto call) {
    all.push_back({"task->" + callee, [call, &runtime](window w) {
                     return runtime.run([call, w] {
                       return tendril::await(coroutine_loop<tendril::task<double>>(w, call));
                     });
                   }});
  };
  from_task("plain", [] { plain_empty(); });
  from_task("fiber", [] { fiber_empty(); });
  from_task("thunk", [] { return thunk_empty(); });
  from_task("async1", [] { return async1_empty(); });
  from_task("async1_valuetask", [] { return async1_valuetask_empty(); });
  from_task("task", [] { return task_empty(); });
  all.push_back({"lean->lean", [&loop](window w) {
                   return loop.run(
                       coroutine_loop<lean::task<double>>(w, [&loop] { return lean_empty(loop); }));
                 }});
  return all;
}

int min_call(const arguments& args, role_output& out) {
  const window w = std::chrono::milliseconds(args.number("window-ms"));
  const std::string stack = args.text("stack");
  tendril::runtime runtime(runtime_with(stack, 1));
  async1::thread_pool pool(1);
  lean::loop loop;
  tendril::ambient<int> value;
  value.set(1);  // this thread's, and the fibers' that it starts
  for (const cell& c : cells_of(stack, runtime, pool, loop)) out.send(c.name, c.measure(w));
  return 0;
}
const role_registration min_call_role("min-call", min_call);

/// Of the same pair in .NET: async2 is fiber code, or task<T> for the prototype of state machines.
const std::map<std::string, double> published{
    {"async1->async1", 117'232'360},
    {"async1->async1_valuetask", 129'758'886},
    {"async1->thunk", 76'280'435},
    {"async1->task", 116'365'186},
    {"fiber->fiber", 380'632'094},
    {"fiber->fiber_inline", 500'148'939},
    {"fiber->fiber/restore", 238'234'481},
    {"fiber->async1", 142'012'835},
    {"fiber->async1_valuetask", 141'336'005},
    {"task->task", 369'495'926},
    {"task->async1", 139'952'617},
    {"task->async1_valuetask", 145'961'918},
};

void run(context& ctx) {
  const unsigned runs = ctx.pick(3u, 16u);
  const int window_ms = ctx.pick(20, 1000);
  const int core = usable_cores().front();
  const parameters params{{"runs", runs}, {"window_ms", window_ms}, {"core", core}};
  std::printf("  %s; %s\n", to_text(params).c_str(), describe_trimming(runs).c_str());
  std::vector<turn> turns;
  for (const std::string& stack : stack_variants()) {
    arguments args = fiber_arguments(stack);
    args.set("window-ms", std::to_string(window_ms));
    turns.push_back({"fiber/" + stack, "min-call", args});
  }
  std::map<std::string, double> rates;
  for (const auto& [program, found] : run_by_turns(ctx, turns, runs, core))
    rates.insert(found.begin(), found.end());

  table out({"caller->callee", "calls/s", "ns per call", "published calls/s"});
  for (const auto& [pair, rate] : rates) {
    ctx.add(pair, "calls_per_second", rate, "1/s", params);
    const auto theirs = published.find(pair);
    out.row({pair, fixed(rate, 0), fixed(1e9 / rate, 2),
             theirs != published.end() ? fixed(theirs->second, 0) : "-"});
  }
  out.print();

  const auto headline = [&](const std::string& variant, const char* metric, const std::string& of,
                            const std::string& to, const char* said) {
    if (rates.count(of) == 0 || rates.count(to) == 0) return;
    const double ratio = rates.at(of) / rates.at(to);
    ctx.add(variant, metric, ratio, "ratio", params);
    std::printf("  %s / %s = %s (%s)\n", of.c_str(), to.c_str(), fixed(ratio, 2).c_str(), said);
  };
  headline("async1->thunk", "ratio_to_async1", "async1->thunk", "async1->async1",
           "published 0.65 and 0.99; wanted here: at least 1");
  headline("async1->thunk/value", "ratio_to_async1", "async1->thunk/value", "async1->async1/value",
           "a number that async1 has no task for; wanted here: at least 1");
  headline("fiber->fiber", "ratio_to_async1", "fiber->fiber", "async1->async1", "published 3.2");
  headline("fiber->fiber_inline", "ratio_to_async1", "fiber->fiber_inline", "async1->async1",
           "published 4.3: 500 M calls/s");
  headline("fiber->fiber/restore", "ratio_to_flow_up", "fiber->fiber/restore", "fiber->fiber",
           "published 0.63");
  headline("task->task", "ratio_to_async1", "task->task", "async1->async1", "published 3.2");
}

const registration entry({"E11",
                          "minimum call cost: callees that could wait and do not",
                          "what a call costs in each model, and across every border between them",
                          "calls that wait (E12, E17), arguments, results larger than a number",
                          {"<caller>-><callee>", "fiber->fiber/restore", "fiber->fiber/capture",
                           "fiber->fiber_inline", "async1->async1/value", "async1->thunk/value",
                           "fiber/<other stack>-><callee>"},
                          run});

}  // namespace
}  // namespace bench
