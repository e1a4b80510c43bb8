// SPDX-License-Identifier: Apache-2.0
//
// An OS thread that holds a worker, or has lost it, or waits as a spare to be given one.
//
//                    given a worker                     takes off: the fiber
//     spare ------------------------> holds a worker    it runs goes on elsewhere
//       ^  ^                           |   |     ^  \                  |
//       |  '--- hands it on -----------'   |     |   '-- loses it ---> orphaned
//       '-- the runtime ends           '---------'                     |
//       ^            or idle for long                                  |
//       '--------------------------------------------------------------'
//
// The worker (worker.hpp) is what runs fibers: queues, timers, poller, caches. The thread is where they run:
// it has the C++ runtime's exception state, errno, a signal stack, and the context to which a fiber
// switches when there is no other. A fiber that blocks its thread (a system call nobody intercepts, a lock
// of another library, a park below a foreign frame) must not take the worker along: the monitor takes
// the worker away from the thread (worker_hold.hpp) and gives it to a spare thread (crew.hpp).
//
// An *orphaned* thread goes on in its fiber's code when the call that blocked returns, at the same time as
// the worker, on its new thread, runs other fibers. What the fiber then calls works as on a plain thread, with
// the fiber's own name, id, deadlines and stop requests: wakes go through the injection queue, cores
// come from the pool. At its next call that may switch, or at its end, the fiber *moves off*: it is queued
// like one that was just woken, and continues on whichever worker takes it. Not earlier: code that
// calls something which never switches, say, holding a std::mutex of another library or the address of a
// thread_local, is entitled to be on the same thread afterwards. So a fiber with an affinity is bound to
// its worker, not to a thread.
//
// A fiber that is *pinned* (thread_pin.hpp) has frames on the thread's own stack and cannot move off: its
// waits block the thread. Before it does, it gives the worker away itself.
//
// Who may call what: everything but `owner` and `number` belongs to the thread; what crew.hpp guards is
// marked.
#pragma once

#include "base/cacheline.hpp"
#include "base/check.hpp"
#include "base/split.hpp"
#include "context/context.hpp"
#include "context/exception_globals.hpp"
#include "platform/signal_stack.hpp"
#include "platform/thread_state.hpp"
#include "sched/core_pool.hpp"
#include "sched/fiber_core.hpp"
#include "sched/stay_record.hpp"
#include "sched/tasklet_frames.hpp"
#include "sched/thread_waiter.hpp"
#include "sched/worker_hold.hpp"
#include "stack/segmented.hpp"
#include "stack/stack_choice.hpp"

#include <tendril/detail/native_stack.hpp>

#include <condition_variable>
#include <cstdint>
#include <thread>

namespace tendril::detail {

class poller;
class scheduler;
class worker;

/// Written by its thread, now and then read by the monitor.
template <class T>
class observed {
 public:
  T get() const noexcept { return value_.load(std::memory_order_relaxed); }
  operator T() const noexcept { return get(); }
  T operator->() const noexcept { return get(); }
  void operator=(T value) noexcept { value_.store(value, std::memory_order_relaxed); }

 private:
  std::atomic<T> value_{};
};

/// What calls that have ended leave for the next ones, by fiber_core::next.
struct shell_list {
  fiber_core* first = nullptr;
  unsigned count = 0;  ///< with those that calls of the short way have out (hot_start.cpp)
  stack_choice what = no_stack_class;  ///< of all of them
};

struct alignas(cacheline_bytes) worker_thread final : segment_supply {
  explicit worker_thread(scheduler& s, bool is_guest = false) noexcept;
  worker_thread(const worker_thread&) = delete;
  worker_thread& operator=(const worker_thread&) = delete;

  // What a switch touches.
  basic_worker_hold<worker> hold;
  observed<fiber_core*> current;  ///< whom it runs; null: nobody, it is in the scheduler context
  /// Of `current`: how often it is pinned (thread_pin.hpp), and whether it is hot (hot_start.hpp).
  std::uint32_t pins = 0;
  static constexpr std::uint32_t hot = 1U << 31;
  thread_slots slots;
  context scheduler_context;
  core_cache cores;  ///< the thread's, not the worker's: usable without being inside
  tasklet_frame_cache tasklet_frames;  ///< the same

