// SPDX-License-Identifier: Apache-2.0
//
// E5: does waiting cost more, the deeper one is? Go down d calls, wait there for an empty task that has
// just been posted to the pool, come back. A thread and a fiber keep their stack where it is while they
// wait, so that d costs the calls down and back and nothing else; a chain of d coroutines suspends and
// resumes each of its links.
//   fiber/X      waits for the future of an empty fiber
//   thread       waits for the future of an empty task run by another thread
//   task         a chain of d tendril::tasks, whose last awaits the future of an empty fiber
//   async1       a chain of d methods of the model, whose last awaits an empty task of its pool
//   fiber->task  d calls on a fiber; at the bottom it awaits a coroutine that awaits the future of an empty fiber
//   task->fiber  a chain of d tendril::tasks, whose last awaits a fiber that waits for an empty fiber
// One core, one worker (or one thread in the pool): what is compared is the waiting, not waking another
// core. The figure of depth d is the whole round; ns_per_level is how much each further level adds to it.
//
// A thread's levels are dear for another reason: when the kernel has switched, the processor has forgotten
// where calls return to, and predicts each return of a deep chain wrongly.
//
// Does not show: frames larger than a few words; levels that do something.

#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/recursion.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/scenario/windows.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace bench {
namespace {

constexpr std::array depths{0L, 10L, 100L, 1000L};
constexpr std::size_t reserved_bytes = std::size_t{1} << 20;  // many times what 1,000 frames take

struct measured {
  std::vector<double> figures;
  std::uint64_t waits = 0;
  std::uint64_t ran = 0;  // empty tasks that have
};

/// A pool of one thread.
class one_thread {
 public:
  one_thread() : thread_([this] { work(); }) {}
  ~one_thread() {
    post({});
    thread_.join();
  }
  void post(std::function<void()> f) {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(f));
    queued_.notify_one();
  }

 private:
  void work() {
    for (;;) {
      std::unique_lock lock(mutex_);
      queued_.wait(lock, [this] { return !queue_.empty(); });
      const std::function<void()> f = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      if (!f) return;
      f();
    }
  }

  std::mutex mutex_;
  std::condition_variable queued_;
  std::deque<std::function<void()>> queue_;
  std::thread thread_;
};

measured wait_in_thread(const window_plan& plan, long depth) {
  measured m;
  one_thread pool;
  auto wait = [&] {
    std::promise<void> promise;
    std::future<void> done = promise.get_future();
    pool.post([&] {
      ++m.ran;
      promise.set_value();
    });
    done.get();
    ++m.waits;
  };
  m.figures = time_windows(plan, [&] { recurse(depth, wait); });
  return m;
}

measured wait_in_fiber(const window_plan& plan, long depth, const std::string& stack) {
  tendril::runtime_options options = runtime_with(stack, 1);
  if (options.stack.kind == tendril::stack_kind::reserved) options.stack.bytes = reserved_bytes;
  const auto m = std::make_unique<measured>();
  tendril::run(options, [&plan, &m = *m, depth] {
    auto wait = [&m] {
      tendril::async([&m] { ++m.ran; }).get();
      ++m.waits;
    };
    m.figures = time_windows(plan, [&] { recurse(depth, wait); });
  });
  return std::move(*m);
}

// --- coroutines --------------------------------------------------------------------------------------

tendril::runtime_options one_worker() {
  tendril::runtime_options options;
  options.workers = 1;
  options.stack.bytes = reserved_bytes;
  return options;
}

/// co_await leaf(m) at the end of a chain of d coroutines, over and over.
template <template <class> class Task, auto leaf>
struct chain {
  static Task<void> link(measured& m, long depth) {
    if (depth != 0) co_await link(m, depth - 1);
    else co_await leaf(m);
  }
  static Task<void> measure(const window_plan& plan, measured& m, long depth) {
    window_clock windows(plan);
    while (windows.go_on()) {
      co_await link(m, depth);
      ++m.waits;
    }
    m.figures = windows.take_figures();
  }
};

/// Of a coroutine.
auto empty_fiber(measured& m) {
  return tendril::async([&m] { ++m.ran; });
}

auto fiber_that_waits(measured& m) {
  return tendril::async([&m] { empty_fiber(m).get(); });
}

template <auto leaf>
measured wait_in_task(const window_plan& plan, long depth) {
  const auto m = std::make_unique<measured>();
  tendril::run(one_worker(), [&plan, &m = *m, depth] {
    tendril::await(chain<tendril_task, leaf>::measure(plan, m, depth));
  });
  return std::move(*m);
}

tendril::task<void> await_empty_fiber(measured& m) { co_await empty_fiber(m); }

