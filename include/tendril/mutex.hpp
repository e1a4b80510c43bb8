// SPDX-License-Identifier: Apache-2.0
//
// Mutual exclusion between fibers, between threads, and between both: std's names and meaning.
//
// Taking a free mutex and giving it back without anybody waiting is one compare-exchange each. The
// rest is in src/sync/mutex.cpp, with its design.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/detail/waiting.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>  // std::unique_lock, std::lock_guard, std::scoped_lock work with these

namespace tendril {

class condition_variable;

/// Meets std's TimedLockable. May be given back by another fiber or thread than took it, as std's may
/// not. The last to unlock may destroy it, even while others are still returning from unlock().
///
/// Bounded unfairness: a running fiber may overtake waiters, but a waiter that was woken and found
/// the mutex taken again is handed it directly at the next unlock.
///
/// \threads all members from fibers and threads
/// \source  [thread.mutex.class], [thread.timedmutex.class]
class TENDRIL_API mutex {
 public:
  constexpr mutex() noexcept = default;
  mutex(const mutex&) = delete;
  mutex& operator=(const mutex&) = delete;

  /// \throws std::system_error  operation_canceled or timed_out (deadline_scope), only when it would
  ///                            have to wait; the mutex is not taken then
  /// \switch yes, when taken by another; on a thread: blocks it
  /// \cost   uncontended one compare-exchange; never allocates, save a thread's first wait
  void lock() {
    if (!take_free()) [[unlikely]]
      detail::require_signalled(lock_contended({.reason = "mutex::lock"}), "mutex::lock");
  }

  /// Never switches, never fails spuriously.
  bool try_lock() noexcept {
    std::uint32_t s = state_.load(std::memory_order_relaxed);
    while ((s & locked) == 0) {
      if (state_.compare_exchange_weak(s, s | locked, std::memory_order_acquire,
                                       std::memory_order_relaxed))
        return true;
    }
    return false;
  }

  /// False when the time has passed. \throws as lock()
  template <class Rep, class Period>
  bool try_lock_for(const std::chrono::duration<Rep, Period>& d) {
    return take_free() || lock_before(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& t) {
    return take_free() ||
           detail::attempt_until(t, [this](detail::time_point d) { return lock_before(d); });
  }

  /// Precondition: locked. Never switches.
  void unlock() noexcept {
    std::uint32_t s = locked;
    // Release: pairs with the acquire of whoever takes it next.
    if (!state_.compare_exchange_strong(s, 0, std::memory_order_release, std::memory_order_relaxed))
        [[unlikely]]
      unlock_contended();
  }

 private:
  friend class condition_variable;
  static constexpr std::uint32_t locked = 1, waiting = 2, woken = 4;

  bool take_free() noexcept {
    std::uint32_t s = 0;
    return state_.compare_exchange_strong(s, locked, std::memory_order_acquire,
                                          std::memory_order_relaxed);
  }
  bool lock_before(detail::time_point deadline);
  /// For condition variables: a wait must return with the mutex held, cancelled or not.
  void lock_uncancelable() {
    if (!take_free()) lock_contended({.cancelable = false, .reason = "mutex::lock"});
  }
  detail::outcome lock_contended(const detail::wait_options& options);
  void unlock_contended() noexcept;

  std::atomic<std::uint32_t> state_{0};
  detail::tiny_lock list_lock_;
  detail::wait_list waiters_;
};

using timed_mutex = mutex;

/// May be taken again by the fiber or thread that holds it. \source [thread.timedmutex.recursive]
class TENDRIL_API recursive_mutex {
 public:
  constexpr recursive_mutex() noexcept = default;
  recursive_mutex(const recursive_mutex&) = delete;
  recursive_mutex& operator=(const recursive_mutex&) = delete;

  void lock();
  bool try_lock();
  template <class Rep, class Period>
  bool try_lock_for(const std::chrono::duration<Rep, Period>& d) {
    return enter(mine() || mutex_.try_lock_for(d));
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& t) {
    return enter(mine() || mutex_.try_lock_until(t));
  }
  /// Precondition: held by the caller.
  void unlock();

 private:
  bool mine() const;
  bool enter(bool taken);

  mutex mutex_;
  std::atomic<detail::waiter*> owner_{nullptr};
  std::uint64_t depth_ = 0;
};

using recursive_timed_mutex = recursive_mutex;

}  // namespace tendril
