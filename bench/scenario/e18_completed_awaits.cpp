// SPDX-License-Identifier: Apache-2.0
//
// E18: awaiting what is complete already, with a value (.NET's Task.FromResult) and without (CompletedTask). It
// comes from a function that the compiler cannot see through. Nanoseconds and allocations for each await; none
// are allowed.
//   thread, fiber/X            tendril::await of a ready future, made for each await: it is awaited once
//   fiber/X/restore, /capture  the same within an ambient_flow of that mode, one value set
//   thunk                      the await of what a thunk returned that never had to wait
//   async1                     a method awaits one task that is kept, as any number may await it
//   async1_valuetask           a method awaits a value_task that has just been made
//   task                       a task awaits a ready future
//
// Does not show: what making a completed task costs that is not cached; waits that suspend (E12, E17).

#include "bench/models/async1/task.hpp"
#include "bench/scenario/allocations.hpp"
#include "bench/scenario/runs_by_turns.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/ambient.hpp>
#include <tendril/await.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>
#include <tendril/thunk.hpp>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace bench {
namespace {

using tendril::ambient_flow;
using tendril::ambient_mode;

constexpr long value = 123'456;  // not one that .NET caches

[[gnu::noinline]] tendril::future<long> ready_value() {
  long v = value;
  asm volatile("" : "+r"(v));
  return tendril::make_ready_future<long>(v);
}
[[gnu::noinline]] tendril::future<void> ready_nothing() {
  asm volatile("");
  return tendril::make_ready_future();
}
[[gnu::noinline]] long code_value() {
  long v = value;
  asm volatile("" : "+r"(v));
  return v;
}
[[gnu::noinline]] void code_nothing() { asm volatile(""); }
[[gnu::noinline]] async1::value_task<long> valuetask_value() {
  long v = value;
  asm volatile("" : "+r"(v));
  co_return v;
}
[[gnu::noinline]] async1::value_task<void> valuetask_nothing() {
  asm volatile("");
  co_return;
}

struct measured {
  double ns = 0;
  double allocations = 0;
};

/// Around `awaits` of them, on one thread.
class meter {
 public:
  explicit meter(long awaits) : awaits_(awaits) {}
  measured read(std::int64_t sum) const {
    const auto n = static_cast<double>(awaits_);
    const double ns = time_.ns();
    const double calls = static_cast<double>(allocations_of_thread().calls - calls_);
    if (sum != 0 && sum != awaits_ * value) throw std::runtime_error("a value was lost");
    return {ns / n, calls / n};
  }

