// SPDX-License-Identifier: Apache-2.0
//
// What thunks need of the scheduler: a fiber that starts *hot*, as a call on the caller's thread. Design and
// invariants: src/sched/hot_start.hpp.
//
//   the caller's stack           the fiber's stack
//   hot_body  -------------->    run(body): takes the arguments over, writes the result to sink.result, or to
//                                sink.state once it has suspended; returns the sink
//   suspended(body, sink)  <---  at its first suspension: makes the state, while nobody else can run it
//
// run() is the first function on the fiber's stack, entered by the change of stacks itself: every call in between
// and its return are some 5 cycles of the 25 to 30 that a thunk takes which does not wait.
#pragma once

#include <tendril/config.hpp>

#include <cstdint>
#include <exception>

namespace tendril {

struct fiber_options;

namespace detail {

struct fiber_core;
class future_state_base;
struct hot_body;

/// Where the result goes. The fiber's; two words, which a function returns in registers.
struct hot_sink {
  void* result;  ///< the caller's, until the fiber suspends; then null
  future_state_base* state =
      nullptr;  ///< from then on; null: there was no memory for it, the result is dropped
};

struct hot_ops {
  /// What the fiber does. Returns its sink, as it is then: the state, if there is one, waits to be published.
  hot_sink (*run)(hot_body& body) noexcept;
  /// On the caller's side; never waits.
  void (*suspended)(hot_body& body, hot_sink& sink) noexcept;
};

/// On the caller's stack: gone once the fiber has suspended.
struct hot_body {
  hot_body(const hot_ops* what, void* to) noexcept : ops(what), result(to) {}

  const hot_ops* ops;
  void* result;
  hot_sink* sink;  ///< these two are start_hot()'s
  fiber_core* fiber;
};

struct hot_options {
  std::uint64_t runtime = 0;        ///< its serial number; 0: the current one
  std::uint8_t stack_class = 0xFF;  ///< 0xFF: the runtime's default
  std::int8_t affinity = -1;        ///< from its first suspension on
  bool stack_only = false;          ///< no name and no affinity
  char name[32] = {};
};

/// \throws std::system_error  errc::invalid_option; std::errc::not_supported
TENDRIL_API hot_options make_hot_options(const fiber_options& options);
/// Starts a fiber as a call. True: it has ended, and body.result is written. False: it has suspended and goes
/// on as an ordinary fiber; ops->suspended was called.
///
/// \throws std::system_error  errc::no_runtime, errc::runtime_stopping; std::bad_alloc. Nothing has run then
/// \switch no
/// \threads any
TENDRIL_API bool start_hot(hot_body& body);
TENDRIL_API bool start_hot(hot_body& body, const hot_options& options);

}  // namespace detail
}  // namespace tendril
