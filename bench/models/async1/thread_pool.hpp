// SPDX-License-Identifier: Apache-2.0
//
// What resumes: continuations, and the queue that runs them: the counterpart of .NET's thread pool, of one or
// two threads and one queue.
//
// Items are linked through themselves, so that queueing allocates nothing, and the lock is held for the few
// instructions of a push or a pop. A thread that finds nothing sleeps; who posts wakes one only if somebody
// sleeps. Rejected: stealing between local queues, which .NET has: with one or two threads, and yields that
// go to the common queue there too, it would not be seen.
#pragma once

#include "bench/models/async1/contexts.hpp"

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

namespace bench::async1 {

/// What follows an await: runs once, on who completes what was awaited or on the pool.
struct continuation {
  explicit continuation(void (*how)(continuation*) noexcept) noexcept : run(how) {}
  void (*run)(continuation* self) noexcept;
  continuation* next = nullptr;  ///< in the pool's queue
};

class thread_pool {
 public:
  /// At most one at a time: the process's pool while it lives.
  ///
  /// \throws std::logic_error  there is one; std::invalid_argument for 0 threads
  explicit thread_pool(unsigned threads);
  /// Runs what is queued, then ends the threads.
  ~thread_pool();
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  void post(continuation& c) noexcept;

  /// Calls f, which returns a task or a value_task, on the pool, waits for it and gives its result or throws
  /// its exception: Task.Run(f).GetAwaiter().GetResult().
  template <class F>
  auto run(F f);

  /// The process's.
  ///
  /// \throws std::logic_error  there is none
  static thread_pool& installed();
  /// The process's, or null.
  static thread_pool* find() noexcept;

 private:
  continuation* next();
  void work() noexcept;
  void lock() noexcept {
    while (locked_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() noexcept { locked_.store(false, std::memory_order_release); }

  std::atomic<bool> locked_{false};
  continuation* head_ = nullptr;  // under the lock, as what follows
  continuation* tail_ = nullptr;
  unsigned sleepers_ = 0;
  bool ending_ = false;
  /// Read under the lock by who goes to sleep, raised after the lock by who has put something there: so a
  /// sleeper that was seen sees it changed.
  std::atomic<std::uint32_t> news_{0};
  std::vector<std::thread> threads_;
};

}  // namespace bench::async1
