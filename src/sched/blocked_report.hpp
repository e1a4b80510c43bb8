// SPDX-License-Identifier: Apache-2.0
//
// What is said of fibers that block their threads: once for each place, so that a program that does so on
// purpose is told once and no more.
//
// The place of a block that the monitor found is the system call, where it was made and who likely called
// that: all that can be learned without a signal to the thread. That of a pinned fiber's wait is its trace.
#pragma once

#include "sched/crew.hpp"

#include <tendril/runtime.hpp>

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace tendril::detail {

class blocked_reporter {
 public:
  explicit blocked_reporter(const runtime_options& options) noexcept : options_(options) {}

  /// The monitor. No memory for the report: it is left out.
  void blocked(unsigned worker, const blocked_fiber& who, std::chrono::nanoseconds stuck_for,
               crew::hand_over result) noexcept;
  /// The fiber, about to block. given: its worker goes on without it.
  void pinned(const fiber_core& who, const char* reason, bool given) noexcept;

 private:
  /// True once for each key; false, too, when there are very many.
  bool is_new(std::uint64_t key);
  void say(const std::string& text);

  static constexpr std::size_t most_places = 256;

  const runtime_options& options_;
  std::mutex mutex_;
  std::vector<std::uint64_t> places_;
};

}  // namespace tendril::detail
