// SPDX-License-Identifier: Apache-2.0
//
// E15: where is the turning point between calling and waiting? run(depth) goes down to a loop that, between two
// looks at the clock, calls a function 20 times that thrice does `if (random < p) yield`. With p = 0 a model pays
// for calls alone, with p = 1 three waits a call. What is counted is those thirds, for 500 ms.
// Frames between run and the loop suspend once and stay so: depth should not matter, and the sweep shows whether
// it does.
//
// Variants as in E12; what a yield is: places.hpp. With thunk each call of the function is one of a thunk, whose
// future is awaited. Published: no figures, only plots.

#include "bench/models/async1/task.hpp"
#include "bench/models/lean/task.hpp"
#include "bench/scenario/places.hpp"
#include "bench/scenario/runs_by_turns.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/await.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>
#include <tendril/thunk.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

constexpr int calls_a_look = 20;
const std::vector<long> depths{0, 8, 64};
const std::vector<long> one_in{0, 1000, 100, 10, 1};  // 0: never

struct job {
  long depth;
  long one_in;
  std::chrono::nanoseconds window;
  lean::loop* loop = nullptr;
  std::uint64_t random = 0x9e3779b97f4a7c15;
  std::int64_t sink = 0;
  std::int64_t yields = 0;

  bool draw() noexcept {
    random ^= random << 13;
    random ^= random >> 7;
    random ^= random << 17;
    if (one_in == 0) return false;
    const bool now = random < ~std::uint64_t{0} / static_cast<std::uint64_t>(one_in);
    yields += now ? 1 : 0;
    return now || one_in == 1;
  }
};

// --- ordinary code

[[gnu::noinline]] int code_do_yields(job& j) {
  int done = 0;
  for (int i = 0; i != 3; ++i) {
    if (j.draw()) tendril::this_fiber::yield();
    ++done;
  }
  return done;
}
template <class Call>
double code_loop(job& j, const Call& call) {
  const timed_loop time(j.window);
  std::int64_t count = 0;
  while (time.go_on())
    for (int i = 0; i != calls_a_look; ++i) count += call(j);
  return time.rate(static_cast<double>(count));
}
template <class Call>
[[gnu::noinline]] double code_run(job& j, long depth, const Call& call) {
  const std::int64_t live = 3 * depth + j.one_in;
  if (depth == 0) return code_loop(j, call);
  const double result = code_run(j, depth - 1, call);
  j.sink = live + depth;
  return result;
}
double run_code(job& j) { return code_run(j, j.depth, code_do_yields); }
double run_thunk(job& j) {
  const auto thunked = tendril::thunk([](job* k) { return code_do_yields(*k); });
  return code_run(j, j.depth, [&](job& k) { return tendril::await(thunked(&k)); });
}

// --- coroutines

struct on_pool {
  static auto yield(job&) { return async1::yield{}; }
};
struct on_loop {
  static auto yield(job& j) { return j.loop->yield(); }
};
template <template <class> class Handle, class Where>
[[gnu::noinline]] Handle<int> do_yields(job& j) {
  int done = 0;
  for (int i = 0; i != 3; ++i) {
    if (j.draw()) co_await Where::yield(j);
    ++done;
  }
  co_return done;
}
template <template <class> class Handle, class Where>
[[gnu::noinline]] Handle<double> loop(job& j) {
  const timed_loop time(j.window);
  std::int64_t count = 0;
  while (time.go_on())
    for (int i = 0; i != calls_a_look; ++i) count += co_await do_yields<Handle, Where>(j);
  co_return time.rate(static_cast<double>(count));
}
template <template <class> class Handle, class Where>
[[gnu::noinline]] Handle<double> run_chain(job& j, long depth) {
  const std::int64_t live = 3 * depth + j.one_in;
  if (depth == 0) co_return co_await loop<Handle, Where>(j);
  const double result = co_await run_chain<Handle, Where>(j, depth - 1);
  j.sink = live + depth;
  co_return result;
}
template <class T>
using async1_task = async1::task<T>;
template <class T>
using async1_value_task = async1::value_task<T>;

