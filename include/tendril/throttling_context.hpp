// SPDX-License-Identifier: Apache-2.0
//
// throttling_context: at most so many works at a time, over another context or the runtime.
#pragma once

#include <tendril/config.hpp>
#include <tendril/synchronization_context.hpp>

#include <cstddef>
#include <memory>

namespace tendril {

/// Runs works in the order in which they were posted, at most `limit` at a time: each as a work of the inner
/// context, or, without one, on a fiber of the runtime. A limit of 1 is a strand.
///
/// A work counts while it runs. The resumption of a fiber is a short one: it wakes the fiber, and does not
/// count what the fiber does then.
///
/// While a work runs, this is the context in force, and its flow the host.
class TENDRIL_API throttling_context final : public synchronization_context {
 public:
  /// \param limit  1 or more
  /// \param inner  outlives this; null: the calling runtime's, or else the latest runtime's, fibers
  /// \throws std::system_error errc::invalid_option
  explicit throttling_context(std::size_t limit, synchronization_context* inner = nullptr);
  /// Waits until all works have run.
  /// \pre  nobody posts any more
  /// \switch yes, while there are works
  ~throttling_context() override;

  /// \throws std::bad_alloc; std::system_error errc::no_runtime; what the inner context's post throws
  void post(posted_work work) override;

  /// Works that run now, or have been handed to the inner context.
  std::size_t active() const noexcept;
  /// Works that wait for their turn.
  std::size_t queued() const noexcept;

 private:
  struct state;
  std::unique_ptr<state> state_;
};

}  // namespace tendril
