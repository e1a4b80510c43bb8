// SPDX-License-Identifier: Apache-2.0
//
// E11m: what does each part of the async1 model cost? The same methods with parts of the machinery left out, one
// by one (async1::dotnet in bench/models/async1/task.hpp).
//   call              awaiting an empty method that completes at once, as E11's async1->async1
//   call_with_value   the same while an AsyncLocal has a value, so that there is a context to keep
//   call_of_number    a method that returns a number too large for the cached tasks
//   level             each of 64 methods that await one another, the last of which yields: its share of a round
//
// Does not show: what cannot be left out of a coroutine: that an exception is caught in each frame and thrown
// again (E12 throw_*), and that a frame is made for each call.

#include "bench/models/async1/task.hpp"
#include "bench/scenario/runs_by_turns.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

namespace bench {

extern int min_call_never_zero;

namespace {

using async1::dotnet;

struct no_contexts : dotnet {
  static constexpr bool contexts = false;
};
struct no_cached_tasks : dotnet {
  static constexpr bool cached_tasks = false;
};
struct plain_frames : dotnet {
  static constexpr bool pooled_frames = false;
};
struct one_thread : dotnet {
  static constexpr bool shared_tasks = false;
};

constexpr long levels = 64;
constexpr int calls_a_look = 10;

template <template <class, class> class Handle, class Features>
struct methods {
  [[gnu::noinline]] static Handle<void, Features> empty() {
    if (min_call_never_zero == 0) [[unlikely]]
      co_await async1::yield{};
  }
  [[gnu::noinline]] static Handle<long, Features> number() {
    if (min_call_never_zero == 0) [[unlikely]]
      co_await async1::yield{};
    co_return 123'456;
  }
  [[gnu::noinline]] static Handle<long, Features> level(long depth) {
    if (depth == 0) {
      co_await async1::yield{};
      co_return 1;
    }
    co_return 1 + co_await level(depth - 1);
  }

  /// Nanoseconds for each call. The root keeps the features of .NET: it is what the pool runs.
  template <class Call>
  static async1::task<double> calls(std::chrono::nanoseconds window, Call call) {
    for (bool warm = false;; warm = true) {
      const timed_loop time(warm ? window : window / 4);
      double n = 0;
      for (; time.go_on(); n += calls_a_look)
        for (int i = 0; i != calls_a_look; ++i) static_cast<void>(co_await call());
      if (warm) co_return 1e9 / time.rate(n);
    }
  }

  static void measure(std::chrono::nanoseconds window, async1::thread_pool& pool,
                      role_output& out) {
    const auto of_empty = [] { return empty(); };
    out.send("call", pool.run([&] { return calls(window, of_empty); }));
    out.send("call_of_number", pool.run([&] { return calls(window, [] { return number(); }); }));
    const double chain = pool.run([&] { return calls(window, [] { return level(levels); }); });
    out.send("level", chain / levels);
    async1::async_local<int> local;
    local.set(1);
    const auto kept = async1::capture_context();
    out.send("call_with_value", pool.run([&] {
      kept->add_reference();
      async1::replace_context(kept);
      return calls(window, of_empty);
    }));
    kept->release();
    async1::replace_context(nullptr);
  }
};

const std::map<std::string, void (*)(std::chrono::nanoseconds, async1::thread_pool&, role_output&)>
    variants{
        {"async1", &methods<async1::task, dotnet>::measure},
        {"async1/no_contexts", &methods<async1::task, no_contexts>::measure},
        {"async1/no_cached_tasks", &methods<async1::task, no_cached_tasks>::measure},
        {"async1/plain_frames", &methods<async1::task, plain_frames>::measure},
        {"async1/one_thread", &methods<async1::task, one_thread>::measure},
        {"async1_valuetask", &methods<async1::value_task, dotnet>::measure},
        {"async1_valuetask/no_contexts", &methods<async1::value_task, no_contexts>::measure},
    };

int model_features(const arguments& args, role_output& out) {
  async1::thread_pool pool(1);
  variants.at(args.text("variant"))(std::chrono::milliseconds(args.number("window-ms")), pool, out);
  return 0;
}
const role_registration model_features_role("model-features", model_features);

void run(context& ctx) {
  const unsigned runs = ctx.pick(5u, 16u);
  const int window_ms = ctx.pick(10, 250);
  const int core = usable_cores().front();
  const parameters params{
      {"levels", levels}, {"runs", runs}, {"window_ms", window_ms}, {"core", core}};
  std::printf("  %s; %s; figures are ns\n", to_text(params).c_str(),
              describe_trimming(runs).c_str());
  std::vector<turn> turns;
  for (const auto& [variant, measure] : variants)
    turns.push_back({variant,
                     "model-features",
                     {{"variant", variant}, {"window-ms", std::to_string(window_ms)}}});
  const auto found = run_by_turns(ctx, turns, runs, core);
  const std::vector<std::string> columns{"call", "call_with_value", "call_of_number", "level"};
  std::vector<std::string> head{"variant"};
  head.insert(head.end(), columns.begin(), columns.end());
  table out(head);
  for (const auto& [variant, of] : found) {
    std::vector<std::string> row{variant};
    for (const std::string& c : columns) {
      ctx.add(variant, "ns_" + c, of.at(c), "ns", params);
      row.push_back(fixed(of.at(c), 2));
    }
    out.row(row);
  }
  out.print();
}

const registration entry(
    {"E11m",
     "what each part of the async1 model costs a call",
     "the model's machinery, part by part, for calls that wait and calls that do not",
     "catching and throwing again in each frame (E12)",
     {"async1", "async1/<part left out>", "async1_valuetask", "async1_valuetask/no_contexts"},
     run});

}  // namespace
}  // namespace bench
