// SPDX-License-Identifier: Apache-2.0
//
// Sleeping and yielding. A parked fiber is on no thread that a signal could be delivered to, so its sleep is
// never cut short, and nothing of it remains.
#include <errno.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <tendril/fiber.hpp>

#include "intercept/calls.hpp"
#include "intercept/clocks.hpp"
#include "intercept/install.hpp"
#include "sched/thread_stay.hpp"

namespace tendril::detail {
namespace {

void park_until(const clock_deadline& deadline, const char* reason) {
  const thread_stay here;
  while (!deadline.over())
    wait_until_done([](const void*) noexcept { return false; }, nullptr,
                    {.deadline = deadline.for_wait(),
                     .cancelable = false,
                     .reason = reason,
                     .on_context = false});
}

void park_for(std::chrono::nanoseconds time, const char* reason) {
  const thread_stay here;
  wait_until_done([](const void*) noexcept { return false; }, nullptr,
                  {.deadline = deadline_after(time),
                   .cancelable = false,
                   .reason = reason,
                   .on_context = false});
}

[[gnu::noinline]] int fail(int error) noexcept {
  errno = error;
  return -1;
}

}  // namespace

namespace calls {

unsigned sleep(unsigned seconds) {
  park_for(std::chrono::seconds(seconds), "sleep");
  return 0;
}

int usleep(useconds_t microseconds) {
  park_for(std::chrono::microseconds(microseconds), "usleep");
  return 0;
}

int nanosleep(const timespec* time, timespec* left) {
  if (time == nullptr) return real().nanosleep(time, left);
  if (!is_valid(*time) || time->tv_sec < 0) return fail(EINVAL);
  park_for(duration_of(*time), "nanosleep");
  return 0;
}

int clock_nanosleep(clockid_t which, int flags, const timespec* time, timespec* left) {
  // Clocks of processors, of other processes, and those that are none: it blocks, or knows the error.
  const bool usual = which == CLOCK_REALTIME || which == CLOCK_MONOTONIC ||
                     which == CLOCK_BOOTTIME || which == CLOCK_TAI;
  if (!usual || time == nullptr) return real().clock_nanosleep(which, flags, time, left);
  if (!is_valid(*time) || time->tv_sec < 0) return EINVAL;
  if ((flags & TIMER_ABSTIME) != 0) park_until(clock_deadline::of(which, *time), "clock_nanosleep");
  else park_for(duration_of(*time), "clock_nanosleep");
  return 0;
}

int sched_yield() {
  const thread_stay here;
  this_fiber::yield();
  return 0;
}

}  // namespace calls
}  // namespace tendril::detail
