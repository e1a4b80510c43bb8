// SPDX-License-Identifier: Apache-2.0
//
// A worker: runs fibers, on an OS thread that holds it (worker_thread.hpp). The thread may change: when a
// fiber blocks it, the worker goes on on another. Everything below but the queues that thieves reach belongs
// to the holder, while it is inside (worker_hold.hpp).
//
// Switching. A fiber that parks, yields or ends picks the next fiber itself and switches straight to
// it; the thread's own stack (the *scheduler context*) is entered only when there is none, or when
// housekeeping is due. What must happen to the fiber that was left can happen only once its context is
// saved, so it is done by whoever comes next: every arrival calls after_switch() first, which
// *commits* the departure (moves the park word to parked; queues who yielded; frees the stack of who
// ended). There is no state in which two workers could run one fiber, and a fiber is published to its
// waker only after it has been switched away from.
//
// Where runnable fibers are, in the order in which a worker looks:
//   lifo_   the one just woken by the running fiber: its data is in the cache. At most lifo_limit in a
//           row while others wait. Thieves leave it alone unless the monitor found this worker stuck.
//   ring_   FIFO of ring_capacity; what overflows goes to the scheduler's injection queue.
//   fresh_  spawned and not started: newest first, and every fairness_interval picks the oldest.
//   pinned_ fibers that may run here only, or on this thread; inbox_: such fibers and tasks posted by others,
//           behind a lock.
//   injection queue, shared; then other workers.
//
// Housekeeping (expiring timers, polling without blocking, looking into injection and inbox) is
// considered every housekeeping_interval switches, and polls only when poll_interval has passed since
// the last poll. A worker whose queues are empty polls, blocking, at once: a batch of events is run to
// its end before the next system call.
#pragma once

#include "base/cacheline.hpp"
#include "base/spinlock.hpp"
#include "base/split.hpp"
#include "base/tally.hpp"
#include "context/context.hpp"
#include "context/exception_globals.hpp"
#include "sched/fiber_core.hpp"
#include "sched/poller.hpp"
#include "sched/run_queue.hpp"
#include "sched/slot_contract.hpp"
#include "sched/slots.hpp"
#include "sched/spawn_stack.hpp"
#include "sched/timer_wheel.hpp"
#include "sched/worker_thread.hpp"
#include "stack/small_segments.hpp"
#include "stack/stack_cache.hpp"
#include "stack/stack_choice.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>

namespace tendril::detail {

class scheduler;

struct worker_counters {
  tally spawned, finished, switches, steals, polls, sleeps, timers;
};

class alignas(cacheline_bytes) worker final {
 public:
  worker(scheduler& owner, unsigned index);
  ~worker();
  worker(const worker&) = delete;
  worker& operator=(const worker&) = delete;

  // The holder's thread.
  /// Runs fibers in the scheduler context. True: the runtime ends. False: the thread has lost the worker,
  /// which is not to be touched.
  bool run() noexcept;

  // The holder, inside: from a fiber or the scheduler context.
  TENDRIL_NO_SPLIT void push_woken(fiber_core* c) noexcept;
  TENDRIL_NO_SPLIT void push_spawned(fiber_core* c) noexcept;
  /// detail::unpark() for who has the worker in hand already.
  void unpark(waiter* who) noexcept {
    if (who->what == waiter::kind::fiber) {
      auto* const core = static_cast<fiber_core*>(who);
      if (!core->park.unpark()) return;
      if (waits_in_its_slot(*core)) [[unlikely]]
        check_wake(*core);
      schedule(core);
    } else {
      detail::unpark(who);
    }
  }
  /// Who was parked until now: here, if it may run here.
  void schedule(fiber_core* c) noexcept {
    if (c->affinity == affinity_any && scheduler_index_ == c->scheduler_index()) push_woken(c);
    else schedule_elsewhere(c);
  }
  worker_thread& thread() const noexcept { return *thread_; }
  /// c stays on the calling thread.
  void push_here(fiber_core* c) noexcept { push_pinned(c); }

  // On the running fiber, which is not pinned; w from hold_worker(). They return not inside.
  TENDRIL_NO_SPLIT static void park_current(worker* w) noexcept;
  TENDRIL_NO_SPLIT static void yield_current(worker* w) noexcept;
  static platform::next_context end_current(worker* w) noexcept;
  /// The first thing on a fiber's stack after a switch back to it: `now` is its worker.
  static void arrive(worker* now, const flow_state& flow) noexcept;

  // The crew, under its lock.
  void set_thread(worker_thread& t) noexcept { thread_ = &t; }

  // Any thread.
  void push_inbox(fiber_core* c) noexcept;
  void push_inbox(worker_task& t) noexcept;
  bool cancel_timer(
      wait_timer& t) noexcept;  ///< while there is one worker only: the holder, inside
  void wake() noexcept { poller_->wake(); }
  bool has_queued_work() const noexcept;
  bool has_stealable_work() const noexcept { return !ring_.empty() || !fresh_.empty(); }

