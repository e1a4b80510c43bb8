// SPDX-License-Identifier: Apache-2.0
//
// E19: what does a stack trace show? outer awaits middle, which awaits inner; each first awaits something
// else; inner then walks its own stack with the unwinder, as a debugger, a profiler or a crash handler would.
//
// Each of the three notes the function that its body runs in (for a coroutine that is what the compiler has
// made of the body, not what its caller calls), so frames are told apart by address and not by name.
//   frames          from inner to the end of the trace
//   foreign_frames  those between the user's functions that are not the user's
//   user_frames     how many of the three the trace shows: a coroutine that hands control on, or was resumed
//                   by a scheduler, is not on the stack of what it has called, and a thunk has a stack of its own
//   segment_frames  which of the foreign ones are __morestack: on segmented stacks a function that calls
//                   unsplit code is entered by way of it, and it stays on the stack until that one returns
// The column `trace` is the trace: I, M and O are the three, s is __morestack, a dot is a frame of somebody else.
//
// Twice: what each awaits first is complete already, or it is not and they have all been suspended.
//
// Does not show: how well names and lines are recovered; debuggers that know a runtime's own chain of
// continuations and print that instead.

#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>
#include <tendril/thunk.hpp>

#include <execinfo.h>
#include <unwind.h>

#include <algorithm>
#include <array>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

extern "C" [[gnu::weak]] void __morestack();  // in the program for segmented stacks only

namespace bench {
namespace {

/// The function of a frame, by where it goes on; null where no table says.
const void* function_of(void* returns_to) {
  // What a call returns to may already belong to the next function.
  return ::_Unwind_FindEnclosingFunction(static_cast<char*>(returns_to) - 1);
}

/// Stands between a function and its caller where they are on different segments; null where there are none.
const void* segment_change() {
  void (*volatile const f)() = &__morestack;
  return f == nullptr ? nullptr : ::_Unwind_FindEnclosingFunction(reinterpret_cast<char*>(f) + 1);
}

enum level : std::size_t { inner_level, middle_level, outer_level };

/// The trace of one run.
class tracer {
 public:
  /// First thing in each of the three, after what it awaits.
  [[gnu::noinline]] void here(level l) {
    std::array<void*, 8> returns;
    const int n = ::backtrace(returns.data(), static_cast<int>(returns.size()));
    const void* const self = function_of(returns[0]);
    for (int i = 1; i < n && functions_[l] == nullptr; ++i) {
      const void* const f = function_of(returns[static_cast<std::size_t>(i)]);
      if (f != self && f != segment_change()) functions_[l] = f;
    }
    if (functions_[l] == nullptr) throw std::runtime_error("E19: no unwind table for the caller");
  }

  /// By inner, after here().
  [[gnu::noinline]] void take() {
    std::array<void*, 256> returns;
    const int n = ::backtrace(returns.data(), static_cast<int>(returns.size()));
    for (int i = 0; i < n; ++i) {
      const void* const f = function_of(returns[static_cast<std::size_t>(i)]);
      const auto found = std::find(functions_.begin(), functions_.end(), f);
      char name = '.';
      if (f != nullptr && found != functions_.end()) name = "IMO"[found - functions_.begin()];
      else if (f != nullptr && f == segment_change()) name = 's';
      if (!shape_.empty() || name == 'I') shape_ += name;
    }
  }

  const std::string& shape() const noexcept { return shape_; }

 private:
  std::array<const void*, 3> functions_{};
  std::string shape_;
};

constexpr int expected_result = 6;

// --- plain functions, on a fiber or on a thread ------------------------------------------------------

/// `Wait` gives an int, 1 each time, after waiting for it or not.
template <class Wait>
struct functions {
  tracer& t;
  Wait wait;

  [[gnu::noinline]] int inner() {
    const int v = wait();
    t.here(inner_level);
    t.take();
    return v + 2;
  }
  [[gnu::noinline]] int middle() {
    const int v = wait();
    t.here(middle_level);
    return v + inner();
  }
  [[gnu::noinline]] int outer() {
    const int v = wait();
    t.here(outer_level);
    return v + middle() + 1;
  }
};

// Out of line: on segmented stacks it is these that call unsplit code, and not inner, middle and outer.

struct thread_wait {
  bool suspend;
  [[gnu::noinline]] int operator()() const {
    if (suspend) return std::async(std::launch::async, [] { return 1; }).get();
    std::promise<int> p;
    p.set_value(1);
    return p.get_future().get();
  }
};

struct fiber_wait {
  bool suspend;
  [[gnu::noinline]] int operator()() const {
    if (suspend) return tendril::async([] { return 1; }).get();
    return tendril::make_ready_future(1).get();
  }
};

int on_thread(tracer& t, bool suspend) { return functions<thread_wait>{t, {suspend}}.outer(); }

int on_fiber(tracer& t, bool suspend, const std::string& stack) {
  return tendril::run(runtime_with(stack, 1), [&t, suspend] {
    return functions<fiber_wait>{t, {suspend}}.outer();
  });
}

// --- the same functions, each called as a thunk: as a call that gives a future -----------------------

struct thunks {
  tracer& t;
  fiber_wait wait;

