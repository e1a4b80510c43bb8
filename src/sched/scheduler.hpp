// SPDX-License-Identifier: Apache-2.0
//
// What the workers of one runtime share: the injection queue, who sleeps and who searches, the stack
// source, shutdown, and the monitor.
//
// Sleeping and waking. A worker with nothing to do searches (spins, steals) for a few microseconds and
// then sleeps in its poller. Who makes work for others announces it: fence, then look for sleepers; who
// goes to sleep sets its bit in sleepers_, fences, then looks for work. With both fences seq_cst, one of
// the two sees the other: without them each could miss the other, and a runnable fiber would lie in a
// queue while its worker-to-be sleeps. One announcement wakes at most one sleeper, and none while
// somebody searches; a searcher that finds work wakes the next one if there is more. A cross-core wake
// costs about 4 us, so one fiber in a running worker's queue wakes nobody: that worker will come to it,
// and if it does not, the monitor notices.
//
// The monitor is a thread that looks every 10 ms while workers are active. It wakes a sleeper for a
// worker that has not switched since its last look although fibers wait in its queues; it gives such a
// worker another thread if its own is blocked in the kernel; it finds out when no event inside the runtime can
// wake the fibers that are parked; and it moves tasklets out of the way that have been idle for long (slots.hpp).
//
// A thread that computes keeps its worker, however long: another would only compete with it for the
// processor, and what is queued can be stolen. Its timers and events wait for it.
#pragma once

#include "base/cacheline.hpp"
#include "base/spinlock.hpp"
#include "sched/blocked_report.hpp"
#include "sched/crew.hpp"
#include "sched/guest.hpp"
#include "sched/registry.hpp"
#include "sched/slots.hpp"
#include "sched/worker.hpp"
#include "stack/small_segments.hpp"
#include "stack/stack_choice.hpp"
#include "stack/stack_source.hpp"

#include <tendril/runtime.hpp>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace tendril::detail {

class scheduler {
 public:
  scheduler(runtime& handle, runtime_options options);
  ~scheduler();
  scheduler(const scheduler&) = delete;
  scheduler& operator=(const scheduler&) = delete;

  // Any thread.
  void inject(fiber_core* c) noexcept;
  void inject_chain(fiber_core* const* fibers, std::size_t count) noexcept;
  void schedule_woken(fiber_core* c) noexcept;
  void start(fiber_core* c, worker* here);  ///< here: the caller's worker, or null
  void requeue(fiber_core* c) noexcept;     ///< it has moved off its thread, or came to a wrong one
  void request_stop() noexcept;
  bool drain_until(time_point deadline);
  void announce_work() noexcept;
  std::uint64_t alive() const noexcept;
  runtime_stats stats() const;
  std::string dump() const { return list_fibers(*this); }

  // Workers.
  std::size_t pop_injected(fiber_core** out, std::size_t room) noexcept;
  void wake_worker(worker& w) noexcept;  ///< if it sleeps
  /// Fibers for everybody, or a thread that wants a worker.
  bool has_injected() const noexcept { return injected_.load(std::memory_order_relaxed) != 0; }
  bool worker_is_wanted() const noexcept {
    return injected_.load(std::memory_order_relaxed) >= wanting_unit;
  }
  /// The crew: a thread wants a worker, or has got it.
  void count_wanting(bool more) noexcept;
  bool begin_search() noexcept;
  void end_search(bool found) noexcept;
  /// False: there is work, the worker is not asleep; claimed: as leave_sleep() says.
  bool enter_sleep(worker& w, bool& claimed) noexcept;
  bool leave_sleep(worker& w) noexcept;  ///< true: woken by an announcement, counted as searching
  bool work_in_sight(const worker& w) const noexcept;
  bool exiting() const noexcept { return exiting_.load(std::memory_order_acquire); }
  bool others_running(const worker& w) const noexcept;
  /// For what leaves a fiber that nobody joins. s == null: its runtime is gone.
  static void unhandled(const scheduler* s, fiber_core* c, std::exception_ptr error) noexcept;

