// SPDX-License-Identifier: Apache-2.0
//
// Counting semaphores for fibers and threads: std's names and meaning.
//
// Permits go to those who wait in the order they came; who finds a permit free takes it at once.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/contract.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/detail/waiting.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <limits>

namespace tendril {

namespace detail {

/// state_ = 2 * permits + (somebody may wait). While the low bit is set there are no permits, and
/// releasing goes through the list. Permits that were handed over are not in state_.
class TENDRIL_API semaphore_core {
 public:
  constexpr explicit semaphore_core(std::ptrdiff_t permits) noexcept : state_(2 * permits) {}
  semaphore_core(const semaphore_core&) = delete;
  semaphore_core& operator=(const semaphore_core&) = delete;

  bool try_acquire() noexcept {
    std::ptrdiff_t s = state_.load(std::memory_order_relaxed);
    while (s >= 2) {
      // Acquire: pairs with the release of who gave the permit.
      if (state_.compare_exchange_weak(s, s - 2, std::memory_order_acquire,
                                       std::memory_order_relaxed))
        return true;
    }
    return false;
  }
  outcome acquire_slow(const wait_options& options);

  void release(std::ptrdiff_t n, std::ptrdiff_t max) noexcept {
    std::ptrdiff_t s = state_.load(std::memory_order_relaxed);
    expects(n >= 0 && n <= max - s / 2, "counting_semaphore::release: more permits than max()");
    while ((s & 1) == 0) {
      if (state_.compare_exchange_weak(s, s + 2 * n, std::memory_order_release,
                                       std::memory_order_relaxed))
        return;
    }
    release_slow(n);
  }

 private:
  void release_slow(std::ptrdiff_t n) noexcept;

  std::atomic<std::ptrdiff_t> state_;
  tiny_lock lock_;
  wait_list waiters_;
};

}  // namespace detail

/// \threads any. Who has acquired may destroy it, even while release() is still returning.
/// \source  [thread.sema]
template <std::ptrdiff_t Max = std::numeric_limits<std::ptrdiff_t>::max() / 2>
class counting_semaphore {
  static_assert(Max >= 0 && Max <= std::numeric_limits<std::ptrdiff_t>::max() / 2);

 public:
  static constexpr std::ptrdiff_t max() noexcept { return Max; }

  constexpr explicit counting_semaphore(std::ptrdiff_t permits) noexcept : core_(permits) {
    detail::expects(permits >= 0 && permits <= Max,
                    "counting_semaphore: permits not in [0, max()]");
  }

  /// Never switches.
  void release(std::ptrdiff_t n = 1) noexcept { core_.release(n, Max); }

  /// \throws std::system_error  operation_canceled or timed_out (deadline_scope); no permit is taken
  /// \switch yes, unless a permit is free
  void acquire() {
    if (!core_.try_acquire())
      detail::require_signalled(core_.acquire_slow({.reason = "semaphore::acquire"}),
                                "semaphore::acquire");
  }
  bool try_acquire() noexcept { return core_.try_acquire(); }
  template <class Rep, class Period>
  bool try_acquire_for(const std::chrono::duration<Rep, Period>& d) {
    return core_.try_acquire() || acquire_before(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool try_acquire_until(const std::chrono::time_point<Clock, Duration>& t) {
    return core_.try_acquire() ||
           detail::attempt_until(t, [this](detail::time_point d) { return acquire_before(d); });
  }

 private:
  bool acquire_before(detail::time_point d) {
    return detail::signalled_in_time(
        core_.acquire_slow({.deadline = d, .reason = "semaphore::try_acquire_until"}),
        "semaphore::try_acquire_until");
  }

  detail::semaphore_core core_;
};

using binary_semaphore = counting_semaphore<1>;

}  // namespace tendril