  scheduler& owner;
  platform::signal_stack
      signal_stack;  ///< without one an overflow still ends the process, only without its report
  /// Shells, see hot_start.hpp: of the runtime's default stack class; of tasklets, if that is another one.
  shell_list shells;
  shell_list tasklet_shells;
  const bool guest = false;      ///< no worker thread, but another that runs a hot fiber: guest.hpp
  fiber_core* moving = nullptr;  ///< has moved off, and is to be queued
  /// Wakes a pinned fiber's thread. Its own, so that each wake is one that unparked the fiber.
  thread_waiter pinned_waiter;
  stay_records stays_here;
  fiber_core* ready_here = nullptr;  ///< those that stay here and have waited for a worker

  // Guarded by the crew's lock.
  worker* given = nullptr;
  /// Whom it holds or is given. Others may look at it: it is the one that it had just now.
  std::atomic<worker*> works_for{nullptr};
  fiber_core* stay_first =
      nullptr;  ///< runnable, stay here, and wait for a worker: by fiber_core::next
  fiber_core* stay_last = nullptr;
  bool wants_worker = false;  ///< for those; it is among the spares
  worker_thread* next_wanting = nullptr;
  bool listed = false;  ///< among the spares
  bool ended = false;
  std::condition_variable called;
  std::atomic<platform::thread_number> number{0};
  std::thread thread;

  /// Whether its fiber cannot be switched away from: counted (thread_pin.hpp), or on the thread's own stack.
  bool pinned() const noexcept { return (pins & ~hot) != 0 || on_own_stack(); }
  bool is_hot() const noexcept { return (pins & hot) != 0; }
  /// Pinned or hot: its fiber does not make room for another of the worker's by a switch.
  bool stays() const noexcept { return pins != 0 || on_own_stack(); }
  bool on_own_stack() const noexcept {
    if constexpr (segments_built)
      return is_segmented(current->stack_class) && !surely_off_native_stack() &&
             platform::tendril_on_pinned_stack();
    return false;
  }

  /// Whether the caller is a signal's handler, on the thread's stack for these (SA_ONSTACK).
  bool on_signal_stack() const noexcept {
    return signal_stack.contains(__builtin_frame_address(0));
  }

  /// Neither pinned nor hot. Without a call; false says nothing where segments have been entered from the
  /// thread's own stack.
  bool surely_goes() const noexcept {
    if (pins != 0) return false;
    if constexpr (segments_built)
      return !is_segmented(current->stack_class) || surely_off_native_stack();
    return true;
  }

  // What its fiber's stack grows by: from the cache of the worker that it holds, or from the runtime.
  stack_slice take_segment(unsigned size_class) noexcept override;
  void give_segment(stack_slice slice, unsigned size_class) noexcept override;
  std::size_t segment_limit() const noexcept override;

