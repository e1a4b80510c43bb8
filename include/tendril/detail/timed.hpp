// SPDX-License-Identifier: Apache-2.0
//
// What the primitives' waits have in common around wait_locked(): deadlines of foreign clocks, waking
// many, and the end of a wait after which the primitive may be destroyed.
#pragma once

#include <tendril/detail/waiting.hpp>

#include <chrono>
#include <cstddef>
#include <type_traits>
#include <utility>

namespace tendril::detail {

/// Calls attempt(steady deadline) until it returns true or t has passed on its own clock. A foreign
/// clock may be set while we wait, so it is asked again each time the steady deadline has passed.
template <class Clock, class Duration, class Attempt>
bool attempt_until(const std::chrono::time_point<Clock, Duration>& t, Attempt&& attempt) {
  if constexpr (std::is_same_v<Clock, clock>) {
    return attempt(deadline_at(t));
  } else {
    for (;;) {
      if (attempt(deadline_at(t))) return true;
      if (Clock::now() >= t) return false;
    }
  }
}

/// For timed forms that return bool: false for their own deadline, an exception for what is not.
inline bool signalled_in_time(outcome result, const char* what) {
  if (result == outcome::signalled) return true;
  if (result != outcome::timed_out) throw_outcome(result, what);
  return false;
}

/// After this the waker, which held `lock` when it chose us, does not touch the primitive any more,
/// so that we may destroy it. Normally a waiter is unparked after the waker's unlock and finds the
/// lock free; but a permit left over from an earlier wait can let it run before.
inline void await_waker(tiny_lock& lock) noexcept { lock.await_free(); }

/// Waiters to unpark once the lock is released. Bounded, so that it can live on the waker's stack
/// and the lock is held for a bounded time; who has more to wake does so in rounds.
class wake_batch {
 public:
  bool full() const noexcept { return count_ == capacity; }
  bool empty() const noexcept { return count_ == 0; }
  void add(waiter* w) noexcept { waiters_[count_++] = w; }
  /// Not under the lock.
  void unpark_all() noexcept {
    for (std::size_t i = 0; i != count_; ++i) unpark(waiters_[i]);
    count_ = 0;
  }

 private:
  static constexpr std::size_t capacity = 32;
  std::size_t count_ = 0;
  waiter* waiters_[capacity];
};

}  // namespace tendril::detail
