// SPDX-License-Identifier: Apache-2.0
//
// How long a stress test runs: rounds(n) is n times TENDRIL_STRESS_SCALE (default 1), less under
// sanitizers, which are that much slower, but never less than `least`: what takes the test through its
// window at least once. `./dev stress` runs every suite often at a small scale rather than seldom at a
// large one, since a new process is a new layout and a new start of every thread.
#pragma once

#include <tendril/detail/sanitizers.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace tendril::test {

inline std::uint64_t rounds(std::uint64_t n, std::uint64_t least = 1) {
  static const double scale = [] {
    const char* const given = std::getenv("TENDRIL_STRESS_SCALE");
    const double wanted = given != nullptr ? std::strtod(given, nullptr) : 1.0;
    return wanted > 0 ? wanted : 1.0;
  }();
  const double slower = TENDRIL_TSAN ? 0.1 : TENDRIL_ASAN ? 0.3 : 1.0;
  return std::max(least, static_cast<std::uint64_t>(static_cast<double>(n) * scale * slower));
}

}  // namespace tendril::test
