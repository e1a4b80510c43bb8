// SPDX-License-Identifier: Apache-2.0
//
// The program of E12 and E13, once for each model: run(d) calls run(d-1), down to run(0), which yields `yields`
// times and then returns or throws; run(top) does it over and over until the time is over, and counts. Three
// locals of each frame are used after the call (and, in frames that have a finally block, in it), so that they are
// kept across it and no call is a tail call.
//
// The third local is a double that the original divides by; with no yields that is a division by zero and a
// conversion to int of what cannot be converted. Here it is multiplied.
//
// Where a model yields: places.hpp.
#pragma once

#include "bench/models/async1/task.hpp"
#include "bench/models/lean/task.hpp"
#include "bench/scenario/runs_by_turns.hpp"

#include <tendril/ambient.hpp>
#include <tendril/fiber.hpp>
#include <tendril/task.hpp>

#include <chrono>
#include <cstdint>
#include <exception>

namespace bench::deep {

struct failure : std::exception {
  const char* what() const noexcept override { return "thrown at the bottom"; }
};

struct job {
  long top;
  long yields;
  bool throws;
  long finally_rate;  ///< frames whose depth is a multiple have a finally block
  std::chrono::nanoseconds window;
  lean::loop* loop = nullptr;  ///< where tasks yield
  std::int64_t sink = 0;
  bool failed = false;  ///< an iteration ended in another way than it should
};

inline constexpr long no_finally = 1000;
inline constexpr std::int64_t result_of_bottom = 8'375'983;

/// The three locals and what is done with them.
struct locals {
  locals(const job& j, long depth) noexcept
      : one(3 * depth + j.yields), two(depth), three(static_cast<double>(j.yields)) {}
  void use(job& j, long depth) const noexcept {
    j.sink = one + two + static_cast<std::int64_t>(three * 2) + depth;
  }
  long one;
  long two;
  double three;
};

/// A finally block.
struct finally {
  ~finally() { of.use(j, depth); }
  job& j;
  const locals& of;
  long depth;
};

/// Counts iterations of the top frame until its time is over.
class counter {
 public:
  explicit counter(const job& j) : time_(j.window) {}
  bool go_on() const { return time_.go_on(); }
  void returned(job& j, std::int64_t result) {
    if (j.throws || result != result_of_bottom) j.failed = true;
    ++iterations_;
  }
  void threw(job& j) {
    if (!j.throws) j.failed = true;
    ++iterations_;
  }
  double per_second() const { return time_.rate(iterations_); }

 private:
  timed_loop time_;
  double iterations_ = 0;
};

// --- ordinary code: threads and fibers --------------------------------------------------------------------

template <tendril::ambient_mode Mode>
[[gnu::noinline]] std::int64_t run_code(job& j, long depth) {
  const locals l(j, depth);
  if (depth == 0) {
    for (long y = 0; y != j.yields; ++y) tendril::this_fiber::yield();
    if (j.throws) throw failure();
    return result_of_bottom;
  }
  std::int64_t result = 0;
  const auto below = [&] {
    return tendril::ambient_flow::call<Mode>([&] { return run_code<Mode>(j, depth - 1); });
  };
  if (depth % j.finally_rate == 0) {
    const finally f{j, l, depth};
    result = below();
  } else {
    result = below();
  }
  l.use(j, depth);
  return result;
}

/// The top frame; call(j) is run_code(j, top - 1), or a thunk of it.
template <class Call>
double run_top(job& j, const Call& call) {
  counter c(j);
  while (c.go_on()) {
    try {
      c.returned(j, call(j));
    } catch (const failure&) {
      c.threw(j);
    }
  }
  return c.per_second();
}

// --- coroutines --------------------------------------------------------------------------------------------

/// What a coroutine type needs to know: how its frames yield, whether they let exceptions pass.
struct async1_traits {
  static auto yield(job&) { return async1::yield{}; }
  static std::suspend_never begin() { return {}; }
};
struct loop_traits {
  static auto yield(job& j) { return j.loop->yield(); }
  static std::suspend_never begin() { return {}; }
};
struct passing_traits : loop_traits {
  static tendril::pass_exceptions_t begin() { return tendril::pass_exceptions; }
};

template <class Handle, class Traits>
[[gnu::noinline]] Handle run_coroutine(job& j, long depth) {
  co_await Traits::begin();
  const locals l(j, depth);
  if (depth == 0) {
    for (long y = 0; y != j.yields; ++y) co_await Traits::yield(j);
    if (j.throws) throw failure();
    co_return result_of_bottom;
  }
  std::int64_t result = 0;
  if (depth % j.finally_rate == 0) {
    const finally f{j, l, depth};
    result = co_await run_coroutine<Handle, Traits>(j, depth - 1);
  } else {
    result = co_await run_coroutine<Handle, Traits>(j, depth - 1);
  }
  l.use(j, depth);
  co_return result;
}

template <class Top, class Handle, class Traits>
Top run_coroutine_top(job& j) {
  counter c(j);
  while (c.go_on()) {
    try {
      c.returned(j, co_await run_coroutine<Handle, Traits>(j, j.top - 1));
    } catch (const failure&) {
      c.threw(j);
    }
  }
  co_return c.per_second();
}

}  // namespace bench::deep
