// SPDX-License-Identifier: Apache-2.0
//
// Contexts that flow with control: where continuations run.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/flow.hpp>
#include <tendril/detail/waiting.hpp>

namespace tendril {

/// A callable of two words that is posted to a synchronization context: fits any queue, owns nothing.
struct posted_work {
  void (*run)(void* argument) noexcept;
  void* argument;
  void operator()() const noexcept { run(argument); }
};

/// Where the continuations of a flow of control run: a user interface's loop, a throttle, a strand. The
/// context that is current when somebody waits gets what follows the wait.
///
/// \threads post from any
class TENDRIL_API synchronization_context {
 public:
  virtual ~synchronization_context() = default;
  /// Queues work, which runs later, exactly once, never inside post.
  ///
  /// \throws std::bad_alloc
  virtual void post(posted_work work) = 0;

  /// The calling flow's; null: none.
  static synchronization_context* current() { return detail::this_flow().sync; }
};

namespace detail {

inline posted_work to_work(continuation& c) noexcept {
  return {[](void* p) noexcept {
            auto* const self = static_cast<continuation*>(p);
            self->run(self);
          },
          &c};
}

}  // namespace detail
}  // namespace tendril
