// SPDX-License-Identifier: Apache-2.0
//
// A test-and-test-and-set lock for critical sections of some ten instructions.
//
// Idea: one exchange takes it, one release store frees it. A waiter reads until the lock looks free, so
// that waiting does not pull the line away from the holder; after a bounded spin it yields the thread,
// because with more runnable threads than cores the holder may be preempted.
//
// Rules
//  1. Never hold it across anything that may switch fibers, allocate, or make a system call.
//  2. Never take it in a signal handler.
//  3. It is not recursive, and not fair: a critical section short enough for it needs no queue.
//
// std::mutex was rejected: 40 bytes instead of 1, and its futex wait would put a whole worker to sleep
// for the few nanoseconds the holder needs. Satisfies Lockable (std::lock_guard works).
#pragma once

#include "base/atomics.hpp"

namespace tendril::detail {

template <class Atomics = std_atomics>
class basic_spinlock {
 public:
  basic_spinlock() noexcept = default;
  basic_spinlock(const basic_spinlock&) = delete;
  basic_spinlock& operator=(const basic_spinlock&) = delete;

  void lock() noexcept {
    if (!try_lock()) lock_slow();
  }

  bool try_lock() noexcept {
    // Acquire: sees all that the former holder wrote before its unlock(). The plain look first keeps a
    // failing try_lock (a thief's) from taking the line exclusively.
    return !locked_.load(std::memory_order_relaxed) &&
           !locked_.exchange(true, std::memory_order_acquire);
  }

  void unlock() noexcept { locked_.store(false, std::memory_order_release); }

 private:
  void lock_slow() noexcept {
    constexpr int spins_before_yield = 128;
    for (int spins = 0;;) {
      if (spins < spins_before_yield) {
        ++spins;
        Atomics::spin_pause();
      } else {
        Atomics::spin_yield();
      }
      if (try_lock()) return;
    }
  }

  typename Atomics::template atomic<bool> locked_{false};
};

using spinlock = basic_spinlock<>;

}  // namespace tendril::detail
