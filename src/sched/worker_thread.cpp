// SPDX-License-Identifier: Apache-2.0
#include "sched/worker_thread.hpp"

#include "base/check.hpp"
#include "base/yield.hpp"
#include "platform/memory.hpp"
#include "platform/signal_stack.hpp"
#include "sched/blocked_report.hpp"
#include "sched/hot_start.hpp"
#include "sched/parked.hpp"
#include "sched/scheduler.hpp"
#include "sched/stopped_threads.hpp"
#include "sched/thread_pin.hpp"
#include "sched/thread_words.hpp"
#include "sched/worker.hpp"

#include <utility>

namespace tendril::detail {

constinit thread_local worker_thread* tls_thread = nullptr;

__attribute__((noinline)) worker_thread* this_worker_thread() noexcept {
  worker_thread* t = tls_thread;
  asm volatile("" : "+r"(t) : : "memory");
  return t;
}

// Here, where the thread-local is: a call less for the most frequent question of code that uses contexts.
__attribute__((noinline)) flow_locals& this_flow() {
  worker_thread* t = tls_thread;
  asm volatile("" : "+r"(t) : : "memory");
  if (t != nullptr && t->current != nullptr) [[likely]]
    return t->current->the_frame()->block.flow;
  return this_thread_waiter().wait.flow;
}

__attribute__((noinline)) flow_locals* existing_flow() noexcept {
  if (const fiber_core* const c = current_fiber()) [[likely]]
    return &c->the_frame()->block.flow;
  thread_waiter* const w = existing_thread_waiter();
  return w != nullptr ? &w->wait.flow : nullptr;
}

__attribute__((noinline)) void worker_thread::enter_as(worker_thread* t) noexcept {
  tls_thread = t;
}

worker_thread::worker_thread(scheduler& s, bool is_guest) noexcept : owner(s), guest(is_guest) {
  shells.what = s.default_stack_class();
  tasklet_shells.what = any_tasklet;
}

void worker_thread::main() noexcept {
  const collected_thread collected(*this);
  signal_stack.install();
  slots = thread_slots::of_this_thread();
  scheduler_context.adopt_thread();
  number.store(platform::this_thread_number(), std::memory_order_relaxed);
  tls_thread = this;
  [[maybe_unused]] const thread_segments_if_built segments(*this);
  for (;;) {
    worker* w = nullptr;
    rest([&] { w = owner.threads().next_worker(*this); });
    if (w == nullptr) break;
    hold.take(w);
    if (w->run()) break;  // the runtime ends
    // The worker has another thread by now, and the fiber that this one ran has left it.
    fiber_core* const c = std::exchange(moving, nullptr);
    if (c == nullptr) continue;  // handed on
    owner.requeue(c);
    owner.threads().moved_off();
  }
  free_shells(*this, nullptr);
  tls_thread = nullptr;
  signal_stack.uninstall();
}

__attribute__((noinline)) void worker_thread::move_off() noexcept {
  if (is_hot()) {
    leave_host(*this, hot_departure::move);
    return;
  }
  const flow_state flow(slots);
  fiber_core* const self = current;
  current = nullptr;
  if constexpr (segments_built)
    if (is_segmented(self->stack_class)) platform::tendril_give_back_segments();
  moving = self;
  void* const back = switch_context(self->ctx, scheduler_context, nullptr);
  worker::arrive(static_cast<worker*>(back), flow);
}

// ---- Segments --------------------------------------------------------------------------------

stack_slice worker_thread::take_segment(unsigned size_class) noexcept {
  const worker_use here;
  if (worker* const w = here.get()) return w->stacks().acquire(size_class);
  std::byte* base = nullptr;
  if (owner.stacks().take(size_class, &base, 1) == 0) return {};
  return slice_at(base, size_class, platform::page_size());
}

void worker_thread::give_segment(stack_slice slice, unsigned size_class) noexcept {
  const worker_use here;
  if (worker* const w = here.get()) {
    w->stacks().release(slice, size_class);
    return;
  }
  std::byte* base = slice_base(slice.low, size_class);
  owner.stacks().give(size_class, &base, 1, stack_source::memory::touched);
}

std::size_t worker_thread::segment_limit() const noexcept {
  return owner.options().max_stack_bytes;
}

// ---- Holding a worker ------------------------------------------------------------------------

__attribute__((noinline)) worker* resolve_claim(worker_thread& t) noexcept {
  // Null is final, until the thread itself asks for another worker. A worker is ours again.
  worker* const w = t.hold.held();
  return basic_worker_hold<worker>::is_claimed(w) ? t.owner.threads().resolve(t) : w;
}

__attribute__((noinline)) worker* hold_worker_slow(worker_thread& thread) noexcept {
  for (worker_thread* t = &thread;; t = this_worker_thread()) {
    if (worker* const w = resolve_claim(*t)) return w;
    if (t->pinned()) return nullptr;
    t->move_off();
    worker* const w = this_worker_thread()->hold.enter_outermost();
    if (basic_worker_hold<worker>::is_worker(w)) return w;
  }
}

__attribute__((noinline)) worker* hold_to_leave_slow() noexcept {
  worker_thread* const t = this_worker_thread();
  worker* const w = t->hold.enter_outermost();
  if (t->stays()) return nullptr;
  return basic_worker_hold<worker>::is_worker(w) ? w : hold_worker_slow(*t);
}

worker_use::worker_use(may_move) noexcept : worker_(hold_worker()) {
  // A fiber that may move is in no other such scope.
  if (worker_ != nullptr) thread_ = &worker_->thread();
}

poller* worker_use::events() const noexcept {
  return worker_ != nullptr ? &worker_->events() : nullptr;
}

// ---- Pinned fibers ---------------------------------------------------------------------------

void unpin_thread() noexcept {
  worker_thread* const t = this_worker_thread();
  if (t == nullptr || t->current == nullptr) return;
  TENDRIL_CHECK((t->pins & ~worker_thread::hot) != 0,
                "a fiber is unpinned as often as it was pinned");
  if (--t->pins != 0) return;  // or hot
  bool orphaned;
  {
    const worker_use here;
    orphaned = here.get() == nullptr;
  }
  if (orphaned) t->move_off();
}

namespace {

/// Inside, w held or null: sees to it that nobody waits for this thread. Not inside afterwards. False: it
/// has to keep the worker.
bool leave_worker(worker_thread& t, worker* w, const char* reason) noexcept {
  crew& threads = t.owner.threads();
  threads.count_pinned_park();
  const bool given = w == nullptr || threads.give_away(t);
  t.hold.leave();        // if there was no spare: the monitor may try again
  ensure_id(t.current);  // for the report
  t.owner.reporter().pinned(*t.current, reason, given);
  return given;
}

}  // namespace

void park_in_place(time_point deadline, const char* reason) {
  worker_thread& t = *this_worker_thread();
  fiber_core* const self = t.current;
  if (self->park.try_consume()) {
    t.hold.leave();
    return;
  }
  if (!t.pinned()) {
    leave_host(t, hot_departure::park);
    return;
  }
  worker* const w = hold_worker();
  const bool given = leave_worker(t, w, reason);
  // From commit_park() on whoever unparks the fiber reads these, and then wakes the thread: exactly once,
  // because unpark() is true exactly once.
  const std::int8_t affinity = std::exchange(self->affinity, affinity_thread);
  stay_record* const stay = affinity == affinity_stay ? self->the_frame()->stay : nullptr;
  self->the_frame()->thread = &t.pinned_waiter;
  if (self->park.commit_park()) {
    const bool rests = given && !t.guest && deadline == no_deadline;
    if (rests) t.owner.threads().rests();
    const bool woken = t.pinned_waiter.block(deadline);
    // Too late, but somebody was faster and is about to wake us.
    if (!woken && !self->park.unpark()) t.pinned_waiter.block(no_deadline);
    if (rests) t.owner.threads().goes_on();
    note_run(self);  // nobody picks it
  }
  self->affinity = affinity;
  if (stay != nullptr) self->the_frame()->stay = stay;
}

void yield_in_place() noexcept {
  if (worker_thread* const t = this_worker_thread();
      t != nullptr && t->current != nullptr && t->is_hot() && !t->pinned()) {
    leave_host(*t, hot_departure::yield);
    return;
  }
  if (worker* const w = hold_worker()) {
    if (w->in_demand()) leave_worker(w->thread(), w, "this_fiber::yield");
    else w->thread().hold.leave();
  }
  yield_thread();
}

void about_to_block(const char* reason) noexcept {
  worker_thread* const t = this_worker_thread();
  if (t == nullptr || t->current == nullptr || !t->pinned()) return;
  leave_worker(*t, hold_worker(), reason);
}

void hand_over_to_block() noexcept {
  worker_thread* const t = this_worker_thread();
  if (t == nullptr || t->current == nullptr || !t->pinned()) return;
  if (hold_worker() != nullptr) (void)t->owner.threads().give_away(*t);
  t->hold.leave();
}

}  // namespace tendril::detail
