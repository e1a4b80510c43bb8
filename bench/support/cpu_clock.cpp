// SPDX-License-Identifier: Apache-2.0
#include "bench/support/cpu_clock.hpp"

#include <ctime>

namespace bench {

namespace {

double read_ns(clockid_t clock) noexcept {
  timespec t{};
  ::clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

}  // namespace

double thread_cpu_ns() noexcept { return read_ns(CLOCK_THREAD_CPUTIME_ID); }
double process_cpu_ns() noexcept { return read_ns(CLOCK_PROCESS_CPUTIME_ID); }

}  // namespace bench