  const runtime_options& options() const noexcept { return options_; }
  unsigned size() const noexcept { return static_cast<unsigned>(workers_.size()); }
  unsigned worker_count() const noexcept { return worker_count_; }
  worker& worker_at(unsigned i) noexcept { return *workers_[i]; }
  unsigned table_index() const noexcept { return table_index_; }
  runtime& handle() const noexcept { return handle_; }
  crew& threads() noexcept { return crew_; }
  blocked_reporter& reporter() noexcept { return reporter_; }
  bool stopping() const noexcept {
    return (start_flags_.load(std::memory_order_seq_cst) & flag::stop_requested) != 0;
  }
  /// What a fiber that starts now has in waiter::flags.
  flag::word start_flags() const noexcept { return start_flags_.load(std::memory_order_relaxed); }
  std::uint64_t serial() const noexcept { return serial_; }
  guest_list& guests() noexcept { return guests_; }
  /// \throws std::system_error  errc::invalid_option
  void check_affinity(int affinity) const;
  /// A fiber that was started elsewhere than in a worker's queues.
  void count_spawned_outside() noexcept {
    spawned_outside_.fetch_add(1, std::memory_order_seq_cst);
  }
  /// Stacks for who has no worker. An empty one when the system has no memory left.
  stack_slice take_stack(stack_choice what) noexcept;
  void give_stack(stack_slice slice, stack_choice what) noexcept;
  stack_choice default_stack_class() const noexcept { return default_stack_class_; }
  stack_source& stacks() noexcept { return stack_source_; }
  small_segment_source& segments() noexcept { return segment_source_; }
  slot_table& slots() noexcept { return slots_; }
  /// For who has no worker: calls f(slots(), a cache, made_runnable&), and queues what that fills in.
  template <class F>
  auto use_slots_outside(F&& f) noexcept {
    made_runnable others;
    outside_mutex_.lock();
    const auto result = f(slots_, outside_slots_, others);
    outside_mutex_.unlock();
    for (fiber_core* const c : {others.first, others.second})
      if (c != nullptr) schedule_woken(c);
    return result;
  }

 private:
  static constexpr std::uint64_t wanting_unit = std::uint64_t{1} << 48;

  /// A caller from outside (a thread, a worker of another runtime) that queues a fiber and then wakes a
  /// worker. Once queued, the fiber may run, end, and be the last that the runtime waited for: the
  /// destructor waits for visitors as well. Entering is safe, because the fiber is not queued yet.
  class visit {
   public:
    explicit visit(scheduler& s) noexcept : visited_(s) {
      s.visitors_.fetch_add(1, std::memory_order_relaxed);
    }
    // Release: pairs with the destructor's acquire; the last access to the scheduler.
    ~visit() { visited_.visitors_.fetch_sub(1, std::memory_order_release); }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;

   private:
    scheduler& visited_;
  };

  void schedule_on_thread(fiber_core* c) noexcept;
  void notify_drained() noexcept;
  void monitor_main() noexcept;
  void look_for_stalls() noexcept;
  void look_whether_blocked(worker& w, std::chrono::nanoseconds stuck_for) noexcept;
  void look_for_deadlock() noexcept;
  void tend_slots() noexcept;
  void wake_monitor() noexcept;
  bool all_asleep() const noexcept;
  bool deadlock_settled() const noexcept;

  runtime& handle_;
  runtime_options options_;
  const unsigned worker_count_;
  stack_choice default_stack_class_ = 0;
  unsigned table_index_ = 0;
  std::uint64_t serial_ = 0;
  std::atomic<flag::word> start_flags_{0};
  stack_source stack_source_;
  small_segment_source segment_source_;
  slot_table slots_;
  std::mutex outside_mutex_;
  slot_cache outside_slots_;  ///< of those without a worker
  std::vector<std::unique_ptr<worker>> workers_;
  blocked_reporter reporter_;
  crew crew_;
  guest_list guests_;

  alignas(cacheline_bytes) basic_spinlock<> injection_lock_;
  fiber_core* injection_head_ = nullptr;
  fiber_core* injection_tail_ = nullptr;
  /// How many of them, and from wanting_unit on how many threads want a worker: one word, because both
  /// are work for whoever has none.
  std::atomic<std::uint64_t> injected_{0};
  std::atomic<std::uint64_t> spawned_outside_{0};

  alignas(cacheline_bytes) std::atomic<std::uint64_t> sleepers_{0};  ///< bit i: worker i sleeps
  std::atomic<std::uint32_t> searching_{0};
  std::atomic<std::uint32_t> visitors_{0};  ///< see visit
  std::atomic<std::uint64_t> wakeups_{0};
  std::atomic<std::uint64_t> stalls_{0};
  std::atomic<bool> exiting_{false};

  mutable std::mutex drain_mutex_;
  std::condition_variable drained_;
  std::atomic<int> drainers_{0};

  std::mutex monitor_mutex_;
  std::condition_variable monitor_wake_;
  std::atomic<bool> monitor_resting_{false};
  bool monitor_exit_ = false;
  std::thread monitor_;
  struct last_look {
    std::uint64_t switches = 0;
    time_point since{};  ///< when that count was first seen
  };
  std::vector<last_look> looks_;
  std::uint64_t seen_epoch_ = 0;
  unsigned quiet_looks_ = 0;
  bool deadlock_reported_ = false;
  slot_cache monitor_slots_;
};

}  // namespace tendril::detail
