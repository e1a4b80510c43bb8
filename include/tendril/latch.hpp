// SPDX-License-Identifier: Apache-2.0
//
// A counter that opens a gate when it reaches zero, once: std::latch for fibers and threads.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/contract.hpp>
#include <tendril/detail/waiting.hpp>

#include <atomic>
#include <cstddef>
#include <limits>

namespace tendril {

/// \threads any. Who has returned from wait() may destroy it, even while the last count_down() is
///          still returning.
/// \source  [thread.latch]
class TENDRIL_API latch {
 public:
  static constexpr std::ptrdiff_t max() noexcept {
    return std::numeric_limits<std::ptrdiff_t>::max();
  }

  constexpr explicit latch(std::ptrdiff_t expected) noexcept : count_(expected) {
    detail::expects(expected >= 0, "latch: negative count");
  }
  latch(const latch&) = delete;
  latch& operator=(const latch&) = delete;

  /// Never switches.
  void count_down(std::ptrdiff_t n = 1) noexcept;
  bool try_wait() const noexcept;
  /// \throws std::system_error  operation_canceled, timed_out (deadline_scope)
  /// \switch yes, unless open
  void wait() const;
  /// The arrival stands even if the wait throws.
  void arrive_and_wait(std::ptrdiff_t n = 1) {
    count_down(n);
    wait();
  }

 private:
  // Becomes zero under the lock only: who reads zero and then takes the lock comes after the opener.
  std::atomic<std::ptrdiff_t> count_;
  mutable detail::tiny_lock lock_;
  mutable detail::wait_list waiters_;
};

}  // namespace tendril
