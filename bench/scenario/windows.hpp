// SPDX-License-Identifier: Apache-2.0
//
// Timing of a repeated operation in windows: the operation runs until a window's time is over, several
// times; each window gives one figure, the first is a warm-up and dropped. The clock is read once a
// batch, so that it does not show.
#pragma once

#include "bench/support/role.hpp"
#include "bench/support/statistics.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

struct window_plan {
  long windows;
  std::chrono::milliseconds length;
  std::uint64_t batch;

  static window_plan from(const arguments& args, std::uint64_t batch) {
    return {args.number("windows"), std::chrono::milliseconds(args.number("window-ms")), batch};
  }
};

/// Nanoseconds an operation, of each window. `operation` may switch fibers.
template <class Operation>
std::vector<double> time_windows(const window_plan& plan, Operation&& operation) {
  using clock = std::chrono::steady_clock;
  std::vector<double> figures;
  for (long w = -1; w < plan.windows; ++w) {
    std::uint64_t done = 0;
    const clock::time_point begin = clock::now();
    clock::time_point now = begin;
    while (now - begin < plan.length) {
      for (std::uint64_t i = 0; i < plan.batch; ++i) operation();
      done += plan.batch;
      now = clock::now();
    }
    if (w >= 0)
      figures.push_back(std::chrono::duration<double, std::nano>(now - begin).count() /
                        static_cast<double>(done));
  }
  return figures;
}

inline void send_windows(role_output& out, const std::vector<double>& figures) {
  const quartiles q = quartiles_of(figures);
  out.send("q1", q.q1);
  out.send("median", q.median);
  out.send("q3", q.q3);
}

}  // namespace bench
