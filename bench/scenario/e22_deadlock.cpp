// SPDX-License-Identifier: Apache-2.0
//
// E22, blocking on asynchronous code: on the thread of a loop, code waits for what wants to go on on that loop.
// The async1 model hangs. A watchdog looks after half a second and finds a continuation queued for a thread that
// waits for it; the process is then ended as it is. A fiber that waits blocks nobody. A loop of ours refuses the
// wait of its own thread.

#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/e22_parts.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/context.hpp>
#include <tendril/error.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>

#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <deque>
#include <latch>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace bench {
namespace {

using namespace std::chrono_literals;

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

}  // namespace

void report_deadlock(context& ctx) {
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

}  // namespace bench
