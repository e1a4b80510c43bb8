// SPDX-License-Identifier: Apache-2.0
//
// The OS threads of one runtime: one for each worker, and the spares that take over the workers of blocked
// threads.
//
// Who holds which worker changes under one lock only: the monitor takes a worker away (take_over), a
// pinned fiber gives its own away (give_away), a spare is given one (next_worker). A thread that finds its
// worker claimed asks here how that ended.
//
// Spares are made when they are needed, never more than the options allow, and end after having had nothing
// to do for a while. A thread whose fiber has moved off becomes a spare, so that after a block there is
// one thread more than before, and it is the one that is used the next time. A spare that fibers stay on
// (thread_stay.hpp) *wants* a worker as soon as one of them is runnable: it is served first by whoever gives
// a worker away, and a worker that is in its scheduler context hands itself on to it.
#pragma once

#include "sched/worker_thread.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace tendril::detail {

/// Whom a worker was found blocked by.
struct blocked_fiber {
  std::uint64_t id = 0;
  char name[32] = {};
  platform::blocked_call call{};
  const void* caller = nullptr;  ///< likely the code that made the call
  static constexpr std::size_t most_frames = 8;
  std::array<const void*, most_frames> trace{};  ///< likely return addresses; null: no more
  platform::thread_number thread = 0;
};

class crew {
 public:
  crew(scheduler& owner, unsigned max_spares, std::chrono::nanoseconds spare_idle) noexcept;
  ~crew() { end(); }
  crew(const crew&) = delete;
  crew& operator=(const crew&) = delete;

  /// A first thread for w. \throws std::system_error
  void employ(worker& w);
  /// The scheduler is exiting and all workers were woken: waits for all threads.
  void end() noexcept;

  enum class hand_over : std::uint8_t {
    done,
    returned,   ///< the thread is in the runtime
    no_spare,   ///< as many as the options allow are blocked, or the system gives no more threads
    no_barrier  ///< the system lacks what claiming needs
  };
  /// The monitor: takes w from its thread, which is blocked in fiber code, and gives it to a spare. With
  /// `done` and `no_spare`, `who` tells by which fiber and where.
  hand_over take_over(worker& w, blocked_fiber& who) noexcept;
  /// The number of the thread that holds w.
  platform::thread_number thread_of(const worker& w) noexcept;

  /// The thread itself, inside, holding a worker: gives it to a spare. False: there is none.
  bool give_away(worker_thread& t) noexcept;
  /// The thread itself, in the scheduler context: gives its worker to one that wants one. False: there is none.
  bool hand_on(worker_thread& t) noexcept;
  /// c is runnable and stays on t, which has no worker: it waits until there is one.
  void await_worker(fiber_core& c, worker_thread& t) noexcept;
  /// The worker that t holds, once no claim is in progress.
  worker* resolve(worker_thread& t) noexcept;
  /// The next worker for t, which holds none; null: t is to end.
  worker* next_worker(worker_thread& t) noexcept;

  /// An orphaned thread's fiber has left it.
  void moved_off() noexcept { orphans_.fetch_sub(1, std::memory_order_seq_cst); }
  /// A pinned fiber on an orphaned thread waits for another fiber without a limit, and has ended that.
  void rests() noexcept { orphans_.fetch_sub(1, std::memory_order_seq_cst); }
  void goes_on() noexcept { orphans_.fetch_add(1, std::memory_order_seq_cst); }
  /// Threads without a worker whose fibers may still wake others.
  bool has_orphans() const noexcept { return orphans_.load(std::memory_order_seq_cst) != 0; }

  void count_pinned_park() noexcept { pinned_parks_.fetch_add(1, std::memory_order_relaxed); }

  std::uint64_t handed_over() const noexcept {
    return handed_over_.load(std::memory_order_relaxed);
  }
  /// How often a worker was handed on to a thread that wanted one.
  std::uint64_t handed_on() const noexcept { return handed_on_.load(std::memory_order_relaxed); }
  std::uint64_t pinned_parks() const noexcept {
    return pinned_parks_.load(std::memory_order_relaxed);
  }
  /// Threads beyond one a worker: waiting, or blocked without a worker.
  unsigned spare_threads() const noexcept { return extra_.load(std::memory_order_relaxed); }

 private:
  worker_thread* spare_locked() noexcept;
  void list_locked(worker_thread& t) noexcept;
  void give_locked(worker& w, worker_thread& t) noexcept;
  void employ_locked(worker& w, worker_thread& t) noexcept;
  void want_locked(worker_thread& t) noexcept;
  void satisfy_locked(worker_thread& t) noexcept;

  scheduler& owner_;
  const unsigned max_spares_;
  const std::chrono::nanoseconds spare_idle_;
  mutable std::mutex mutex_;
  std::vector<std::unique_ptr<worker_thread>> threads_;  ///< those that have ended included
  std::vector<worker_thread*> spares_;      ///< the one that waits for the shortest time last
  worker_thread* wanting_first_ = nullptr;  ///< by worker_thread::next_wanting
  worker_thread* wanting_last_ = nullptr;
  bool ending_ = false;
  std::atomic<int> orphans_{0};
  std::atomic<unsigned> extra_{0};
  std::atomic<std::uint64_t> handed_over_{0};
  std::atomic<std::uint64_t> pinned_parks_{0};
  std::atomic<std::uint64_t> handed_on_{0};
};

}  // namespace tendril::detail
