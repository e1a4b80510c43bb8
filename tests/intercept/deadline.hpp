// SPDX-License-Identifier: Apache-2.0
//
// Deadlines as libc's calls take them: instants of a clock of theirs.
#pragma once

#include <time.h>

#include <chrono>

namespace tendril::test {

inline timespec after(clockid_t which, std::chrono::nanoseconds d) {
  timespec t{};
  clock_gettime(which, &t);
  const auto ns = t.tv_nsec + d.count();
  t.tv_sec += ns / 1'000'000'000;
  t.tv_nsec = ns % 1'000'000'000;
  return t;
}

}  // namespace tendril::test
