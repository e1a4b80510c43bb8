// SPDX-License-Identifier: Apache-2.0
//
// E22, how many awaits go by way of a synchronization context: all that wait in one, none with
// configure_await(false). Whoever waits asks for a value, which is set when the wait is under way, by somebody in
// no context; so each wait is one. All on one thread.

#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/e22_parts.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/context.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>

#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace bench {
namespace {

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

/// What is asked for.
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

}  // namespace

void report_posts(context& ctx) {
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

}  // namespace bench
