// SPDX-License-Identifier: Apache-2.0
//
// Waiting for signals that the program has blocked: parked on a descriptor that is readable while one of them is pending
// (signalfd), and then taken by libc's own call, without waiting. So what is pending is taken by one, in
// the order of the kernel, with all that is known about it; who is woken in vain goes on waiting.
//
// The fiber stays on its thread, so that signals sent to that thread alone are its own. Whether the descriptor is
// readable is a matter of the thread that asks, though: of a signal to another thread the poller may not learn, if
// that thread has just given its worker away. So now and then the fiber looks by itself; so it does, more often, where
// there is no descriptor to be had.
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <optional>

#include "intercept/calls.hpp"
#include "intercept/cancel.hpp"
#include "intercept/clocks.hpp"
#include "intercept/install.hpp"
#include "intercept/interruptions.hpp"
#include "intercept/owned_number.hpp"
#include "intercept/polling.hpp"
#include "intercept/symbols.hpp"
#include "sched/thread_stay.hpp"

namespace tendril::detail {
namespace {

constexpr auto look_each = std::chrono::milliseconds(100);
constexpr auto look_each_without = std::chrono::milliseconds(10);

/// A signal's number, or an errno negated; EAGAIN: none is pending.
[[gnu::noinline]] long take(const sigset_t* set, siginfo_t* about) noexcept {
  const timespec at_once{0, 0};
  const int n = real().sigtimedwait(set, about, &at_once);
  return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

/// 0 when time is over, or an errno negated.
long pause_until(time_point end, const char* reason, bool breaks) {
  const thread_stay stay;
  std::optional<interruptible_call> call;
  if (breaks) call.emplace(interruptible::always);
  return -errno_of(wait_until_done([](const void*) noexcept { return false; }, nullptr,
                                   foreign_wait(end, reason, call ? call->call() : nullptr)));
}

/// As take(), when one is pending or time is over.
long wait_for_signal(symbol what, const sigset_t* set, siginfo_t* about, time_point deadline) {
  if (const long n = take(set, about); n != -EAGAIN) return n;
  // sigwait() goes on after other signals.
  const bool breaks = what != symbol::sigwait;
  std::optional<interruptible> kind;
  if (breaks) kind = interruptible::always;
  owned_number pending(told(real().signalfd(-1, set, SFD_CLOEXEC | SFD_NONBLOCK)));
  for (;;) {
    const bool has_number = pending.number() >= 0;
    const time_point end =
        std::min(deadline, clock::now() + (has_number ? look_each : look_each_without));
    const long woken = has_number ? wait_for_one(pending.number(), POLLIN, end, name_of(what), kind)
                                  : pause_until(end, name_of(what), breaks);
    // What came with the end of the time still counts.
    const bool over = clock::now() >= deadline;
    if (const long n = take(set, about); n != -EAGAIN || over) return n;
    if (woken < 0) return woken;
    if ((woken & POLLNVAL) != 0) pending.give_up();
  }
}

}  // namespace

namespace calls {

int sigtimedwait(const sigset_t* set, siginfo_t* about, const timespec* timeout) {
  const int before = errno_now();
  time_point deadline = no_deadline;
  if (timespec length; timeout != nullptr) {
    const bool good = fetch_time(length, timeout) && deadline_of(length, deadline);
    if (!good || (length.tv_sec == 0 && length.tv_nsec == 0))  // EFAULT, EINVAL; or does not wait
      return real().sigtimedwait(set, about, timeout);
  }
  return static_cast<int>(
      finish(wait_for_signal(symbol::sigtimedwait, set, about, deadline), before));
}

int sigwaitinfo(const sigset_t* set, siginfo_t* about) {
  const int before = errno_now();
  return static_cast<int>(
      finish(wait_for_signal(symbol::sigwaitinfo, set, about, no_deadline), before));
}

int sigwait(const sigset_t* set, int* signal) {
  const int before = errno_now();
  const long n = wait_for_signal(symbol::sigwait, set, nullptr, no_deadline);
  finish(0, before);
  if (n < 0) return static_cast<int>(-n);
  *signal = static_cast<int>(n);
  return 0;
}

}  // namespace calls
}  // namespace tendril::detail
