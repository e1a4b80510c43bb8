// SPDX-License-Identifier: Apache-2.0
//
// A gate that opens each time a set of participants has arrived: std::barrier for fibers and threads.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/contract.hpp>
#include <tendril/detail/waiting.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace tendril {

namespace detail {

struct no_completion {
  void operator()() const noexcept {}
};

class TENDRIL_API barrier_core {
 public:
  explicit barrier_core(std::ptrdiff_t expected) noexcept;
  barrier_core(const barrier_core&) = delete;
  barrier_core& operator=(const barrier_core&) = delete;

  /// True: the caller is the last of this phase; it runs the completion, then calls open().
  bool arrive(std::ptrdiff_t n, bool drop, std::uint32_t& phase) noexcept;
  void open() noexcept;
  outcome wait(std::uint32_t phase, const wait_options& options);

 private:
  tiny_lock lock_;
  wait_list waiters_;  // node.index: the phase waited for
  std::uint32_t phase_ = 0;
  std::ptrdiff_t expected_;  // of the next phase
  std::ptrdiff_t pending_;   // of this one
};

}  // namespace detail

/// The completion function runs on the last to arrive, before anybody is let through.
///
/// \source [thread.barrier]
template <class CompletionFunction = detail::no_completion>
class barrier {
  static_assert(std::is_nothrow_invocable_v<CompletionFunction&>,
                "a barrier's completion function must be noexcept");

 public:
  class arrival_token {
   public:
    arrival_token(arrival_token&&) noexcept = default;
    arrival_token& operator=(arrival_token&&) noexcept = default;
    ~arrival_token() = default;

   private:
    friend barrier;
    explicit arrival_token(std::uint32_t phase) noexcept : phase_(phase) {}
    std::uint32_t phase_;
  };

  static constexpr std::ptrdiff_t max() noexcept {
    return std::numeric_limits<std::ptrdiff_t>::max();
  }

  explicit barrier(std::ptrdiff_t expected, CompletionFunction f = CompletionFunction())
      : core_(expected), completion_(std::move(f)) {}

  /// Never switches, unless the completion function does.
  [[nodiscard]] arrival_token arrive(std::ptrdiff_t n = 1) {
    return arrival_token(enter(n, false));
  }
  /// \throws std::system_error  operation_canceled, timed_out (deadline_scope); the arrival stands
  /// \switch yes, unless the phase is over
  void wait(arrival_token&& arrival) { pass(arrival.phase_); }
  void arrive_and_wait() { pass(enter(1, false)); }
  void arrive_and_drop() { enter(1, true); }

 private:
  std::uint32_t enter(std::ptrdiff_t n, bool drop) {
    std::uint32_t phase;
    if (core_.arrive(n, drop, phase)) {
      completion_();
      core_.open();
    }
    return phase;
  }
  void pass(std::uint32_t phase) {
    detail::require_signalled(core_.wait(phase, {.reason = "barrier::wait"}), "barrier::wait");
  }

  detail::barrier_core core_;
  [[no_unique_address]] CompletionFunction completion_;
};

}  // namespace tendril