 private:
  long awaits_;
  std::uint64_t calls_ = allocations_of_thread().calls;
  cpu_stopwatch time_;
};

template <class Call>
measured by_code(long awaits, const Call& call) {
  for (long i = 0; i != awaits / 8; ++i) call();  // warm up
  const meter m(awaits);
  std::int64_t sum = 0;
  for (long i = 0; i != awaits; ++i) {
    if constexpr (std::is_void_v<decltype(call())>) call();
    else sum += call();
  }
  return m.read(sum);
}

template <class Handle, class Call>
Handle by_coroutine(long awaits, Call call, measured& result) {
  for (long i = 0; i != awaits / 8; ++i) static_cast<void>(co_await call());
  const meter m(awaits);
  std::int64_t sum = 0;
  for (long i = 0; i != awaits; ++i) {
    if constexpr (std::is_void_v<decltype(call().await_resume())>) co_await call();
    else sum += co_await call();
  }
  result = m.read(sum);
}

/// A task awaits futures by its own awaiter: nothing to ask their type of.
template <bool with_value>
tendril::task<void> by_task(long awaits, measured& result) {
  std::int64_t sum = 0;
  for (long i = 0; i != awaits / 8; ++i) co_await ready_nothing();
  const meter m(awaits);
  for (long i = 0; i != awaits; ++i) {
    if constexpr (with_value) sum += co_await ready_value();
    else co_await ready_nothing();
  }
  result = m.read(sum);
}

measured run(const std::string& impl, bool with_value, long awaits, tendril::runtime& runtime,
             async1::thread_pool& pool) {
  const auto result = std::make_unique<measured>();
  const auto code = [&](const auto& of_value, const auto& of_nothing, bool fiber) {
    const auto both = [&, with_value, awaits, &r = *result] {
      tendril::ambient<int> ambient;
      ambient.set(1);
      r = with_value ? by_code(awaits, of_value) : by_code(awaits, of_nothing);
    };
    if (fiber) runtime.run(both);
    else both();
  };
  const auto await_value = [] { return tendril::await(ready_value()); };
  const auto await_nothing = [] { tendril::await(ready_nothing()); };
  if (impl == "thread") code(await_value, await_nothing, false);
  else if (impl == "fiber") code(await_value, await_nothing, true);
  else if (impl == "fiber/restore")
    code([&] { return ambient_flow::call<ambient_mode::restore>(await_value); },
         [&] { ambient_flow::call<ambient_mode::restore>(await_nothing); }, true);
  else if (impl == "fiber/capture")
    code([&] { return ambient_flow::call<ambient_mode::capture>(await_value); },
         [&] { ambient_flow::call<ambient_mode::capture>(await_nothing); }, true);
  else if (impl == "thunk") {
    const auto of_value = tendril::thunk(&code_value);
    const auto of_nothing = tendril::thunk(&code_nothing);
    code([&] { return tendril::await(of_value()); }, [&] { tendril::await(of_nothing()); }, true);
  } else if (impl == "async1") {
    auto kept_value = async1::from_result<long>(value);
    auto kept_nothing = async1::completed();
    pool.run([&] {
      using loop = async1::task<void>;
      const auto of_value = [&kept_value] { return kept_value.configure_await(true); };
      const auto of_nothing = [&kept_nothing] { return kept_nothing.configure_await(true); };
      return with_value ? by_coroutine<loop>(awaits, of_value, *result)
                        : by_coroutine<loop>(awaits, of_nothing, *result);
    });
  } else if (impl == "async1_valuetask") {
    pool.run([&] {
      using loop = async1::task<void>;
      const auto of_value = [] { return valuetask_value(); };
      const auto of_nothing = [] { return valuetask_nothing(); };
      return with_value ? by_coroutine<loop>(awaits, of_value, *result)
                        : by_coroutine<loop>(awaits, of_nothing, *result);
    });
  } else if (impl == "task") {
    runtime.run([&, &r = *result] {
      tendril::await(with_value ? by_task<true>(awaits, r) : by_task<false>(awaits, r));
    });
  } else {
    throw std::invalid_argument(
        "unknown --impl '" + impl +
        "'; known: thread, fiber, fiber/restore, fiber/capture, thunk, async1, async1_valuetask, "
        "task");
  }
  return *result;
}

int completed_awaits(const arguments& args, role_output& out) {
  tendril::runtime runtime(runtime_with(args.text("stack", "reserved"), 1));
  async1::thread_pool pool(1);
  for (const bool with_value : {true, false}) {
    const measured m = run(args.text("impl"), with_value, args.number("awaits"), runtime, pool);
    const std::string suffix = with_value ? "" : "_void";
    out.send("ns_per_await" + suffix, m.ns);
    out.send("allocations" + suffix, m.allocations);
  }
  return 0;
}
const role_registration completed_awaits_role("completed-awaits", completed_awaits);

void run_experiment(context& ctx) {
  const unsigned runs = ctx.pick(5u, 16u);
  const long awaits = ctx.pick(1'000'000L, 10'000'000L);
  const int core = usable_cores().front();
  const parameters params{{"awaits", awaits}, {"runs", runs}, {"core", core}};
  std::printf("  %s; %s\n", to_text(params).c_str(), describe_trimming(runs).c_str());
  const std::vector<turn> turns =
      turns_of_models("completed-awaits",
                      {"thread", "fiber", "fiber/restore", "fiber/capture", "thunk", "async1",
                       "async1_valuetask", "task"},
                      {{"awaits", std::to_string(awaits)}});
  const auto found = run_by_turns(ctx, turns, runs, core);
  table out({"variant", "ns, a value", "allocations", "ns, nothing", "allocations"});
  for (const turn& t : turns) {
    const auto of = found.find(t.variant);
    if (of == found.end()) continue;
    std::vector<std::string> row{t.variant};
    for (const char* const suffix : {"", "_void"}) {
      const std::string ns = std::string("ns_per_await") + suffix;
      const std::string allocations = std::string("allocations") + suffix;
      ctx.add(t.variant, ns, of->second.at(ns), "ns", params);
      ctx.add(t.variant, allocations, of->second.at(allocations), "1/await", params);
      row.push_back(fixed(of->second.at(ns), 2));
      row.push_back(fixed(of->second.at(allocations), 3));
    }
    out.row(row);
  }
  out.row({"published: .NET before", "12.0", "-", "16.3", "-"});
  out.row({"published: .NET after", "8.3", "-", "13.3", "-"});
  out.print();
}

const registration entry({"E18",
                          "awaiting what is complete already",
                          "the cost of an await that has nothing to wait for",
                          "waits that suspend (E12, E17)",
                          {"thread", "fiber/<stack>", "fiber/reserved/restore",
                           "fiber/reserved/capture", "thunk", "async1", "async1_valuetask", "task"},
                          run_experiment});

}  // namespace
}  // namespace bench
