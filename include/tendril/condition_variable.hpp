// SPDX-License-Identifier: Apache-2.0
//
// Condition variables for fibers and threads: std's names and meaning, and std's stop_token waits
// for both classes.
//
// How a wait ends, in this order: a notification that reached it counts, even if its time passed or
// a stop was requested meanwhile; else its own stop token or deadline, returned as std does; else a
// stop request to the fiber (operation_canceled) or the deadline of a deadline_scope (timed_out),
// thrown. In every case the lock has been taken again before, which itself is never cancelled.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/ambient.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/mutex.hpp>

#include <chrono>
#include <condition_variable>  // std::cv_status
#include <cstdint>
#include <mutex>
#include <stop_token>
#include <utility>

namespace tendril {

using std::cv_status;

namespace detail {

/// The list of a condition variable. Who waits first announces itself, then gives its lock back, then
/// waits; a notification that comes in between finds it announced.
class TENDRIL_API notify_list {
 public:
  constexpr notify_list() noexcept = default;
  notify_list(const notify_list&) = delete;
  notify_list& operator=(const notify_list&) = delete;

  void notify_one() noexcept;
  void notify_all() noexcept;

  /// For any lock: announce(); give the lock back; wait_announced(), or retract() instead.
  std::uint32_t announce() noexcept;
  void retract() noexcept;
  outcome wait_announced(std::uint32_t ticket, const wait_options& options);

 protected:
  tiny_lock lock_;
  wait_list waiters_;
  std::uint32_t next_ = 0;  ///< numbers the waiters, so that notify_all can tell who came later
  std::uint32_t announced_ = 0;  ///< between announce() and wait_announced()
  std::uint32_t epoch_ = 0;      ///< grows when the announced are notified
};

/// The forms that are made of one wait(lock, options) -> outcome of the derived class.
template <class Derived>
class condition_waits {
 public:
  template <class Lock>
  void wait(Lock& lock) {
    require_signalled(self().wait_outcome(lock, {.reason = what}), what);
  }
  template <class Lock, class Predicate>
  void wait(Lock& lock, Predicate ready) {
    while (!ready()) wait(lock);
  }
  template <class Lock, class Clock, class Duration>
  cv_status wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& t) {
    return attempt_until(t, [&](time_point d) { return before(lock, d); }) ? cv_status::no_timeout
                                                                           : cv_status::timeout;
  }
  template <class Lock, class Clock, class Duration, class Predicate>
  bool wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& t, Predicate ready) {
    while (!ready())
      if (wait_until(lock, t) == cv_status::timeout) return ready();
    return true;
  }
  template <class Lock, class Rep, class Period>
  cv_status wait_for(Lock& lock, const std::chrono::duration<Rep, Period>& d) {
    return wait_until(lock, deadline_after(d));
  }
  template <class Lock, class Rep, class Period, class Predicate>
  bool wait_for(Lock& lock, const std::chrono::duration<Rep, Period>& d, Predicate ready) {
    return wait_until(lock, deadline_after(d), std::move(ready));
  }

  /// As std::condition_variable_any's: returns ready() when the stop was requested, never throws for
  /// it.
  template <class Lock, class Predicate>
  bool wait(Lock& lock, std::stop_token stop, Predicate ready) {
    while (!stop.stop_requested()) {
      if (ready()) return true;
      check(self().wait_outcome(lock, {.stop = &stop, .reason = what}), stop);
    }
    return ready();
  }
  template <class Lock, class Clock, class Duration, class Predicate>
  bool wait_until(Lock& lock, std::stop_token stop,
                  const std::chrono::time_point<Clock, Duration>& t, Predicate ready) {
    while (!stop.stop_requested()) {
      if (ready()) return true;
      const bool in_time = attempt_until(t, [&](time_point d) {
        return check(self().wait_outcome(lock, {.deadline = d, .stop = &stop, .reason = what}),
                     stop);
      });
      if (!in_time) return ready();
    }
    return ready();
  }
  template <class Lock, class Rep, class Period, class Predicate>
  bool wait_for(Lock& lock, std::stop_token stop, const std::chrono::duration<Rep, Period>& d,
                Predicate ready) {
    return wait_until(lock, std::move(stop), deadline_after(d), std::move(ready));
  }

 private:
  static constexpr const char* what = "condition_variable::wait";

  Derived& self() noexcept { return static_cast<Derived&>(*this); }
  template <class Lock>
  bool before(Lock& lock, time_point d) {
    return signalled_in_time(self().wait_outcome(lock, {.deadline = d, .reason = what}), what);
  }
  /// False when the wait's own deadline has passed; its own stop is found by the caller's loop.
  static bool check(outcome result, const std::stop_token& stop) {
    if (result == outcome::canceled && stop.stop_requested()) return true;
    return signalled_in_time(result, what);
  }
};

}  // namespace detail

/// With std::unique_lock<tendril::mutex>. Spurious wake-ups happen, as with std's.
///
/// \switch   wait*: yes. notify*: no
/// \threads  any; must outlive every wait (std's may be destroyed once all were notified)
/// \cost     notify without waiters: one exchange; no allocation
/// \source   [thread.condition.condvar]
class TENDRIL_API condition_variable : public detail::condition_waits<condition_variable>,
                                       private detail::notify_list {
 public:
  constexpr condition_variable() noexcept = default;

  using detail::notify_list::notify_all;
  using detail::notify_list::notify_one;

 private:
  friend detail::condition_waits<condition_variable>;
  detail::outcome wait_outcome(std::unique_lock<mutex>& lock, const detail::wait_options& options);
};

/// With anything that has lock() and unlock().
///
/// \source [thread.condition.condvarany]
class condition_variable_any : public detail::condition_waits<condition_variable_any>,
                               private detail::notify_list {
 public:
  constexpr condition_variable_any() noexcept = default;

  using detail::notify_list::notify_all;
  using detail::notify_list::notify_one;

 private:
  friend detail::condition_waits<condition_variable_any>;

  template <class Lock>
  detail::outcome wait_outcome(Lock& lock, const detail::wait_options& options) {
    const std::uint32_t ticket = announce();
    try {
      lock.unlock();
    } catch (...) {
      retract();
      throw;
    }
    const detail::outcome result = wait_announced(ticket, options);
    relock(lock);
    return result;
  }

  /// noexcept as std demands: without the lock there is no state to return to.
  template <class Lock>
  static void relock(Lock& lock) noexcept {
    const detail::shield shielded;
    lock.lock();
  }
};

}  // namespace tendril