  /// Whether something waits that nobody else can do. A guess.
  bool in_demand() const noexcept {
    return has_queued_work() || pinned_head_.load(std::memory_order_relaxed) != nullptr ||
           pending_timers() != 0 || poller_->in_demand();
  }

  // The holder, inside.
  void arm_timer(wait_timer& t, time_point deadline) noexcept;

  scheduler& owner() const noexcept { return owner_; }
  unsigned index() const noexcept { return index_; }
  poller& events() const noexcept { return *poller_; }
  std::uint64_t take_id() noexcept;
  std::uint8_t scheduler_index() const noexcept { return scheduler_index_; }
  const worker_counters& counters() const noexcept { return counters_; }
  worker_counters& counters() noexcept { return counters_; }
  std::size_t pending_timers() const noexcept { return armed_.load(std::memory_order_relaxed); }
  void allow_lifo_theft() noexcept { lifo_theft_.store(true, std::memory_order_relaxed); }
  stack_cache& stacks() noexcept { return stacks_; }
  /// Where fibers begin.
  static platform::entry_function entry() noexcept { return &fiber_main; }
  void queue(const made_runnable& fibers) noexcept;
  slot_cache& slots() noexcept { return slot_cache_; }
  /// A stack, or the first segment of one; an empty slice when the system has no memory left.
  stack_slice acquire_stack(stack_choice what) noexcept;
  /// Its fiber has ended, wherever on its segments it was at last. It was no tasklet.
  void release_stack(stack_slice slice, stack_choice what) noexcept {
    if (!is_segmented(what)) [[likely]]
      stacks_.release(slice, what);
    else release_segments(slice, what);
  }
  /// The same of a tasklet: its slot, and then the frame itself.
  void release_slot(tasklet_frame& f) noexcept;
  /// Behind all others, if it may run anywhere.
  void push_back(fiber_core* c) noexcept;

 private:
  enum class departure : std::uint8_t { none, park, yield, end };

  /// A fiber that has ended, while the worker stands on its stack.
  struct ending {
    worker* by;
    fiber_frame* frame;
    stack_choice what;
    context mine;
  };

  static constexpr int housekeeping_interval = 61;
  static constexpr unsigned fairness_interval = 13;
  /// While fibers that run here only are queued: they have their share, however many others there are.
  static constexpr unsigned fairness_interval_pinned = 2;
  static constexpr unsigned lifo_limit = 16;
  /// Large enough that a thousand fibers that yield in turn do not go round through the shared queue.
  static constexpr std::size_t ring_capacity = 2048;
  static constexpr std::chrono::microseconds poll_interval{20};
  static constexpr std::chrono::microseconds spin_time{10};
  static constexpr std::chrono::seconds trim_after{1};

  bool run_fiber(fiber_core* c) noexcept;
  fiber_core* next_fiber() noexcept;
  fiber_core* take_lifo() noexcept;
  fiber_core* pop_ring() noexcept;
  fiber_core* pop_fresh() noexcept;
  fiber_core* find_work() noexcept;
  fiber_core* steal() noexcept;
  void housekeeping() noexcept;
  fiber_core* idle() noexcept;
  void poll(std::chrono::nanoseconds timeout) noexcept;
  void expire_timers(time_point now) noexcept;
  void drain_inbox() noexcept;
  void take_injected() noexcept;
  void push_ring(fiber_core* c) noexcept;
  void overflow(fiber_core* c) noexcept;
  void announce_if_long() noexcept;
  void push_pinned(fiber_core* c) noexcept;
  void push_owned(fiber_core* c) noexcept;
  void push_again(fiber_core* c) noexcept;
  void push_received(fiber_core* c) noexcept;
  void take_over_stayers() noexcept;
  bool hand_on() noexcept;
  fiber_core* pop_pinned() noexcept;
  fiber_core* pick_next() noexcept;
  fiber_core* pick_again() noexcept;
  stack_slice take_stack(stack_choice what) noexcept;
  fiber_core* ready_one(fiber_core* c) noexcept;
  bool make_ready(fiber_core* c) noexcept;
  bool bring_in(fiber_core* c) noexcept;
  bool attach_slot_frame(fiber_core* c) noexcept;
  void detach_slot_frame(fiber_core* c) noexcept;
  void use_own_stack(fiber_core* c) noexcept;
  void make_room(fiber_core* c) noexcept;
  void make_room_behind(const void* sp) noexcept;
  bool prepare(fiber_core* c) noexcept;
  void attach_stack(fiber_core* c) noexcept;
  void release_segments(stack_slice slice, stack_choice what) noexcept;
  TENDRIL_NO_SPLIT void depart(fiber_core* self, departure how, fiber_core* next) noexcept;
  void after_switch() noexcept;
  void arrive_here(const flow_state& flow) noexcept;
  static void schedule_elsewhere(fiber_core* c) noexcept;
  TENDRIL_NO_SPLIT static void run_and_settle(fiber_core* self) noexcept;
  static ending finish_current(worker* w) noexcept;
  static platform::next_context leave_for(const ending& e, fiber_core* next) noexcept;
  static fiber_core* end_in_slot(worker* w, platform::next_context& out) noexcept;
  bool succeed(const ending& e, fiber_core* next) noexcept;
  TENDRIL_NO_SPLIT static platform::next_context fiber_main(void* transfer) noexcept;

