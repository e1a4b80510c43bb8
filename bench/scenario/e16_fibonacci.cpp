// SPDX-License-Identifier: Apache-2.0
//
// E16: Fibonacci by calls that are awaited: fib(n) awaits fib(n-1), then fib(n-2), and adds; n = 25 is 242,785
// calls. Without a yield nothing ever waits; with one each of the 121,393 leaves does, and whoever awaits it.
// Milliseconds, and the bytes that operator new gave out meanwhile (allocations.hpp says what is not in it).
//
// Variants as in E12; what a yield is: places.hpp. With thunk every call is one of a thunk, on a stack of its
// own. Published: no figures.

#include "bench/models/async1/task.hpp"
#include "bench/models/lean/task.hpp"
#include "bench/scenario/allocations.hpp"
#include "bench/scenario/places.hpp"
#include "bench/scenario/runs_by_turns.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/await.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>
#include <tendril/thunk.hpp>

#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

constexpr int n = 25;
constexpr int fib_of_n = 121'393;  // with fib(0) = fib(1) = 1

struct job {
  bool yields;
  lean::loop* loop = nullptr;
  double ms = 0;
  double bytes = 0;
};

/// Around the call, on the thread that does all of it.
class stopwatch {
 public:
  explicit stopwatch(job& j) : job_(j) {}
  void check(int result) {
    job_.ms = time_.ns() * 1e-6;
    job_.bytes = static_cast<double>(allocations_of_thread().bytes - before_);
    if (result != fib_of_n) throw std::runtime_error("fib gave " + std::to_string(result));
  }

 private:
  job& job_;
  std::uint64_t before_ = allocations_of_thread().bytes;
  cpu_stopwatch time_;
};

[[gnu::noinline]] int fib_code(const job& j, int i) {
  if (i <= 1) {
    if (j.yields) tendril::this_fiber::yield();
    return 1;
  }
  const int one = fib_code(j, i - 1);
  const int two = fib_code(j, i - 2);
  return one + two;
}
[[gnu::noinline]] tendril::future<int> fib_thunk(const job* j, int i) {
  return tendril::thunk([](const job* k, int m) {
    if (m <= 1) {
      if (k->yields) tendril::this_fiber::yield();
      return 1;
    }
    const int one = tendril::await(fib_thunk(k, m - 1));
    const int two = tendril::await(fib_thunk(k, m - 2));
    return one + two;
  })(j, i);
}

struct on_pool {
  static auto yield(const job&) { return async1::yield{}; }
};
struct on_loop {
  static auto yield(const job& j) { return j.loop->yield(); }
};
template <template <class> class Handle, class Where>
[[gnu::noinline]] Handle<int> fib(const job& j, int i) {
  if (i <= 1) {
    if (j.yields) co_await Where::yield(j);
    co_return 1;
  }
  const int one = co_await fib<Handle, Where>(j, i - 1);
  const int two = co_await fib<Handle, Where>(j, i - 2);
  co_return one + two;
}
template <template <class> class Handle, class Where>
Handle<double> root(job& j) {
  stopwatch s(j);
  s.check(co_await fib<Handle, Where>(j, n));
  co_return 0;
}
template <class T>
using async1_task = async1::task<T>;
template <class T>
using async1_value_task = async1::value_task<T>;

void run(const std::string& impl, tendril::runtime& runtime, async1::thread_pool& pool, job& j) {
  lean::loop loop;
  j.loop = &loop;
  const auto code = [&j] {
    stopwatch s(j);
    s.check(fib_code(j, n));
    return 0.0;
  };
  const auto thunks = [&j] {
    stopwatch s(j);
    s.check(tendril::await(fib_thunk(&j, n)));
    return 0.0;
  };
  if (impl == "thread") code();
  else if (impl == "fiber") on_fiber(runtime, j.yields, code);
  else if (impl == "thunk") on_fiber(runtime, j.yields, thunks);
  else if (impl == "async1") pool.run([&j] { return root<async1_task, on_pool>(j); });
  else if (impl == "async1_valuetask")
    pool.run([&j] { return root<async1_value_task, on_pool>(j); });
  else if (impl == "task")
    on_tasks(runtime, loop, [&j] { return root<tendril::task, on_loop>(j); });
  else if (impl == "lean") loop.run(root<lean::task, on_loop>(j));
  else
    throw std::invalid_argument(
        "unknown --impl '" + impl +
        "'; known: thread, fiber, thunk, async1, async1_valuetask, task, lean");
}

const char* suffix(bool yields) { return yields ? "_yield" : "_no_yield"; }

int fibonacci(const arguments& args, role_output& out) {
  tendril::runtime runtime(runtime_with(args.text("stack", "reserved"), 1));
  async1::thread_pool pool(1);
  for (const bool yields : {false, true}) {
    job j{yields};
    run(args.text("impl"), runtime, pool, j);  // warm up: pools of frames, stacks
    run(args.text("impl"), runtime, pool, j);
    out.send(std::string("ms") + suffix(yields), j.ms);
    out.send(std::string("bytes_allocated") + suffix(yields), j.bytes);
  }
  return 0;
}
const role_registration fibonacci_role("fibonacci", fibonacci);

void run_experiment(context& ctx) {
  const unsigned runs = ctx.pick(3u, 16u);
  const int core = usable_cores().front();
  const parameters params{{"n", n}, {"runs", runs}, {"core", core}};
  std::printf("  %s; %s\n", to_text(params).c_str(), describe_trimming(runs).c_str());
  const std::vector<turn> turns = turns_of_models(
      "fibonacci", {"thread", "fiber", "thunk", "async1", "async1_valuetask", "task", "lean"}, {});
  const auto found = run_by_turns(ctx, turns, runs, core);
  table out({"variant", "ms, no yield", "bytes allocated", "ms, leaves yield", "bytes allocated"});
  for (const turn& t : turns) {
    const auto of = found.find(t.variant);
    if (of == found.end()) continue;
    std::vector<std::string> row{t.variant};
    for (const bool yields : {false, true}) {
      const std::string ms = std::string("ms") + suffix(yields);
      const std::string bytes = std::string("bytes_allocated") + suffix(yields);
      ctx.add(t.variant, ms, of->second.at(ms), "ms", params);
      ctx.add(t.variant, bytes, of->second.at(bytes), "bytes", params);
      row.push_back(fixed(of->second.at(ms), 2));
      row.push_back(fixed(of->second.at(bytes), 0));
    }
    out.row(row);
  }
  out.print();
}

const registration entry({"E16",
                          "Fibonacci: 242,785 awaited calls, with and without a yield at each leaf",
                          "a tree of calls that nearly do nothing: time and allocated bytes",
                          "parallel branches",
                          {"thread", "fiber/<stack>", "thunk", "async1", "async1_valuetask", "task",
                           "lean"},
                          run_experiment});

}  // namespace
}  // namespace bench
