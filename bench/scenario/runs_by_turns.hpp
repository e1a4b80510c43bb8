// SPDX-License-Identifier: Apache-2.0
//
// How E11 to E18 are measured: each variant is a role in a process of its own, which measures all its cells
// once and reports them; all variants have their turn, then all again, `runs` times. Of a cell's runs the lowest
// are dropped, the next are averaged, the highest are left out too: of 16 runs 3, 10 and 3, as the published
// figures were made. By turns, so that a minute in which the machine is slow is a run of every variant.
//
// Loops look at the wall's clock, as the originals do, to know when to end; rates are by the CPU time of the
// process, in which one thread works at a time: what others take of a shared core would else be in them.
#pragma once

#include "bench/support/cpu_clock.hpp"
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

/// One turn for each of `impls`, which the role gets as --impl: "fiber" for each stack policy, as "fiber/<stack>"
/// with --stack.
std::vector<turn> turns_of_models(const std::string& role, const std::vector<std::string>& impls,
                                  const arguments& common);

/// "16 runs, of each cell the lowest 3 dropped, the next 10 averaged"
std::string describe_trimming(unsigned runs);

/// CPU time since it was made.
class cpu_stopwatch {
 public:
  double ns() const noexcept { return process_cpu_ns() - begin_; }

 private:
  double begin_ = process_cpu_ns();
};

/// A loop `while (go_on()) ...` for the given time, and how often a second of CPU something was done in it.
class timed_loop {
 public:
  explicit timed_loop(std::chrono::nanoseconds window) : end_(clock::now() + window) {}
  bool go_on() const { return clock::now() < end_; }
  double rate(double count) const { return count / (cpu_.ns() * 1e-9); }

 private:
  using clock = std::chrono::steady_clock;
  clock::time_point end_;
  cpu_stopwatch cpu_;
};

/// The calling thread's loop `while (not yet) step()`: how often step ran, for each second. A quarter of the time
/// more is spent before, unrecorded.
template <class Step>
double rate_of(std::chrono::nanoseconds window, Step&& step) {
  for (const timed_loop warm(window / 4); warm.go_on();) step();
  const timed_loop time(window);
  double steps = 0;
  while (time.go_on()) {
    step();
    ++steps;
  }
  return time.rate(steps);
}

}  // namespace bench
