// SPDX-License-Identifier: Apache-2.0
//
// E22: what flows with control, and where continuations run. Answers that are right or wrong, and are checked;
// and two costs.
//
//   values    An ambient value is "outer"; a callee sets "inner", waits or not, and returns. What does the
//             caller see? async1 restores at every call; fibers flow up, restore or capture as the caller
//             chooses; coroutines of ours run in the flow of who awaits them, so they flow up.
//   posts     1,000 awaits in a synchronization context that counts: how many go by way of it, and how many
//             with configure_await(false)?
//   deadlock  On the thread of a loop, code blocks on asynchronous code that wants to go on on that loop. The
//             async1 model hangs: a watchdog looks after half a second, and finds a continuation queued for a
//             thread that waits for it. A fiber that waits blocks nobody. A loop of ours refuses the wait.
//   cost      of a call in each mode, with a value set; the callee does nothing, and is not inlined
//
// Each in a process of its own: one of them does hang.
//
// Does not show: the cost of the modes in calls that are awaited (E11).

#include "bench/models/async1/contexts.hpp"
#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/context.hpp>
#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <deque>
#include <latch>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace bench {
namespace {

using namespace std::chrono_literals;

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

// --- posts -------------------------------------------------------------------------------------------

constexpr long awaits = 1000;

/// Counts what is posted; runs it when its owner says so, in the context.
class counting_context final : public tendril::synchronization_context {
 public:
  void post(tendril::posted_work work) override {
    ++posts_;
    queue_.push_back(work);
  }
  void run_queued() {
    const tendril::use_context here(this);
    for (; !queue_.empty(); queue_.pop_front()) queue_.front()();
  }
  long posts() const noexcept { return posts_; }

 private:
  std::deque<tendril::posted_work> queue_;  // one thread: no lock
  long posts_ = 0;
};

class async1_counting_context final : public async1::synchronization_context {
 public:
  void post(void (*run)(void*), void* argument) override {
    ++posts_;
    queue_.emplace_back(run, argument);
  }
  void run_queued() {
    set_current(this);
    for (; !queue_.empty(); queue_.pop_front()) queue_.front().first(queue_.front().second);
    set_current(nullptr);
  }
  long posts() const noexcept { return posts_; }

 private:
  std::deque<std::pair<void (*)(void*), void*>> queue_;
  long posts_ = 0;
};

/// Whoever waits asks for a value; it is set when the wait is under way, by somebody in no context.
struct asked {
  std::optional<tendril::promise<long>> wanted;
  long received = 0;

