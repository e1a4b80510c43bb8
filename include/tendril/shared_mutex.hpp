// SPDX-License-Identifier: Apache-2.0
//
// A mutex for many readers or one writer: std's names and meaning.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/detail/waiting.hpp>

#include <chrono>
#include <cstdint>
#include <shared_mutex>  // std::shared_lock works with it

namespace tendril {

/// First come, first served: a reader that comes while a writer waits queues behind it, so neither
/// side starves; readers that stand together are let in together. A fiber that holds it shared and
/// takes it shared again may therefore deadlock with a waiting writer, as with std's.
///
/// \threads any. The last to unlock may destroy it.
/// \cost    each operation one exchange and a few loads, uncontended
/// \source  [thread.sharedtimedmutex.class]
class TENDRIL_API shared_mutex {
 public:
  constexpr shared_mutex() noexcept = default;
  shared_mutex(const shared_mutex&) = delete;
  shared_mutex& operator=(const shared_mutex&) = delete;

  /// \throws std::system_error  operation_canceled or timed_out (deadline_scope), only when it would
  ///                            have to wait; nothing is taken then
  /// \switch yes, unless free
  void lock() { take(writer, "shared_mutex::lock"); }
  bool try_lock() noexcept { return try_take(writer); }
  template <class Rep, class Period>
  bool try_lock_for(const std::chrono::duration<Rep, Period>& d) {
    return take_before(writer, detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool try_lock_until(const std::chrono::time_point<Clock, Duration>& t) {
    return detail::attempt_until(t,
                                 [this](detail::time_point d) { return take_before(writer, d); });
  }
  /// Precondition: held exclusively. Never switches.
  void unlock() noexcept;

  void lock_shared() { take(reader, "shared_mutex::lock_shared"); }
  bool try_lock_shared() noexcept { return try_take(reader); }
  template <class Rep, class Period>
  bool try_lock_shared_for(const std::chrono::duration<Rep, Period>& d) {
    return take_before(reader, detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& t) {
    return detail::attempt_until(t,
                                 [this](detail::time_point d) { return take_before(reader, d); });
  }
  /// Precondition: held shared by the caller. Never switches.
  void unlock_shared() noexcept;

 private:
  enum role : std::uint32_t { reader, writer };

  void take(role r, const char* what);
  bool take_before(role r, detail::time_point deadline);
  bool try_take(role r) noexcept;
  bool try_take_locked(role r) noexcept;
  detail::outcome take_slow(role r, const detail::wait_options& options);
  /// Lets in whoever stands in front and fits; called with the lock held, returns with it released.
  void admit_and_unlock() noexcept;

  detail::tiny_lock lock_;
  bool written_ = false;       // held exclusively
  std::uint64_t readers_ = 0;  // held shared, so many times
  detail::wait_list waiters_;  // node.index: role
};

using shared_timed_mutex = shared_mutex;

}  // namespace tendril
