// SPDX-License-Identifier: Apache-2.0
//
// E22: what flows with control, and where continuations run. Answers that are right or wrong, and are checked;
// and two costs.
//
//   values    An ambient value is "outer"; a callee sets "inner", waits or not, and returns. What does the
//             caller see? async1 restores at every call; fibers flow up, restore or capture as the caller
//             chooses; coroutines of ours run in the flow of who awaits them, so they flow up.
//   cost      of a call in each mode, with a value set; the callee does nothing, and is not inlined
//   posts     1,000 awaits in a synchronization context that counts: how many go by way of it (e22_posts.cpp)
//   deadlock  who hangs that blocks on asynchronous code (e22_deadlock.cpp)
//
// Each in a process of its own: one of them does hang.
//
// Does not show: the cost of the modes in calls that are awaited (E11).

#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/e22_parts.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/context.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

// --- values ------------------------------------------------------------------------------------------

constexpr int outer_value = 1;
constexpr int inner_value = 2;

using tendril::ambient_flow;
using tendril::ambient_mode;

void wait_in_fiber(bool suspend) {
  if (suspend) tendril::async([] {}).get();
}

template <ambient_mode mode>
int seen_by_fiber(bool suspend) {
  const auto value = std::make_unique<tendril::ambient<int>>();
  value->set(outer_value);
  ambient_flow::call<mode>([&value = *value, suspend] {
    value.set(inner_value);
    wait_in_fiber(suspend);
    if (value.get() != inner_value) throw std::runtime_error("E22: the callee lost its value");
  });
  return value->get();
}

tendril::task<void> set_inner(tendril::ambient<int>& value, bool suspend) {
  value.set(inner_value);
  if (suspend) co_await tendril::async([] {});
}
tendril::task<int> seen_by_task(bool suspend) {
  tendril::ambient<int> value;
  value.set(outer_value);
  co_await set_inner(value, suspend);
  co_return value.get();
}

async1::task<void> set_inner(async1::async_local<int>& value, bool suspend) {
  value.set(inner_value);
  if (suspend) co_await async1::yield{};
}
async1::task<int> seen_by_async1(bool suspend) {
  async1::async_local<int> value;
  value.set(outer_value);
  co_await set_inner(value, suspend);
  co_return value.get();
}

int ambient_values(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const bool suspend = args.number("suspend") != 0;
  int seen = 0;
  if (impl == "async1") {
    async1::thread_pool pool(1);
    seen = pool.run([suspend] { return seen_by_async1(suspend); });
  } else {
    const std::string mode = args.text("mode", "flow_up");
    seen = tendril::run(runtime_with(args.text("stack", "reserved"), 1), [&] {
      if (impl == "task") return tendril::await(seen_by_task(suspend));
      if (mode == "flow_up") return seen_by_fiber<ambient_mode::flow_up>(suspend);
      if (mode == "restore") return seen_by_fiber<ambient_mode::restore>(suspend);
      return seen_by_fiber<ambient_mode::capture>(suspend);
    });
  }
  out.send("seen", seen);
  return 0;
}
const role_registration ambient_role("ambient-values", ambient_values);

/// One row: what the caller sees when the callee completes at once, and when it waits.
void report_values(context& ctx, table& out, const std::string& variant, const std::string& mode,
                   arguments args, int expected) {
  const char* const names[] = {"-", "outer", "inner"};
  std::vector<std::string> cells{variant, mode};
  ctx.attempt(variant, [&] {
    bool right = true;
    for (const bool suspend : {false, true}) {
      args.set("suspend", suspend ? "1" : "0");
      const int seen = static_cast<int>(run_role("ambient-values", args).at("seen"));
      ctx.add(variant, "caller_sees_inner_" + mode + (suspend ? "_suspended" : ""),
              seen == inner_value ? 1 : 0, "bool", {{"mode", mode}, {"suspended", suspend}});
      right = right && seen == expected;
      cells.emplace_back(seen == outer_value || seen == inner_value ? names[seen] : "nothing");
    }
    cells.insert(cells.end(), {names[expected], right ? "pass" : "FAIL"});
    out.row(cells);
    if (!right) ctx.fail(variant, "in mode " + mode + " the caller must see " + names[expected]);
  });
}

