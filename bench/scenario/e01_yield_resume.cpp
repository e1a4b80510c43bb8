// SPDX-License-Identifier: Apache-2.0
//
// E1: what does it cost to wait for a value and be resumed when it comes? One worker, two fibers: one
// makes a promise, waits on its future and counts; the other sets the value and lets the first run.
// A pair is one such round: a promise made and destroyed, a wait, a wake, two switches.
// Beside it the same dialogue of two std::threads on one core by a condition variable: two context
// switches of the kernel.
//
// Does not show: waking another core, contention, deep stacks.

#include "bench/scenario/variants.hpp"
#include "bench/scenario/windows.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

namespace bench {
namespace {

struct measured {
  std::vector<double> figures;
  std::uint64_t set = 0;      // by the setter
  std::uint64_t counted = 0;  // by the waiter
};

measured yield_resume_fibers(const window_plan& plan, const std::string& stack) {
  struct shared {
    std::optional<tendril::promise<bool>> wanted;
    measured m;
  };
  const auto s = std::make_unique<shared>();
  tendril::run(runtime_with(stack, 1), [&plan, &s = *s] {
    tendril::fiber waiter([&s] {
      for (bool go_on = true; go_on;) {
        tendril::promise<bool> promise;
        tendril::future<bool> value = promise.get_future();
        s.wanted = std::move(promise);
        go_on = value.get();
        ++s.m.counted;
      }
    });
    const auto answer = [&s](bool go_on) {
      while (!s.wanted) tendril::this_fiber::yield();
      tendril::promise<bool> promise = std::move(*s.wanted);
      s.wanted.reset();
      promise.set_value(go_on);
      ++s.m.set;
      tendril::this_fiber::yield();
    };
    s.m.figures = time_windows(plan, [&] { answer(true); });
    answer(false);
    waiter.join();
  });
  return std::move(s->m);
}

measured yield_resume_threads(const window_plan& plan) {
  std::mutex mutex;
  std::condition_variable changed;
  enum class turn { setter, waiter, over } whose = turn::setter;
  measured m;
  std::thread waiter([&] {
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [&] { return whose != turn::setter; });
      if (whose == turn::over) return;
      ++m.counted;
      whose = turn::setter;
      changed.notify_one();
    }
  });
  m.figures = time_windows(plan, [&] {
    std::unique_lock lock(mutex);
    whose = turn::waiter;
    ++m.set;
    changed.notify_one();
    changed.wait(lock, [&] { return whose == turn::setter; });
  });
  {
    const std::lock_guard lock(mutex);
    whose = turn::over;
    changed.notify_one();
  }
  waiter.join();
  return m;
}

int yield_resume(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  measured m;
  if (impl == "fiber")
    m = yield_resume_fibers(window_plan::from(args, 1024), args.text("stack", "reserved"));
  else if (impl == "thread") m = yield_resume_threads(window_plan::from(args, 64));
  else throw std::invalid_argument("unknown --impl '" + impl + "'; known: fiber, thread");
  if (m.set != m.counted)
    throw std::runtime_error("values were lost: " + std::to_string(m.set) + " set, " +
                             std::to_string(m.counted) + " seen");
  send_windows(out, m.figures);
  return 0;
}
const role_registration yield_resume_role("yield-resume", yield_resume);

void run(context& ctx) {
  const int windows = ctx.pick(5, 8);
  const int window_ms = ctx.pick(200, 500);
  const int core = usable_cores().front();
  const parameters params{
      {"windows", windows}, {"window_ms", window_ms}, {"workers", 1}, {"core", core}};
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
  for (const std::string& stack : stack_variants())
    measure("fiber/" + stack, "yield-resume", fiber_arguments(stack), "500");
  measure("thread", "yield-resume", {{"impl", "thread"}}, "8,000");
  for (const char* model : {"task", "async1"})  // E2
    measure(model, "await-continue", {{"impl", model}}, "110");
  out.print();
}

const registration entry({"E1",
                          "yield-resume: wait for a promise, be resumed by another fiber",
                          "the cost of one wait and wake on one worker, promise included",
                          "waking another core, contention, deep stacks",
                          {"fiber/<stack>", "thread", "task", "async1"},
                          run});

}  // namespace
}  // namespace bench