double run(const std::string& impl, tendril::runtime& runtime, async1::thread_pool& pool, job& j) {
  lean::loop loop;
  j.loop = &loop;
  const bool crowded = j.one_in != 0;
  if (impl == "thread") return run_code(j);
  if (impl == "fiber") return on_fiber(runtime, crowded, [&j] { return run_code(j); });
  if (impl == "thunk") return on_fiber(runtime, crowded, [&j] { return run_thunk(j); });
  if (impl == "async1")
    return pool.run([&j] { return run_chain<async1_task, on_pool>(j, j.depth); });
  if (impl == "async1_valuetask")
    return pool.run([&j] { return run_chain<async1_value_task, on_pool>(j, j.depth); });
  if (impl == "task")
    return on_tasks(runtime, loop, [&j] { return run_chain<tendril::task, on_loop>(j, j.depth); });
  if (impl == "lean") return loop.run(run_chain<lean::task, on_loop>(j, j.depth));
  throw std::invalid_argument(
      "unknown --impl '" + impl +
      "'; known: thread, fiber, thunk, async1, async1_valuetask, task, lean");
}

std::string cell_of(long depth, long one_in_n) {
  return "iterations_depth" + std::to_string(depth) +
         (one_in_n == 0 ? "_never" : "_one_in_" + std::to_string(one_in_n));
}

int varying_yields(const arguments& args, role_output& out) {
  const std::chrono::milliseconds window(args.number("window-ms"));
  tendril::runtime runtime(runtime_with(args.text("stack", "reserved"), 1));
  async1::thread_pool pool(1);
  for (const long depth : depths)
    for (const long n : one_in) {
      job j{depth, n, window / 4};
      run(args.text("impl"), runtime, pool, j);
      j.window = window;
      out.send(cell_of(depth, n), run(args.text("impl"), runtime, pool, j) / 2);  // in 500 ms
      if (n != 0 && j.yields == 0) throw std::runtime_error("nobody has yielded");
    }
  return 0;
}
const role_registration varying_yields_role("varying-yields", varying_yields);

void run_experiment(context& ctx) {
  const unsigned runs = ctx.pick(3u, 16u);
  const int window_ms = ctx.pick(8, 500);
  const int core = usable_cores().front();
  const parameters params{
      {"calls_a_look", calls_a_look}, {"runs", runs}, {"window_ms", window_ms}, {"core", core}};
  std::printf("  %s; %s; figures are iterations in 500 ms of CPU\n", to_text(params).c_str(),
              describe_trimming(runs).c_str());
  const std::vector<turn> turns = turns_of_models(
      "varying-yields", {"thread", "fiber", "thunk", "async1", "async1_valuetask", "task", "lean"},
      {{"window-ms", std::to_string(window_ms)}});
  const auto found = run_by_turns(ctx, turns, runs, core);
  for (const long depth : depths) {
    std::vector<std::string> head{"depth " + std::to_string(depth) + ", p ="};
    for (const long n : one_in)
      head.push_back(n == 0 ? "0" : n == 1 ? "1" : "1/" + std::to_string(n));
    table out(head);
    for (const turn& t : turns) {
      const auto of = found.find(t.variant);
      if (of == found.end()) continue;
      std::vector<std::string> row{t.variant};
      for (const long n : one_in) {
        const double figure = of->second.at(cell_of(depth, n));
        ctx.add(t.variant, cell_of(depth, n), figure, "1/500ms", params);
        row.push_back(fixed(figure, 0));
      }
      out.row(row);
    }
    out.print();
  }
}

const registration entry(
    {"E15",
     "varying yields: calls that wait now and then",
     "from which share of calls that wait on each model pays for waiting rather than for calling",
     "waits that take time; several threads",
     {"thread", "fiber/<stack>", "thunk", "async1", "async1_valuetask", "task", "lean"},
     run_experiment});

}  // namespace
}  // namespace bench