  tendril::future<long> ask() {
    tendril::promise<long> promise;
    tendril::future<long> value = promise.get_future();
    wanted = std::move(promise);
    return value;
  }
  void answer() {
    tendril::promise<long> promise = std::move(*wanted);
    wanted.reset();
    promise.set_value(1);
  }
};

long posts_of_fiber(const std::string& stack, bool on_context) {
  return tendril::run(runtime_with(stack, 1), [on_context] {
    struct shared {
      asked a;
      counting_context context;
    };
    const auto s = std::make_unique<shared>();
    tendril::fiber waiter([&s = *s, on_context] {
      const tendril::use_context here(&s.context);
      const tendril::configure_await_scope configured(on_context);
      for (long i = 0; i < awaits; ++i) s.a.received += s.a.ask().get();
    });
    // One worker: when the other has asked and this one runs, it is parked.
    while (s->a.received != awaits) {
      if (s->a.wanted) s->a.answer();
      s->context.run_queued();
      tendril::this_fiber::yield();
    }
    waiter.join();
    return s->context.posts();
  });
}

tendril::task<void> ask_many(asked& a, bool on_context) {
  for (long i = 0; i < awaits; ++i)
    a.received += co_await tendril::awaiting(a.ask(), tendril::configure_await(on_context));
}

long posts_of_task(bool on_context) {
  asked a;
  counting_context context;
  {
    const tendril::use_context here(&context);
    run_detached(ask_many(a, on_context));
  }
  for (long i = 0; i < awaits; ++i) {
    const tendril::use_context there(on_context ? nullptr : &context);
    a.answer();
    context.run_queued();
  }
  return a.received == awaits ? context.posts() : -1;
}

async1::task<void> await_all(std::deque<async1::completion_source<long>>& sources, long& received,
                             bool on_context) {
  for (auto& source : sources) {
    async1::task<long> value = source.get_task();
    received += co_await value.configure_await(on_context);
  }
}

long posts_of_async1(bool on_context) {
  std::deque<async1::completion_source<long>> sources;
  for (long i = 0; i < awaits; ++i) sources.emplace_back();
  long received = 0;
  async1_counting_context context;
  async1::synchronization_context::set_current(&context);
  const async1::task<void> all = await_all(sources, received, on_context);
  async1::synchronization_context::set_current(nullptr);
  for (auto& source : sources) {
    source.set_result(1);
    context.run_queued();
  }
  return all.is_completed() && received == awaits ? context.posts() : -1;
}

int count_posts(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  for (const bool on_context : {true, false}) {
    long posts = -1;
    if (impl == "async1") posts = posts_of_async1(on_context);
    else if (impl == "task") posts = posts_of_task(on_context);
    else posts = posts_of_fiber(args.text("stack", "reserved"), on_context);
    if (posts < 0) throw std::runtime_error("E22: values were lost on the way");
    out.send(on_context ? "posts" : "posts_off", static_cast<double>(posts));
  }
  return 0;
}
const role_registration count_posts_role("count-posts", count_posts);

void posts(context& ctx) {
  table out({"posts", "awaits", "posts", "with configure_await(false)", "check"});
  const auto measure = [&](const std::string& variant, const arguments& args) {
    ctx.attempt(variant, [&] {
      auto r = run_role("count-posts", args);
      const bool right = r.at("posts") == awaits && r.at("posts_off") == 0;
      const parameters params{{"awaits", awaits}};
      ctx.add(variant, "posts", r.at("posts"), "posts", params);
      ctx.add(variant, "posts_configure_await_false", r.at("posts_off"), "posts", params);
      out.row({variant, fixed(awaits, 0), fixed(r.at("posts"), 0), fixed(r.at("posts_off"), 0),
               right ? "pass" : "FAIL"});
      if (!right)
        ctx.fail(variant, "every await must be posted, and none with configure_await(false)");
    });
  };
  for (const std::string& stack : stack_variants())
    measure("fiber/" + stack, fiber_arguments(stack));
  measure("task", {{"impl", "task"}});
  measure("async1", {{"impl", "async1"}});
  out.print();
}

// --- deadlock ----------------------------------------------------------------------------------------

/// How the code on the loop's thread has ended.
class outcome {
 public:
  void finish(bool refused) {
    const std::lock_guard lock(mutex_);
    finished_ = true;
    refused_ = refused;
    changed_.notify_one();
  }
  /// The watchdog.
  bool finished_within(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, patience, [this] { return finished_; });
  }
  bool refused() {
    const std::lock_guard lock(mutex_);
    return refused_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool finished_ = false;
  bool refused_ = false;
};

/// .NET's loop of one thread: whoever calls run().
class async1_loop final : public async1::synchronization_context {
 public:
  void post(void (*run)(void*), void* argument) override {
    const std::lock_guard lock(mutex_);
    queue_.emplace_back(run, argument);
    queued_.notify_one();
  }
  [[noreturn]] void run() {
    set_current(this);
    for (;;) {
      std::unique_lock lock(mutex_);
      queued_.wait(lock, [this] { return !queue_.empty(); });
      const auto [run, argument] = queue_.front();
      queue_.pop_front();
      lock.unlock();
      run(argument);
    }
  }
  std::size_t queued() {
    const std::lock_guard lock(mutex_);
    return queue_.size();
  }