measured wait_for_task_in_fiber(const window_plan& plan, long depth) {
  const auto m = std::make_unique<measured>();
  tendril::run(one_worker(), [&plan, &m = *m, depth] {
    auto wait = [&m] {
      tendril::await(await_empty_fiber(m));
      ++m.waits;
    };
    m.figures = time_windows(plan, [&] { recurse(depth, wait); });
  });
  return std::move(*m);
}

/// An item of the pool and the task of its end.
struct empty_item : async1::continuation {
  explicit empty_item(measured& counts) : continuation(&run_item), m(counts) {}
  static void run_item(continuation* c) noexcept {
    auto& self = static_cast<empty_item&>(*c);
    ++self.m.ran;
    self.done.set_result();  // resumes who awaits it, and with that may end *c
  }
  measured& m;
  async1::completion_source<void> done;
};

async1::task<void> await_empty_item(measured& m) {
  empty_item item(m);
  async1::thread_pool::installed().post(item);
  co_await item.done.get_task();
}

measured wait_in_async1(const window_plan& plan, long depth) {
  measured m;
  async1::thread_pool pool(1);
  pool.run([&] { return chain<async1_task, await_empty_item>::measure(plan, m, depth); });
  return m;
}

int deep_wait(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const long depth = args.number("depth");
  const window_plan plan = window_plan::from(args, 16);
  measured m;
  if (impl == "thread") m = wait_in_thread(plan, depth);
  else if (impl == "fiber") m = wait_in_fiber(plan, depth, args.text("stack", "reserved"));
  else if (impl == "task") m = wait_in_task<empty_fiber>(plan, depth);
  else if (impl == "async1") m = wait_in_async1(plan, depth);
  else if (impl == "fiber->task") m = wait_for_task_in_fiber(plan, depth);
  else if (impl == "task->fiber") m = wait_in_task<fiber_that_waits>(plan, depth);
  else
    throw std::invalid_argument("unknown --impl '" + impl +
                                "'; known: fiber, thread, task, async1, fiber->task, task->fiber");
  if (m.waits != m.ran || m.waits == 0)
    throw std::runtime_error(std::to_string(m.waits) + " waits, but " + std::to_string(m.ran) +
                             " tasks have run");
  send_windows(out, m.figures);
  return 0;
}
const role_registration deep_wait_role("deep-wait", deep_wait);

void run(context& ctx) {
  const int windows = ctx.pick(3, 8);
  const int window_ms = ctx.pick(40, 250);
  const int core = usable_cores().front();
  std::printf("  windows=%d window_ms=%d workers=1 core=%d; ns a wait, at depth\n", windows,
              window_ms, core);
  std::vector<std::string> head{"variant"};
  for (const long depth : depths) head.push_back(fixed(static_cast<double>(depth), 0));
  head.insert(head.end(), {"ns per level", "published"});
  table out(head);
  const auto measure = [&](const std::string& variant, arguments args, const char* published) {
    ctx.attempt(variant, [&] {
      args.set("windows", std::to_string(windows));
      args.set("window-ms", std::to_string(window_ms));
      std::vector<std::string> cells{variant};
      std::map<long, double> ns;
      for (const long depth : depths) {
        args.set("depth", std::to_string(depth));
        auto r = run_role("deep-wait", args, core);
        ns[depth] = r.at("median");
        const parameters params{
            {"depth", depth}, {"windows", windows}, {"window_ms", window_ms}, {"core", core}};
        const std::string name = "ns_per_wait_" + std::to_string(depth);
        ctx.add(variant, name, r.at("median"), "ns", params);
        ctx.add(variant, name + "_q1", r.at("q1"), "ns", params);
        ctx.add(variant, name + "_q3", r.at("q3"), "ns", params);
        cells.push_back(fixed(ns[depth], 0));
      }
      const long deepest = depths.back();
      const double level = (ns[deepest] - ns[0]) / static_cast<double>(deepest);
      ctx.add(variant, "ns_per_level", level, "ns", {{"from", 0}, {"to", deepest}});
      cells.insert(cells.end(), {fixed(level, 2), published});
      out.row(cells);
    });
  };
  for (const std::string& stack : stack_variants())
    measure("fiber/" + stack, fiber_arguments(stack), "as thread");
  measure("thread", {{"impl", "thread"}}, "-");
  measure("task", {{"impl", "task"}}, "grows with depth");
  measure("async1", {{"impl", "async1"}}, "grows with depth");
  measure("fiber->task", {{"impl", "fiber->task"}}, "-");
  measure("task->fiber", {{"impl", "task->fiber"}}, "-");
  out.print();
}

const registration entry({"E5",
                          "deep wait: down d calls, wait there for an empty task, back",
                          "what waiting costs as a function of the depth of the call chain",
                          "large frames, waking another core",
                          {"fiber/<stack>", "thread", "task", "async1", "fiber->task",
                           "task->fiber"},
                          run});

}  // namespace
}  // namespace bench
