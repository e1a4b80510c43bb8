// SPDX-License-Identifier: Apache-2.0
//
// A counter written by one thread at a time and read by others.
#pragma once

#include <atomic>
#include <cstdint>

namespace tendril::detail {

class tally {
 public:
  void add(std::uint64_t n = 1) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

  /// For the count of ended fibers: who has read it has seen what they did, as after a join.
  void publish() noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + 1,
                 std::memory_order_release);  // pairs with observe()
  }
  std::uint64_t observe() const noexcept { return value_.load(std::memory_order_acquire); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

}  // namespace tendril::detail