  scheduler& owner_;
  const unsigned index_;
  const bool alone_;  ///< the only worker: no thieves
  std::uint8_t scheduler_index_;

  // The switch, in the order in which it touches them.
  worker_thread* thread_ = nullptr;  ///< the holder
  fiber_core* left_ = nullptr;       ///< whom after_switch() commits
  departure left_how_ = departure::none;
  int budget_ = housekeeping_interval;
  unsigned picks_ = 0;
  unsigned picks_until_fair_ = fairness_interval;
  unsigned lifo_streak_ = 0;
  unsigned woken_by_events_ = 0;  ///< about how many of them the ring still holds
  bool pinned_first_ = false;
  bool wanted_ = false;  ///< by a thread that has none: to be handed on
  thread_slots slots_;   ///< the holder's
  context grave_;
  context dead_context_;  ///< of who ended, until its stack is released
  stack_slice dead_slice_{};
  tasklet_frame* dead_frame_ = nullptr;  ///< instead, if it was a tasklet
  stack_choice dead_class_ = 0;

  std::atomic<fiber_core*> lifo_{nullptr};
  std::atomic<bool> lifo_theft_{false};
  basic_run_queue<fiber_core, ring_capacity> ring_;
  basic_spawn_stack<fiber_core, &fiber_core::next, &fiber_core::prev> fresh_;

  std::atomic<fiber_core*> pinned_head_{
      nullptr};  ///< runnable fibers that may run here only; others merely look whether there are any
  fiber_core* pinned_tail_ = nullptr;

  stack_cache stacks_;
  small_segment_cache segments_;
  slot_cache slot_cache_;
  fiber_frame* placed_ = nullptr;  ///< of the tasklet that has just got its slot and is run next
  std::uint64_t next_id_ = 0;
  std::uint64_t last_id_ = 0;
  bool trimming_ = false;   ///< idle for long enough to give stacks back
  bool searching_ = false;  ///< counted in the scheduler's searching_

  /// Holds the wheel, unless nobody else can reach it.
  struct timer_guard {
    explicit timer_guard(worker& w) noexcept : owner(w) {
      if (!owner.alone_) owner.timer_lock_.lock();
    }
    ~timer_guard() {
      if (!owner.alone_) owner.timer_lock_.unlock();
    }
    timer_guard(const timer_guard&) = delete;
    timer_guard& operator=(const timer_guard&) = delete;
    worker& owner;
  };
  basic_spinlock<> timer_lock_;
  timer_wheel timers_;
  std::atomic<std::size_t> armed_{0};

  std::unique_ptr<poller> poller_;
  time_point last_poll_{};
  worker_counters counters_;
  std::uint64_t random_;

  alignas(cacheline_bytes) basic_spinlock<> inbox_lock_;
  fiber_core* inbox_head_ = nullptr;
  fiber_core* inbox_tail_ = nullptr;
  worker_task* tasks_head_ = nullptr;
  worker_task* tasks_tail_ = nullptr;
  std::atomic<std::uint32_t> inbox_size_{0};
};

/// Puts the frame of c on a stack that is to be its own, whose class is c's.
struct laid_out {
  fiber_frame* frame;    ///< the stack's frames begin below it
  std::uintptr_t limit;  ///< of a segmented stack
};
laid_out lay_out_stack(fiber_core* c, stack_slice slice) noexcept;

/// Gives a frame what its fiber has inherited.
void inherit(fiber_core* c, wait_block& block) noexcept;

/// Whether c is a tasklet whose stack is not in place.
inline bool is_away(const fiber_core* c) noexcept { return c->is_at(spot::away); }

/// Whether somebody waits for the slot of c.
inline bool is_wanted(const fiber_core* c) noexcept {
  return c->slot_wanted.load(std::memory_order_relaxed);
}

/// Whether c is a tasklet that waited in its slot, and there is nothing to do but to look at its canaries.
inline bool is_only_guarded(const fiber_core* c) noexcept {
  return c->places.load(std::memory_order_relaxed) == spot::guarded &&
         (c->flags.load(std::memory_order_relaxed) & flag::old) == 0;
}

/// Whether c, which has departed without parking, goes elsewhere than to the end of the ring.
inline bool wants_care(const fiber_core* c) noexcept {
  return is_wanted(c) || (c->flags.load(std::memory_order_relaxed) & flag::stays) != 0;
}

/// Whether there is something to do to c before it runs again.
inline bool wants_attention(const fiber_core* c) noexcept {
  return (c->places.load(std::memory_order_relaxed) |
          (c->flags.load(std::memory_order_relaxed) & flag::old)) != 0;
}

/// The first of `count` ids that nobody else gets. Ids begin at 1.
std::uint64_t take_fiber_ids(std::uint64_t count) noexcept;

/// Gives back the core of a fiber that has ended and that nobody can join. t: the calling thread, or null.
void free_ended_core(fiber_core* c, worker_thread* t) noexcept;

}  // namespace tendril::detail
