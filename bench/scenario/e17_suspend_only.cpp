// SPDX-License-Identifier: Apache-2.0
//
// E17: nothing but suspensions: who waits is suspended and resumed, 10 million times, by a loop that does nothing
// else. The best case for a heap-allocated state machine, whose one frame has been paid for by the first
// suspension; the worst for what must leave a stack each time.
//   async1, async1_valuetask, task, lean   a bare awaiter hands its continuation to the loop, which calls it
//   fiber/X                                two fibers yield to each other: a round is two switches
//   thunk                                  the same, one of them having been started as a thunk
//   thread                                 two threads on one core hand over by semaphores
//
// Published: an issue of the .NET runtime says that runtime async loses here, without figures that compare.

#include "bench/models/async1/task.hpp"
#include "bench/models/lean/task.hpp"
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

#include <coroutine>
#include <cstdio>
#include <memory>
#include <semaphore>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace bench {
namespace {

struct job {
  long rounds;
  long resumed = 0;
  async1::continuation* method = nullptr;  // suspended
  std::coroutine_handle<> coroutine;       // the same
};

struct bare_async1 {
  job& j;
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> h) {
    h.promise().suspending();
    j.method = &h.promise();
  }
  void await_resume() const noexcept {}
};
struct bare {
  job& j;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) noexcept { j.coroutine = h; }
  void await_resume() const noexcept {}
};

template <class Handle, class Awaiter>
Handle waiting(job& j) {
  while (j.resumed != j.rounds) {
    co_await Awaiter{j};
    ++j.resumed;
  }
}

double ns_of(const cpu_stopwatch& time, const job& j) {
  if (j.resumed != j.rounds) throw std::runtime_error("not every suspension was resumed");
  return time.ns() / static_cast<double>(j.rounds);
}

template <class Handle>
double of_async1(job& j) {
  async1::thread_pool pool(1);  // nobody is ever posted there
  auto t = waiting<Handle, bare_async1>(j);
  const cpu_stopwatch time;
  for (long i = 0; i != j.rounds; ++i) j.method->run(j.method);
  const double ns = ns_of(time, j);
  t.get();
  return ns;
}

double of_lean(job& j) {
  auto t = waiting<lean::task<void>, bare>(j);
  t.start();
  const cpu_stopwatch time;
  for (long i = 0; i != j.rounds; ++i) j.coroutine.resume();
  const double ns = ns_of(time, j);
  t.get();
  return ns;
}

double of_task(tendril::runtime& runtime, job& j) {
  const auto ns = std::make_unique<double>();
  runtime.run([&j, &ns = *ns] {
    tendril::fiber resumer([&j, &ns] {
      const cpu_stopwatch time;
      for (long i = 0; i != j.rounds; ++i) j.coroutine.resume();
      ns = ns_of(time, j);
    });
    tendril::await(waiting<tendril::task<void>, bare>(j));
    resumer.join();
  });
  return *ns;
}

double of_fibers(tendril::runtime& runtime, job& j, bool by_thunk) {
  const auto ns = std::make_unique<double>();
  runtime.run([&j, &ns = *ns, by_thunk] {
    const auto wait = [&j] {
      while (j.resumed != j.rounds) {
        tendril::this_fiber::yield();
        ++j.resumed;
      }
    };
    const auto resume = [&j, &ns] {
      const cpu_stopwatch time;
      while (j.resumed != j.rounds) tendril::this_fiber::yield();
      ns = ns_of(time, j);
    };
    if (by_thunk) {
      tendril::future<void> waiter = tendril::thunk(wait)();
      resume();
      waiter.get();
    } else {
      tendril::fiber waiter(wait);
      resume();
      waiter.join();
    }
  });
  return *ns;
}

double of_threads(job& j) {
  std::binary_semaphore turn(0);
  std::binary_semaphore back(0);
  std::thread waiter([&] {
    while (j.resumed != j.rounds) {
      turn.acquire();
      ++j.resumed;
      back.release();
    }
  });
  const cpu_stopwatch time;
  for (long i = 0; i != j.rounds; ++i) {
    turn.release();
    back.acquire();
  }
  const double ns = ns_of(time, j);
  waiter.join();
  return ns;
}

int suspend_only(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  job j{args.number("rounds")};
  double ns = 0;
  tendril::runtime runtime(runtime_with(args.text("stack", "reserved"), 1));
  if (impl == "thread") {
    j.rounds /= 100;  // of some microseconds each
    ns = of_threads(j);
  } else if (impl == "fiber") ns = of_fibers(runtime, j, false);
  else if (impl == "thunk") ns = of_fibers(runtime, j, true);
  else if (impl == "async1") ns = of_async1<async1::task<void>>(j);
  else if (impl == "async1_valuetask") ns = of_async1<async1::value_task<void>>(j);
  else if (impl == "task") ns = of_task(runtime, j);
  else if (impl == "lean") ns = of_lean(j);
  else
    throw std::invalid_argument(
        "unknown --impl '" + impl +
        "'; known: thread, fiber, thunk, async1, async1_valuetask, task, lean");
  out.send("ns_per_suspension", ns);
  return 0;
}
const role_registration suspend_only_role("suspend-only", suspend_only);

void run_experiment(context& ctx) {
  const unsigned runs = ctx.pick(4u, 16u);
  const long rounds = ctx.pick(1'000'000L, 10'000'000L);
  const int core = usable_cores().front();
  const parameters params{{"rounds", rounds}, {"runs", runs}, {"core", core}};
  std::printf("  %s, of threads a hundredth; %s\n", to_text(params).c_str(),
              describe_trimming(runs).c_str());
  const std::vector<turn> turns = turns_of_models(
      "suspend-only", {"thread", "fiber", "thunk", "async1", "async1_valuetask", "task", "lean"},
      {{"rounds", std::to_string(rounds)}});
  const auto found = run_by_turns(ctx, turns, runs, core);
  table out({"variant", "ns per suspension"});
  for (const turn& t : turns) {
    const auto of = found.find(t.variant);
    if (of == found.end()) continue;
    const double ns = of->second.at("ns_per_suspension");
    ctx.add(t.variant, "ns_per_suspension", ns, "ns", params);
    out.row({t.variant, fixed(ns, 2)});
  }
  out.print();
}

const registration entry(
    {"E17",
     "suspensions and nothing else",
     "what leaving and coming back costs when there is one frame and no scheduler between",
     "deep chains (E12), scheduling (E1)",
     {"thread", "fiber/<stack>", "thunk", "async1", "async1_valuetask", "task", "lean"},
     run_experiment});

}  // namespace
}  // namespace bench
