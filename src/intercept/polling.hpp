// SPDX-License-Identifier: Apache-2.0
//
// What poll(2), select(2) and their kin share.
#pragma once

#include <poll.h>
#include <signal.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>

#include <tendril/detail/waiting.hpp>

#include "sched/interruption.hpp"

namespace tendril::detail {

/// One of these calls, without waiting.
///
/// With a signal mask the program waits for signals, too, that it lets in for the time of the call: a thread would
/// be interrupted. A parked fiber is on no thread, so it makes the call, with the mask and without waiting,
/// each 10 ms: signals that are pending are handled then.
class looker {
 public:
  explicit looker(const sigset_t* mask) noexcept : mask_(mask) {}

  /// As the call returns, or an errno negated. `timeout`: milliseconds, of those who cannot park.
  long operator()(int timeout) noexcept {
    for (;;) {
      const long n = once(timeout);
      // Without waiting and without a mask: it found something at the same moment, or will now.
      if (n != -EINTR || mask_ != nullptr || timeout != 0) return n;
    }
  }
  /// Until when to wait at most before the next look.
  time_point limit(time_point deadline) const noexcept {
    return mask_ == nullptr ? deadline
                            : std::min(deadline, clock::now() + std::chrono::milliseconds(10));
  }

 protected:
  ~looker() = default;
  const sigset_t* mask() const noexcept { return mask_; }

 private:
  virtual long once(int timeout) noexcept = 0;

  const sigset_t* mask_;
};

/// What poll(2) would return, or an errno negated. `look` sets the revents of the set. A handler interrupts it; `breaks`:
/// only as that says, empty: none does.
///
/// \switch yes, when it has to wait
long wait_for_any(pollfd* set, nfds_t count, time_point deadline, const char* reason, looker& look,
                  std::optional<interruptible> breaks = interruptible::always);

/// The same for one descriptor: its revents, 0 when time is over, or an
/// errno negated.
///
/// \switch yes, when it has to wait
/// A handler interrupts it as `breaks` says.
long wait_for_one(int fd, short events, time_point deadline, const char* reason,
                  std::optional<interruptible> breaks);

/// For poll(2); rounded up. -1: no limit.
int milliseconds_until(time_point deadline) noexcept;

/// Now and so long; false: no valid length.
inline bool deadline_of(const timespec& length, time_point& deadline) noexcept {
  if (length.tv_sec < 0 || length.tv_nsec < 0 || length.tv_nsec >= 1'000'000'000) return false;
  constexpr time_t most = 3'000'000'000;  // about as much as nanoseconds can count, and a century
  deadline = length.tv_sec > most ? no_deadline
                                  : deadline_after(std::chrono::seconds(length.tv_sec) +
                                                   std::chrono::nanoseconds(length.tv_nsec));
  return true;
}

}  // namespace tendril::detail
