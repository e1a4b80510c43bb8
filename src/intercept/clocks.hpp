// SPDX-License-Identifier: Apache-2.0
//
// Deadlines of libc's calls, on the clock that they name, as deadlines of waits.
#pragma once

#include <tendril/detail/waiting.hpp>

#include <time.h>

#include <chrono>

#include "intercept/copy_in.hpp"

namespace tendril::detail {

inline bool is_valid(const timespec& t) noexcept {
  return t.tv_nsec >= 0 && t.tv_nsec < 1'000'000'000;
}

/// A time at an address of the program's; false: EFAULT. For functions whose time the kernel reads; of others libc
/// does, which comes to a fault.
inline bool fetch_time(timespec& to, const timespec* from) noexcept {
  return from != nullptr && copy_in(&to, from, sizeof to);
}

/// Saturates.
inline std::chrono::nanoseconds duration_of(const timespec& t) noexcept {
  using std::chrono::nanoseconds;
  constexpr time_t most = nanoseconds::max().count() / 1'000'000'000 - 1;
  if (t.tv_sec > most) return nanoseconds::max();
  if (t.tv_sec < -most) return nanoseconds::min();
  return nanoseconds(t.tv_sec * std::int64_t{1'000'000'000} + t.tv_nsec);
}

/// A point of time of a clock that has an epoch of its own and may be set.
struct clock_deadline {
  clockid_t which = CLOCK_MONOTONIC;
  timespec at{};
  bool never = true;

  static clock_deadline none() noexcept { return {}; }
  static clock_deadline of(clockid_t which, const timespec& at) noexcept {
    return {which, at, false};
  }

  std::chrono::nanoseconds left() const noexcept {
    timespec now{};
    ::clock_gettime(which, &now);
    time_t seconds = 0;
    if (__builtin_sub_overflow(at.tv_sec, now.tv_sec, &seconds) || seconds > 3'000'000'000 ||
        seconds < -1)
      return at.tv_sec < now.tv_sec ? std::chrono::nanoseconds(-1)
                                    : std::chrono::nanoseconds::max();
    return std::chrono::nanoseconds(seconds * std::int64_t{1'000'000'000} + at.tv_nsec -
                                    now.tv_nsec);
  }
  bool over() const noexcept { return !never && left().count() <= 0; }
  /// For a wait from now on; when that is over, over() tells whether the clock has been set back meanwhile.
  time_point for_wait() const noexcept { return never ? no_deadline : deadline_after(left()); }
};

}  // namespace tendril::detail