  [[gnu::noinline]] int inner() {
    const int v = wait();
    t.here(inner_level);
    t.take();
    return v + 2;
  }
  [[gnu::noinline]] int middle() {
    const int v = wait();
    t.here(middle_level);
    return v + tendril::thunk([this] { return inner(); })().get();
  }
  [[gnu::noinline]] int outer() {
    const int v = wait();
    t.here(outer_level);
    return v + tendril::thunk([this] { return middle(); })().get() + 1;
  }
};

int in_thunks(tracer& t, bool suspend) {
  return tendril::run(runtime_with("reserved", 1), [&t, suspend] {
    thunks all{t, {suspend}};
    return tendril::thunk([&all] { return all.outer(); })().get();
  });
}

// --- coroutines --------------------------------------------------------------------------------------

/// `Wait` gives an awaitable of int.
template <template <class> class Task, class Wait>
struct coroutines {
  static Task<int> inner(tracer& t, Wait wait) {
    const int v = co_await wait();
    t.here(inner_level);
    t.take();
    co_return v + 2;
  }
  static Task<int> middle(tracer& t, Wait wait) {
    const int v = co_await wait();
    t.here(middle_level);
    const int below = co_await inner(t, wait);
    co_return v + below;
  }
  static Task<int> outer(tracer& t, Wait wait) {
    const int v = co_await wait();
    t.here(outer_level);
    const int below = co_await middle(t, wait);
    co_return v + below + 1;
  }
};

int in_task(tracer& t, bool suspend) {
  tendril::runtime_options options;
  options.workers = 1;
  return tendril::run(options, [&t, suspend] {
    const auto wait = [suspend] {
      return suspend ? tendril::async([] { return 1; }) : tendril::make_ready_future(1);
    };
    return tendril::await(coroutines<tendril::task, decltype(wait)>::outer(t, wait));
  });
}

/// On a thread of the pool, as .NET's.
int in_async1(tracer& t, bool suspend) {
  async1::thread_pool pool(1);
  // Suspended: Task.Yield, then a result.
  const auto wait = [suspend]() -> async1::task<int> {
    if (suspend) co_await async1::yield{};
    co_return 1;
  };
  return pool.run([&] { return coroutines<async1_task, decltype(wait)>::outer(t, wait); });
}

int stack_trace(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const bool suspend = args.number("suspend", 0) != 0;
  const auto t = std::make_unique<tracer>();
  int result = 0;
  if (impl == "thread") result = on_thread(*t, suspend);
  else if (impl == "fiber") result = on_fiber(*t, suspend, args.text("stack", "reserved"));
  else if (impl == "thunk") result = in_thunks(*t, suspend);
  else if (impl == "async1") result = in_async1(*t, suspend);
  else if (impl == "task") result = in_task(*t, suspend);
  else
    throw std::invalid_argument("unknown --impl '" + impl +
                                "'; known: fiber, thread, thunk, async1, task");
  if (result != expected_result)
    throw std::runtime_error("E19: outer returned " + std::to_string(result));
  if (t->shape().empty()) throw std::runtime_error("E19: inner is not in its own trace");
  out.send("trace", t->shape());
  return 0;
}
const role_registration stack_trace_role("stack-trace", stack_trace);

struct counted {
  std::string trace;
  double frames;
  double foreign;
  double segment;
  double users;
};

counted trace_of(arguments args, bool suspend) {
  args.set("suspend", suspend ? "1" : "0");
  child_process child = child_process::start("stack-trace", args, any_core);
  const std::string trace = child.expect("trace");
  child.collect(std::chrono::seconds(10));
  const std::string users_span = trace.substr(0, trace.find_last_of("IMO") + 1);
  const auto segment = std::count(users_span.begin(), users_span.end(), 's');
  const auto foreign = segment + std::count(users_span.begin(), users_span.end(), '.');
  double users = 0;
  for (const char c : {'I', 'M', 'O'}) users += trace.find(c) != std::string::npos ? 1 : 0;
  return {trace, static_cast<double>(trace.size()), static_cast<double>(foreign),
          static_cast<double>(segment), users};
}

void run(context& ctx) {
  table out(
      {"variant", "awaited", "frames", "foreign", "user's of 3", "published frames", "trace"});
  const auto measure = [&](const std::string& variant, const arguments& args) {
    for (const bool suspend : {false, true})
      ctx.attempt(variant, [&] {
        const counted c = trace_of(args, suspend);
        const std::string suffix = suspend ? "_suspended" : "";
        const parameters params{{"suspended", suspend}};
        ctx.add(variant, "frames" + suffix, c.frames, "frames", params);
        ctx.add(variant, "foreign_frames" + suffix, c.foreign, "frames", params);
        ctx.add(variant, "segment_frames" + suffix, c.segment, "frames", params);
        ctx.add(variant, "user_frames" + suffix, c.users, "frames", params);
        out.row({variant, suspend ? "suspended" : "complete", fixed(c.frames, 0),
                 fixed(c.foreign, 0), fixed(c.users, 0), "-", c.trace});
      });
  };
  for (const std::string& stack : stack_variants())
    measure("fiber/" + stack, fiber_arguments(stack));
  measure("thread", {{"impl", "thread"}});
  measure("thunk", {{"impl", "thunk"}});
  measure("async1", {{"impl", "async1"}});
  measure("task", {{"impl", "task"}});
  out.row({"published: .NET async", "complete", "-", "-", "-", "13", "-"});
  out.row({"published: Runtime Async", "complete", "-", "-", "-", "5", "-"});
  out.print();
}

const registration entry(
    {"E19",
     "live stack trace: outer, middle, inner, seen from inner",
     "how many frames a trace has, and how many stand between the user's functions",
     "names and lines; what a debugger knows about continuations",
     {"fiber/<stack>", "thunk", "async1", "task", "thread"},
     run});

}  // namespace
}  // namespace bench
