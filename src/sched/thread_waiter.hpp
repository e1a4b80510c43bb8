// SPDX-License-Identifier: Apache-2.0
//
// A plain thread that waits for fibers or with them: the same waiter interface, blocking on a condition
// variable. Like cores, thread waiters are recycled and never freed, so that a late unpark is harmless.
#pragma once

#include "sched/fiber_core.hpp"

#include <condition_variable>
#include <mutex>

namespace tendril::detail {

class thread_waiter : public waiter {
 public:
  thread_waiter() noexcept : waiter(kind::thread) {}

  void wake() noexcept;
  /// Returns when woken, perhaps earlier than the last call (true), or when the deadline has passed (false).
  bool block(time_point deadline);

  wait_block wait;
  value_cell cell;
  thread_waiter* next_free = nullptr;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool permit_ = false;
};

/// The calling thread's. \throws std::bad_alloc at a thread's first wait
thread_waiter& this_thread_waiter();
/// Null: it has not waited yet.
thread_waiter* existing_thread_waiter() noexcept;

}  // namespace tendril::detail