  /// The life of the thread.
  void main() noexcept;
  /// Orphaned, on its fiber, not pinned: continues that fiber on a worker. Returns there, not inside.
  void move_off() noexcept;
  /// What `slots` and tls need of a guest; see guest.hpp.
  static void enter_as(worker_thread* t) noexcept;
};

/// The calling thread, if it belongs to a runtime.
///
/// Never inlined, and its result opaque: compilers keep the address of a thread-local over calls, and a
/// fiber that has migrated in between would go on with its former thread's. Every use after a possible
/// switch calls it anew.
TENDRIL_NO_SPLIT worker_thread* this_worker_thread() noexcept;

/// The fiber that runs on the calling thread, and whose runtime the thread belongs to; null on others. True
/// of orphaned threads, too, and at any time: neither changes but by a switch.
inline fiber_core* current_fiber() noexcept {
  const worker_thread* const t = this_worker_thread();
  return t != nullptr ? t->current.get() : nullptr;
}
inline scheduler* current_scheduler() noexcept {
  worker_thread* const t = this_worker_thread();
  return t != nullptr ? &t->owner : nullptr;
}
/// Whether the caller is a fiber that can be switched away from: not pinned to its thread.
inline bool can_park() noexcept {
  const worker_thread* const t = this_worker_thread();
  return t != nullptr && t->current != nullptr && !t->pinned();
}

/// What hold_worker() and worker_use do when held is no worker.
worker* resolve_claim(worker_thread& t) noexcept;
worker* hold_worker_slow(worker_thread& t) noexcept;
/// hold_to_leave() from the beginning: without arguments, so that its caller keeps nothing for this case.
worker* hold_to_leave_slow() noexcept;

/// The caller's worker, with the caller inside; whoever switches next leaves, or the caller does. Null on
/// plain threads, in the scheduler context, and for a pinned fiber whose thread is orphaned.
///
/// \switch  when the thread is orphaned: the fiber moves off first
inline worker* hold_worker() noexcept {
  worker_thread* const t = this_worker_thread();
  if (t == nullptr || t->current == nullptr) return nullptr;
  worker* const w = t->hold.enter_outermost();
  if (basic_worker_hold<worker>::is_worker(w)) [[likely]]
    return w;
  return hold_worker_slow(*t);
}
/// The same for who is about to be switched away from: null for a pinned fiber, and for a hot one, which goes
/// by park_in_place() or yield_in_place(). Not in the scheduler context.
///
/// \switch  as above
inline worker* hold_to_leave() noexcept {
  worker_thread* const t = this_worker_thread();
  if (t == nullptr) return nullptr;
  TENDRIL_ASSERT(t->current != nullptr, "the scheduler context neither parks nor yields");
  worker* const w = t->hold.enter_outermost();
  if (basic_worker_hold<worker>::is_worker(w) && t->surely_goes()) [[likely]]
    return w;
  return hold_to_leave_slow();
}

/// For a scope in which the caller's worker may be used. In it nobody switches, and no user's code runs.
class worker_use {
 public:
  worker_use() noexcept : thread_(this_worker_thread()) {
    if (thread_ == nullptr) return;
    const auto e = thread_->hold.enter();
    nested_ = e.nested;
    worker_ = e.worker;
    if (!basic_worker_hold<worker>::is_worker(worker_)) [[unlikely]]
      worker_ = resolve_claim(*thread_);
  }
  /// The same, but an orphaned fiber moves off first.
  /// \switch  then
  struct may_move {};
  explicit worker_use(may_move) noexcept;
  ~worker_use() {
    if (thread_ != nullptr) thread_->hold.leave(nested_);
  }
  worker_use(const worker_use&) = delete;
  worker_use& operator=(const worker_use&) = delete;

  /// Null: the thread has none.
  worker* get() const noexcept { return worker_; }
  /// The calling thread; null if it belongs to no runtime.
  const worker_thread* thread() const noexcept { return thread_; }
  /// The worker's; null without one.
  poller* events() const noexcept;

 private:
  worker_thread* thread_ = nullptr;
  worker* worker_ = nullptr;
  bool nested_ = false;
};

/// Parks the calling fiber, for which hold_to_leave() returned null. A hot one leaves its host. A pinned
/// one blocks its thread until it is unparked or the deadline has passed; the worker, if the thread
/// still holds it, is given away before.
void park_in_place(time_point deadline, const char* reason);

/// A yield of who is not simply switched away from. A hot fiber leaves its host. A plain thread or a pinned fiber
/// yields the processor; who yields wants others to run, so a pinned fiber gives a worker away that
/// has anything to do.
void yield_in_place() noexcept;

/// The calling fiber, if it is pinned, is about to block its thread by other means.
void about_to_block(const char* reason) noexcept;
/// The same without a report: it is known and meant that this call blocks.
void hand_over_to_block() noexcept;

}  // namespace tendril::detail
