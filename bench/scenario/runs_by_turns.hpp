// SPDX-License-Identifier: Apache-2.0
//
// How E11 to E18 are measured: each variant is a role in a process of its own, which measures all its cells
// once and reports them; all variants have their turn, then all again, `runs` times. Of a cell's runs the lowest
// are dropped, the next are averaged, the highest are left out too: of 16 runs 3, 10 and 3, as the published
// figures were made. By turns, so that a minute in which the machine is slow is a run of every variant.
#pragma once

#include "bench/support/experiment.hpp"
#include "bench/support/role.hpp"

#include <chrono>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace bench {

struct turn {
  std::string variant;
  std::string role;
  arguments args;
};

struct trimming {
  std::size_t dropped;   ///< the lowest
  std::size_t averaged;  ///< the next
  static trimming of(std::size_t runs) noexcept;
};

double trimmed_mean(std::vector<double> runs);

using cells = std::map<std::string, double>;

/// The trimmed means of each variant's cells. A variant that fails once is reported as failed and has none.
std::map<std::string, cells> run_by_turns(context& ctx, const std::vector<turn>& all, unsigned runs,
                                          int core);

/// "16 runs, of each cell the lowest 3 dropped, the next 10 averaged"
std::string describe_trimming(unsigned runs);

/// The calling thread's loop `while (not yet) step()`: how often step ran, for each second. A quarter of the time
/// more is spent before, unrecorded.
template <class Step>
double rate_of(std::chrono::nanoseconds window, Step&& step) {
  using clock = std::chrono::steady_clock;
  for (const auto end = clock::now() + window / 4; clock::now() < end;) step();
  const auto begin = clock::now();
  double steps = 0;
  auto now = begin;
  while (now - begin < window) {
    step();
    ++steps;
    now = clock::now();
  }
  return steps / std::chrono::duration<double>(now - begin).count();
}

}  // namespace bench
