// SPDX-License-Identifier: Apache-2.0
//
// Sleeping and yielding. A sleep is cut short by handlers of signals (interruptions.hpp), and by what ends the calls of a
// program that has made them cancelable.
#include <errno.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include <tendril/fiber.hpp>

#include "intercept/calls.hpp"
#include "intercept/cancel.hpp"
#include "intercept/clocks.hpp"
#include "intercept/install.hpp"
#include "intercept/interruptions.hpp"
#include "sched/thread_stay.hpp"

namespace tendril::detail {
namespace {

// Both: 0 or an errno, of a sleep that was ended.

int park_until(const clock_deadline& deadline, const char* reason) {
  const thread_stay here;
  const interruptible_call call(interruptible::always);
  while (!deadline.over()) {
    const outcome why = wait_until_done([](const void*) noexcept { return false; }, nullptr,
                                        foreign_wait(deadline.for_wait(), reason, call.call()));
    if (const int error = errno_of(why); error != 0) return error;
  }
  return 0;
}

/// left: when it was ended.
int park_for(std::chrono::nanoseconds time, const char* reason, std::chrono::nanoseconds& left) {
  const thread_stay here;
  const interruptible_call call(interruptible::always);
  const time_point deadline = deadline_after(time);
  const outcome why = wait_until_done([](const void*) noexcept { return false; }, nullptr,
                                      foreign_wait(deadline, reason, call.call()));
  left = std::max(deadline - clock::now(), clock::duration::zero());
  return errno_of(why);
}

int park_for(const timespec& time, const char* reason, timespec* left) {
  std::chrono::nanoseconds rest{};
  const int error = park_for(duration_of(time), reason, rest);
  if (error != 0 && left != nullptr)
    *left = {rest.count() / 1'000'000'000, rest.count() % 1'000'000'000};
  return error;
}

[[gnu::noinline]] int fail(int error) noexcept {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

}  // namespace

namespace calls {

unsigned sleep(unsigned seconds) {
  std::chrono::nanoseconds left{};
  const int error = park_for(std::chrono::seconds(seconds), "sleep", left);
  if (error == 0) return 0;
  fail(error);  // libc's leaves it so
  return static_cast<unsigned>(std::chrono::floor<std::chrono::seconds>(left).count());
}

int usleep(useconds_t microseconds) {
  std::chrono::nanoseconds left{};
  return fail(park_for(std::chrono::microseconds(microseconds), "usleep", left));
}

int nanosleep(const timespec* time, timespec* left) {
  timespec length;
  if (!fetch_time(length, time)) return fail(EFAULT);
  if (!is_valid(length) || length.tv_sec < 0) return fail(EINVAL);
  return fail(park_for(length, "nanosleep", left));
}

int clock_nanosleep(clockid_t which, int flags, const timespec* time, timespec* left) {
  // Clocks of processors, of other processes, and those that are none: it blocks, or knows the error.
  const bool usual = which == CLOCK_REALTIME || which == CLOCK_MONOTONIC ||
                     which == CLOCK_BOOTTIME || which == CLOCK_TAI;
  if (!usual) return real().clock_nanosleep(which, flags, time, left);
  timespec given;
  if (!fetch_time(given, time)) return EFAULT;
  if (!is_valid(given) || given.tv_sec < 0) return EINVAL;
  if ((flags & TIMER_ABSTIME) != 0)
    return park_until(clock_deadline::of(which, given), "clock_nanosleep");
  return park_for(given, "clock_nanosleep", left);
}

int sched_yield() {
  const thread_stay here;
  this_fiber::yield();
  return 0;
}

}  // namespace calls
}  // namespace tendril::detail