void values(context& ctx) {
  table out({"values", "mode", "callee completes", "callee waits", "expected", "check"});
  for (const std::string& stack : stack_variants())
    for (const char* mode : {"flow_up", "restore", "capture"}) {
      arguments args = fiber_arguments(stack);
      args.set("mode", mode);
      report_values(ctx, out, "fiber/" + stack, mode, args,
                    std::string(mode) == "flow_up" ? inner_value : outer_value);
    }
  report_values(ctx, out, "task", "flow_up", {{"impl", "task"}}, inner_value);
  report_values(ctx, out, "async1", "restore", {{"impl", "async1"}}, outer_value);
  out.row({"published: async1", "-", "outer", "outer", "-", "-"});
  out.row({"published: async2 experiment", "-", "inner", "inner", "-", "-"});
  out.row({"published: CaptureContext", "-", "outer", "outer", "-", "-"});
  out.print();
}

// --- cost --------------------------------------------------------------------------------------------

[[gnu::noinline]] void callee() { asm volatile("" : : : "memory"); }

template <ambient_mode mode>
double ns_per_call() {
  constexpr int calls = 100'000;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) ambient_flow::call<mode>([] { callee(); });
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  return took.count() / calls;
}

int ambient_cost(const arguments& args, role_output& out) {
  tendril::run(runtime_with(args.text("stack", "reserved"), 1), [&] {
    tendril::ambient<int> value;
    value.set(outer_value);
    const interleaved r({{"flow_up", ns_per_call<ambient_mode::flow_up>},
                         {"restore", ns_per_call<ambient_mode::restore>},
                         {"capture", ns_per_call<ambient_mode::capture>}},
                        3, static_cast<unsigned>(args.number("cycles")), new_seed());
    for (const char* mode : {"flow_up", "restore", "capture"}) {
      std::vector<double> over;
      for (std::size_t i = 0; i != r.taken(mode).size(); ++i)
        over.push_back(r.taken(mode)[i] - r.taken("flow_up")[i]);
      out.send(std::string("ns:") + mode, r.of(mode).median);
      out.send(std::string("over:") + mode, median(over));
    }
  });
  return 0;
}
const role_registration ambient_cost_role("ambient-cost", ambient_cost);

void cost(context& ctx) {
  const unsigned cycles = ctx.pick(100u, 1000u);
  table out({"cost", "mode", "ns per call", "ns over a plain call"});
  for (const std::string& stack : stack_variants())
    ctx.attempt("fiber/" + stack, [&] {
      arguments args = fiber_arguments(stack);
      args.set("cycles", std::to_string(cycles));
      auto r = run_role("ambient-cost", args, usable_cores().front());
      for (const std::string mode : {"flow_up", "restore", "capture"}) {
        const parameters params{{"mode", mode}, {"cycles", cycles}};
        ctx.add("fiber/" + stack, "ns_per_call_" + mode, r.at("ns:" + mode), "ns", params);
        ctx.add("fiber/" + stack, "ns_over_plain_call_" + mode, r.at("over:" + mode), "ns", params);
        out.row({"fiber/" + stack, mode, fixed(r.at("ns:" + mode), 2),
                 mode == "flow_up" ? "-" : fixed(r.at("over:" + mode), 2)});
      }
    });
  out.print();
}

void run(context& ctx) {
  for (const auto part : {values, cost, report_posts, report_deadlock}) {
    std::printf("\n");
    part(ctx);
  }
}

const registration entry(
    {"E22",
     "contexts: ambient values, synchronization contexts, and blocking on asynchronous code",
     "which value a caller sees in each mode, what goes by way of a context, who deadlocks",
     "the cost of the modes in awaited calls (E11)",
     {"fiber/<stack>", "task", "async1", "loop_context"},
     run});

}  // namespace
}  // namespace bench
