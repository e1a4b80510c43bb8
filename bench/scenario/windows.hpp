// SPDX-License-Identifier: Apache-2.0
//
// Timing of a repeated operation in windows: the operation runs until a window's time is over, several
// times; each window gives one figure, the first is a warm-up and dropped. The clock is read once a
// batch, so that it does not show. time_windows calls the operation; window_clock is for loops that cannot
// be called from here, those of coroutines.
#pragma once

#include "bench/support/role.hpp"
#include "bench/support/statistics.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>
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

/// From within a loop:
///     window_clock windows(plan);
///     while (windows.go_on()) co_await operation();
class window_clock {
 public:
  explicit window_clock(const window_plan& plan) : plan_(plan) {}

  /// Whether to run the operation once more. The first call starts the time.
  bool go_on() { return left_-- != 0 || next_batch(); }
  /// Nanoseconds an operation, of each window.
  std::vector<double> take_figures() { return std::move(figures_); }

 private:
  using clock = std::chrono::steady_clock;

  bool next_batch() {
    const clock::time_point now = clock::now();
    if (window_ == before_first) {
      start_window(now);
    } else {
      done_ += plan_.batch;
      if (now - begin_ >= plan_.length) {
        if (window_ >= 0)
          figures_.push_back(std::chrono::duration<double, std::nano>(now - begin_).count() /
                             static_cast<double>(done_));
        start_window(now);
      }
    }
    left_ = plan_.batch - 1;
    return window_ < plan_.windows;
  }
  void start_window(clock::time_point now) {
    ++window_;
    done_ = 0;
    begin_ = now;
  }

  static constexpr long before_first = -2;  // -1 is the warm-up

  const window_plan plan_;
  std::uint64_t left_ = 0;
  long window_ = before_first;
  std::uint64_t done_ = 0;
  clock::time_point begin_{};
  std::vector<double> figures_;
};

/// Nanoseconds an operation, of each window. `operation` may switch fibers.
template <class Operation>
std::vector<double> time_windows(const window_plan& plan, Operation&& operation) {
  window_clock windows(plan);
  while (windows.go_on()) operation();
  return windows.take_figures();
}

inline void send_windows(role_output& out, const std::vector<double>& figures) {
  const quartiles q = quartiles_of(figures);
  out.send("q1", q.q1);
  out.send("median", q.median);
  out.send("q3", q.q3);
}

}  // namespace bench
