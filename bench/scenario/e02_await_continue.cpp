// SPDX-License-Identifier: Apache-2.0
//
// E2: E1 with a coroutine that waits. It makes a promise, awaits its future and counts; whoever sets the value
// resumes it inline, and gets control back when it waits for the next one. A pair is one such round: a promise
// made and destroyed, an await, a resumption.
//   task    tendril::task awaiting a tendril::future
//   async1  the model of .NET's async methods, awaiting the task of a completion_source
//   fiber   for comparison, E1's round: a fiber parks and is unparked, by two switches of stacks
// One thread, one core. A coroutine's round needs no scheduler, a fiber's goes through the run queue.
//
// Does not show: resumption by a scheduler or on another thread.

#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/scenario/windows.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/future.hpp>
#include <tendril/task.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

struct measured {
  std::vector<double> figures;
  std::uint64_t set = 0;      // by the setter
  std::uint64_t counted = 0;  // by the waiter
};

struct with_task {
  std::optional<tendril::promise<bool>> wanted;
  measured m;

  static tendril::task<void> wait(with_task& s) {
    for (bool go_on = true; go_on;) {
      tendril::promise<bool> promise;
      tendril::future<bool> value = promise.get_future();
      s.wanted = std::move(promise);
      go_on = co_await std::move(value);
      ++s.m.counted;
    }
  }
  void answer(bool go_on) {
    tendril::promise<bool> promise = std::move(*wanted);
    wanted.reset();
    promise.set_value(go_on);
    ++m.set;
  }
};

/// A completion_source cannot be moved, and must outlive set_result: two of them, in turn.
struct with_async1 {
  std::array<std::optional<async1::completion_source<bool>>, 2> sources;
  std::size_t wanted = 0;
  measured m;

  static async1_task<void> wait(with_async1& s) {
    for (bool go_on = true; go_on;) {
      s.wanted ^= 1;
      async1::task<bool> value = s.sources[s.wanted].emplace().get_task();
      go_on = co_await value;
      ++s.m.counted;
    }
  }
  void answer(bool go_on) {
    auto& source = sources[wanted];
    source->set_result(go_on);
    source.reset();
    ++m.set;
  }
};

template <class Model>
measured await_continue(const window_plan& plan) {
  Model s;
  run_detached(Model::wait(s));
  s.m.figures = time_windows(plan, [&] { s.answer(true); });
  s.answer(false);
  return std::move(s.m);
}

int await_continue(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const window_plan plan = window_plan::from(args, 1024);
  measured m;
  if (impl == "task") m = await_continue<with_task>(plan);
  else if (impl == "async1") m = await_continue<with_async1>(plan);
  else throw std::invalid_argument("unknown --impl '" + impl + "'; known: task, async1");
  if (m.set != m.counted)
    throw std::runtime_error("values were lost: " + std::to_string(m.set) + " set, " +
                             std::to_string(m.counted) + " seen");
  send_windows(out, m.figures);
  return 0;
}
const role_registration await_continue_role("await-continue", await_continue);

void run(context& ctx) {
  const int windows = ctx.pick(5, 8);
  const int window_ms = ctx.pick(200, 500);
  const int core = usable_cores().front();
  const parameters params{{"windows", windows}, {"window_ms", window_ms}, {"core", core}};
  std::printf("  %s\n", to_text(params).c_str());
  table out({"variant", "ns per pair", "quartiles", "published ns"});
  const auto measure = [&](const std::string& variant, const char* role, arguments args,
                           const char* published) {
    ctx.attempt(variant, [&] {
      args.set("windows", std::to_string(windows));
      args.set("window-ms", std::to_string(window_ms));
      auto r = run_role(role, args, core);
      ctx.add(variant, "ns_per_pair", r.at("median"), "ns", params);
      ctx.add(variant, "ns_per_pair_q1", r.at("q1"), "ns", params);
      ctx.add(variant, "ns_per_pair_q3", r.at("q3"), "ns", params);
      out.row({variant, fixed(r.at("median"), 1),
               fixed(r.at("q1"), 1) + ".." + fixed(r.at("q3"), 1), published});
    });
  };
  for (const char* model : {"task", "async1"})
    measure(model, "await-continue", {{"impl", model}}, "110");
  for (const std::string& stack : stack_variants())
    measure("fiber/" + stack, "yield-resume", fiber_arguments(stack), "500 (E1)");
  out.print();
}

const registration entry(
    {"E2",
     "await-continue: a coroutine awaits a promise, and is resumed inline",
     "the cost of one await that suspends and its resumption, promise included",
     "schedulers, other threads",
     {"task", "async1", "fiber/<stack>"},
     run});

}  // namespace
}  // namespace bench
