// SPDX-License-Identifier: Apache-2.0
#include "bench/support/cpu_clock.hpp"

#include <ctime>

namespace bench {

double thread_cpu_ns() noexcept {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

}  // namespace bench