 private:
  std::mutex mutex_;
  std::condition_variable queued_;
  std::deque<std::pair<void (*)(void*), void*>> queue_;
};

/// Done by the pool, but not before the method that awaits it has given control back.
struct pool_item : async1::continuation {
  pool_item() : continuation(&run_item) {}
  static void run_item(continuation* c) noexcept {
    auto& self = static_cast<pool_item&>(*c);
    self.awaited.wait();
    self.done.set_result();
  }
  std::latch awaited{1};
  async1::completion_source<void> done;
};

async1::task<int> answer_from_pool(pool_item& item, bool on_context) {
  async1::task<void> done = item.done.get_task();
  co_await done.configure_await(on_context);
  co_return 42;
}

/// The process ends by _exit: the loop's thread is not to be had any more.
[[noreturn]] void block_in_async1(bool on_context, std::chrono::milliseconds patience,
                                  role_output& out) {
  static async1::thread_pool pool(1);
  static async1_loop loop;
  static pool_item item;
  static outcome result;
  static bool by_context = on_context;
  pool.post(item);
  loop.post(
      [](void*) {
        async1::task<int> answer = answer_from_pool(item, by_context);
        item.awaited.count_down();
        if (answer.get() == 42) result.finish(false);  // blocks the loop's thread
      },
      nullptr);
  std::thread([] { loop.run(); }).detach();
  const bool finished = result.finished_within(patience);
  out.send("finished", finished ? 1 : 0);
  out.send("refused", 0);
  out.send("queued", static_cast<double>(loop.queued()));
  ::_exit(0);
}

/// A fiber in the context of a loop waits for what a work queued on that loop does.
void wait_in_loop_by_fiber(const std::string& stack, std::chrono::milliseconds patience,
                           role_output& out) {
  tendril::loop_context loop;
  outcome result;
  tendril::runtime runtime(runtime_with(stack, 1));
  std::thread ui([&] { loop.run(); });
  loop.post([&] {
    runtime.spawn([&] {
      const tendril::use_context here(&loop);
      const auto promise = std::make_unique<tendril::promise<int>>();
      tendril::future<int> answer = promise->get_future();
      loop.post([&p = *promise] { p.set_value(42); });
      if (answer.get() == 42) result.finish(false);
    });
  });
  const bool finished = result.finished_within(patience);
  out.send("finished", finished ? 1 : 0);
  out.send("refused", 0);
  out.send("queued", static_cast<double>(loop.queued()));
  runtime.drain();
  loop.stop();
  ui.join();
}

/// The thread of a loop of ours waits for what a work queued on that loop would do.
void wait_in_loop_by_host(std::chrono::milliseconds patience, role_output& out) {
  std::string report;
  tendril::loop_context loop({.name = "ui",
                              .on_self_wait = tendril::self_wait_policy::fail,
                              .self_wait_grace = 20ms,
                              .on_report = [&](std::string_view text) { report = text; }});
  outcome result;
  std::thread ui([&] { loop.run(); });
  tendril::promise<int> promise;
  tendril::future<int> answer = promise.get_future();
  loop.post([&] {
    loop.post([&] { promise.set_value(42); });
    try {
      answer.get();
      result.finish(false);
    } catch (const std::system_error& e) {
      result.finish(e.code() == tendril::errc::would_deadlock);
    }
  });
  const bool finished = result.finished_within(patience);
  out.send("finished", finished ? 1 : 0);
  out.send("refused", result.refused() ? 1 : 0);
  loop.stop();
  ui.join();
  out.send("queued", static_cast<double>(loop.queued()));
  if (report.find("ui") == std::string::npos)
    throw std::runtime_error("E22: the loop's report does not name it: " + report);
}

int sync_over_async(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const std::chrono::milliseconds patience(args.number("patience-ms"));
  if (impl == "async1") block_in_async1(args.number("on-context", 1) != 0, patience, out);
  if (impl == "fiber") wait_in_loop_by_fiber(args.text("stack", "reserved"), patience, out);
  else if (impl == "loop_context") wait_in_loop_by_host(patience, out);
  else
    throw std::invalid_argument("unknown --impl '" + impl +
                                "'; known: async1, fiber, loop_context");
  return 0;
}
const role_registration sync_over_async_role("sync-over-async", sync_over_async);

void deadlock(context& ctx) {
  const int patience_ms = 500;
  std::printf(
      "  blocking on what wants to go on on the blocked loop; the watchdog looks after %d ms\n",
      patience_ms);
  table out({"deadlock", "finished", "works queued for it", "expected", "check"});
  const auto measure = [&](const std::string& variant, arguments args, bool hangs, bool refused) {
    ctx.attempt(variant, [&] {
      args.set("patience-ms", std::to_string(patience_ms));
      auto r = run_role("sync-over-async", args);
      const bool deadlocked = r.at("finished") == 0 && r.at("queued") > 0;
      const bool right = deadlocked == hangs && (r.at("finished") == 0) == hangs &&
                         (r.at("refused") != 0) == refused;
      const parameters params{{"patience_ms", patience_ms}};
      ctx.add(variant, "deadlocked", deadlocked ? 1 : 0, "bool", params);
      ctx.add(variant, "refused", r.at("refused"), "bool", params);
      out.row({variant,
               r.at("refused") != 0    ? "refused: would_deadlock"
               : r.at("finished") != 0 ? "yes"
                                       : "no",
               fixed(r.at("queued"), 0),
               hangs     ? "hangs"
               : refused ? "is refused"
                         : "finishes",
               right ? "pass" : "FAIL"});
      if (!right) ctx.fail(variant, "did not end as it must");
    });
  };
  measure("async1", {{"impl", "async1"}, {"on-context", "1"}}, true, false);
  measure("async1 configure_await(false)", {{"impl", "async1"}, {"on-context", "0"}}, false, false);
  for (const std::string& stack : stack_variants())
    measure("fiber/" + stack, fiber_arguments(stack), false, false);
  measure("loop_context", {{"impl", "loop_context"}}, false, true);
  out.print();
}

void run(context& ctx) {
  for (const auto part : {values, cost, posts, deadlock}) {
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
