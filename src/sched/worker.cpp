// SPDX-License-Identifier: Apache-2.0
#include "sched/worker.hpp"

#include "base/check.hpp"
#include "sched/parked.hpp"
#include "sched/pinned_stack.hpp"
#include "sched/scheduler.hpp"
#include "sched/slot_guard.hpp"

#include <iterator>
#include <new>
#include <utility>

namespace tendril::detail {
worker::worker(scheduler& owner, unsigned index)
    : owner_(owner),
      index_(index),
      alone_(owner.worker_count() == 1),
      scheduler_index_(static_cast<std::uint8_t>(owner.table_index())),
      fresh_(owner.worker_count() == 1),
      stacks_(owner.stacks(), owner.options().warm_stack_bytes),
      segments_(owner.segments()),
      timers_(clock::now()),
      poller_(make_poller(owner.options().poller)),
      random_((owner.options().seed + index + 1) * 0x9E3779B97F4A7C15U) {}

worker::~worker() { owner_.slots().take_back(slot_cache_); }

// ---- The scheduler context -------------------------------------------------------------------

bool worker::run() noexcept {
  slots_ = thread_->slots;
  take_over_stayers();
  for (;;) {
    if (budget_ <= 0) {
      housekeeping();
      if (wanted_ && hand_on()) return false;
    }
    fiber_core* c = find_work();
    if (c == nullptr) {
      if (owner_.exiting()) break;
      if (wanted_ && hand_on()) return false;
      c = idle();
      if (c == nullptr) continue;
    }
    if (searching_) {
      searching_ = false;
      owner_.end_search(true);
    }
    if (!run_fiber(c)) return false;
  }
  if (searching_) owner_.end_search(false);
  return true;
}

bool worker::run_fiber(fiber_core* c) noexcept {
  worker_thread& t = *thread_;
  if (wants_attention(c) && !make_ready(c)) [[unlikely]]
    return true;
  prepare(c);
  t.current = c;
  // Null comes from a fiber that moved off: this worker is another thread's by then.
  if (switch_context(t.scheduler_context, c->ctx, this) == nullptr) return false;
  after_switch();
  flow_state::clear(slots_);
  return true;
}

/// True: c runs for the first time.
inline bool worker::prepare(fiber_core* c) noexcept {
  counters_.switches.add();
  if (c->the_frame() != nullptr) [[likely]]
    return false;
  attach_stack(c);
  return true;
}

/// Not split: it has a catch clause, for which the linker would move the fiber to a larger segment before
/// it has begun. What it calls has the whole first segment.
platform::next_context worker::fiber_main(void* transfer) noexcept {
  enter_context();
  fiber_core* self;
  {
    worker* const w = static_cast<worker*>(transfer);
    worker_thread& t = *w->thread_;
    self = t.current;
    w->after_switch();
    flow_state::clear(w->slots_);
    t.hold.leave();
  }
  for (;;) {
    run_and_settle(self);
    if (!is_tasklet(self->stack_class)) [[likely]]
      return end_current(hold_worker());
    platform::next_context out;
    self = end_in_slot(hold_worker(), out);
    if (self == nullptr) return out;
  }
}

/// What a fiber is for, to the end of its closure. The place of that holds its exception then.
[[gnu::always_inline]] inline void worker::run_and_settle(fiber_core* self) noexcept {
  std::exception_ptr error;
  try {
    self->ops->run(self->closure, self->ops);
  } catch (...) {
    error = std::current_exception();
  }
  if (error && self->done.holds(detached_marker())) {
    scheduler::unhandled(current_scheduler(), self, std::move(error));
    error = nullptr;
  }
  end_flow(self->the_frame()->block.flow);
  ::new (static_cast<void*>(self->closure)) std::exception_ptr(std::move(error));
}

// ---- Leaving a fiber -------------------------------------------------------------------------

/// Suspends `self` in favour of `next`, or of the scheduler context if that is null. Returns, perhaps on another
/// worker's thread, when somebody has scheduled it again: `this` is stale then.
__attribute__((noinline)) void worker::depart(fiber_core* self, departure how,
                                              fiber_core* next) noexcept {
  const flow_state flow(slots_);
  left_ = self;
  left_how_ = how;
  context& mine = self->ctx;
  bool first = false;
  if (next != nullptr) first = prepare(next);
  // Last: what was called before may have needed room.
  if constexpr (segments_built)
    if (is_segmented(self->stack_class)) platform::tendril_give_back_segments();
  thread_->current = next;
  void* back;
  if (next != nullptr) {
    back = switch_context(mine, next->ctx, this, first);
  } else {
    back = switch_context(mine, thread_->scheduler_context, this);
  }
  static_cast<worker*>(back)->arrive_here(flow);
}

/// Commits the departure of the fiber that was running before. On the stack of whoever came next.
[[gnu::always_inline]] inline void worker::after_switch() noexcept {
  const departure how = left_how_;
  left_how_ = departure::none;
  switch (how) {
    case departure::none:
      break;
    case departure::park: {
      fiber_core* const c = left_;
      std::byte* sp = nullptr;
      if (is_tasklet(c->stack_class)) {
        sp = slot_low(*c);
        guard_slot(*c, sp);
      }
      if (is_wanted(c)) [[unlikely]]
        make_room(c);
      // From here on a waker may run it elsewhere; if one was faster than the commit, it is ours again.
      if (!c->park.commit_park()) push_again(c);
      else if (sp != nullptr && is_wanted(c)) [[unlikely]] make_room_behind(sp);
      break;
    }
    case departure::yield:
      if (wants_care(left_)) [[unlikely]] {
        if (is_wanted(left_)) make_room(left_);
        push_again(left_);
      } else {
        push_ring(left_);
      }
      break;
    case departure::end:
      if constexpr (context::is_known_elsewhere) dead_context_.destroy();
      if (!is_tasklet(dead_class_)) [[likely]]
        release_stack(dead_slice_, dead_class_);
      else release_slot(*dead_frame_);
      break;
  }
}

inline void worker::arrive_here(const flow_state& flow) noexcept {
  after_switch();
  flow.restore(slots_);
  thread_->hold.leave();
}

void worker::arrive(worker* now, const flow_state& flow) noexcept { now->arrive_here(flow); }

void worker::park_current(worker* w) noexcept {
  worker_thread& t = *w->thread_;
  fiber_core* const self = t.current;
  if (self->park.try_consume()) {
    t.hold.leave();
    return;
  }
  w->depart(self, departure::park, w->next_fiber());
}

void worker::yield_current(worker* w) noexcept {
  worker_thread& t = *w->thread_;
  fiber_core* const next = w->next_fiber();
  if (next == nullptr && w->budget_ > 0 &&
      !is_wanted(t.current)) {  // nobody else, and no housekeeping due
    t.hold.leave();
    return;
  }
  w->depart(t.current, departure::yield, next);
}

/// What was stored just now with its neighbours, each by itself. Compilers load such words by a wide load, which waits
/// until both stores have left the store buffer.
template <class T>
static T alone(T& word) noexcept {
  return std::atomic_ref(word).load(std::memory_order_relaxed);
}

[[gnu::always_inline]] inline worker::ending worker::finish_current(worker* w) noexcept {
  TENDRIL_CHECK(w != nullptr && w->thread_->pins == 0, "a fiber ends unpinned");
  fiber_core* const self = w->thread_->current;
  fiber_frame* const frame = self->the_frame();
  const stack_choice what = self->stack_class;
  if (what == small_first) check_small_segment_canary(frame->slice.low);
  const context mine = self->ctx;
  const bool failed = self->error() != nullptr;
  self->frame.store(nullptr, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_release);  // see parked.hpp
  // What stays tells a later detach() whose the fiber was and whether it was asked to stop. A plain
  // store: who sets a stop bit at this moment sets it in vain either way.
  self->flags.store(self->flags.load(std::memory_order_relaxed) & ~flag::alive,
                    std::memory_order_relaxed);
  if (!failed) w->counters_.finished.publish();
  waiter* const joiner = self->done.holds(detached_marker()) ? detached_marker() : self->done.set();
  if (joiner == detached_marker()) {
    if (failed) {  // detached after fiber_main() had looked; the handler is user code and may switch
      self->frame.store(frame, std::memory_order_relaxed);
      w->thread_->hold.leave();
      scheduler::unhandled(current_scheduler(), self, std::move(self->error()));
      end_flow(frame->block.flow);  // the handler's
      w = hold_worker();
      self->frame.store(nullptr, std::memory_order_relaxed);
    }
    free_ended_core(self, w->thread_);
  } else if (joiner != nullptr) {
    w->unpark(joiner);
  }
  if (failed) w->counters_.finished.publish();
  // The joiner may have freed the core by now: self is not touched below.
  if (!is_tasklet(what)) [[likely]] {
    w->dead_slice_ = {alone(frame->slice.low), alone(frame->slice.high)};
    static_cast<own_frame*>(frame)->~own_frame();
  }
  return {w, frame, what, mine};
}

/// Switches away from it for good, to a fiber or to the scheduler context.
[[gnu::always_inline]] inline platform::next_context worker::leave_for(const ending& e,
                                                                       fiber_core* next) noexcept {
  worker* const w = e.by;
  const stack_choice what = e.what;
  w->dead_class_ = what;
  if constexpr (context::is_known_elsewhere) w->dead_context_ = e.mine;
  if (is_tasklet(what)) w->dead_frame_ = static_cast<tasklet_frame*>(e.frame);
  w->left_how_ = departure::end;
  if (next != nullptr) w->prepare(next);
  worker_thread& t = *w->thread_;
  t.current = next;
  if constexpr (segments_built)
    if (is_segmented(what)) platform::tendril_give_back_segments();
  return leave_context(w->grave_, next != nullptr ? next->ctx : t.scheduler_context, w);
}

platform::next_context worker::end_current(worker* w) noexcept {
  const ending e = finish_current(w);
  return leave_for(e, e.by->next_fiber());
}

/// Of a tasklet that was started by fiber_main(). Not null: who begins in its place. Null: `out` is to be returned.
__attribute__((noinline)) fiber_core* worker::end_in_slot(worker* w,
                                                          platform::next_context& out) noexcept {
  const ending e = finish_current(w);
  fiber_core* next = e.by->pick_again();
  if (next != nullptr && wants_attention(next)) {
    if (e.by->succeed(e, next)) return next;
    next = e.by->ready_one(next);
  }
  out = leave_for(e, next);
  return nullptr;
}

// ---- Queues ----------------------------------------------------------------------------------

void worker::push_pinned(fiber_core* c) noexcept {
  c->next = nullptr;
  if (pinned_tail_ != nullptr) pinned_tail_->next = c;
  else pinned_head_.store(c, std::memory_order_relaxed);
  pinned_tail_ = c;
  picks_until_fair_ = fairness_interval_pinned;
}

/// c has departed, on this thread, without parking.
__attribute__((noinline)) void worker::push_again(fiber_core* c) noexcept {
  if (c->affinity == affinity_stay) push_pinned(c);
  else push_ring(c);
}

/// In the scheduler context. True: the worker has another thread, and is not to be touched.
__attribute__((noinline)) bool worker::hand_on() noexcept {
  wanted_ = false;
  return owner_.threads().hand_on(*thread_);
}

fiber_core* worker::pop_pinned() noexcept {
  fiber_core* const c = pinned_head_.load(std::memory_order_relaxed);
  if (c != nullptr) {
    pinned_head_.store(c->next, std::memory_order_relaxed);
    if (c->next == nullptr) {
      pinned_tail_ = nullptr;
      picks_until_fair_ = fairness_interval;
    }
    c->next = nullptr;
  }
  return c;
}

inline void worker::push_ring(fiber_core* c) noexcept {
  if (alone_) {
    if (!ring_.push(c)) overflow(c);
    return;
  }
  if (c->affinity >= 0) {
    push_owned(c);
    return;
  }
  if (!ring_.push(c)) overflow(c);
  announce_if_long();
}

void worker::push_back(fiber_core* c) noexcept { push_ring(c); }

/// The ring is full: the oldest become everybody's. In small portions, because this runs on fibers' stacks.
void worker::overflow(fiber_core* c) noexcept {
  fiber_core* oldest[64];
  do {
    if (const std::size_t n = ring_.pop_half(oldest, std::size(oldest)))
      owner_.inject_chain(oldest, n);
  } while (!ring_.push(c));
}

/// One fiber that waits is this worker's own business; two are worth waking somebody for.
void worker::announce_if_long() noexcept {
  const std::size_t queued =
      ring_.size() + fresh_.size() + (lifo_.load(std::memory_order_relaxed) != nullptr ? 1 : 0);
  if (queued > 1) owner_.announce_work();
}

void worker::push_woken(fiber_core* c) noexcept {
  if (thread_->current == nullptr) {  // an event or a timer: in the order in which they came
    ++woken_by_events_;
    push_ring(c);
    return;
  }
  if (alone_) {
    fiber_core* const displaced = lifo_.load(std::memory_order_relaxed);
    lifo_.store(c, std::memory_order_relaxed);
    if (displaced != nullptr && !ring_.push(displaced)) overflow(displaced);
    return;
  }
  if (c->affinity >= 0) {
    push_owned(c);
    return;
  }
  // Release: a thief that takes it sees the fiber complete.
  if (fiber_core* const displaced = lifo_.exchange(c, std::memory_order_acq_rel))
    push_ring(displaced);
}

void worker::schedule_elsewhere(fiber_core* c) noexcept {
  scheduler_at(c->scheduler_index())->schedule_woken(c);
}

void worker::push_spawned(fiber_core* c) noexcept {
  if (c->affinity >= 0 && !alone_) {
    push_pinned(c);
    return;
  }
  fresh_.push(c);
  if (!alone_) announce_if_long();
}

inline fiber_core* worker::pop_ring() noexcept {
  decltype(ring_)::followers soon;
  fiber_core* const c = alone_ ? ring_.pop_exclusive(soon) : ring_.pop(soon);
  if (c == nullptr) {
    woken_by_events_ = 0;
    return nullptr;
  }
  // With hundreds of runnable fibers each switch would miss the cache three times over: on the core, on
  // the saved context, on the frames above it. Two fibers ahead is early enough (37 -> 15 ns a yield
  // among 1,000).
  if (soon.next != nullptr) {
    soon.next->ctx.prefetch();
    __builtin_prefetch(soon.next->the_frame(), 1);
    // Who waited for an event returns through the frames of its operation, each a miss and each on the way
    // to the next. Nothing for who merely yields: it would cost more than it brings.
    if (woken_by_events_ != 0) {
      --woken_by_events_;
      soon.next->ctx.prefetch_far();
    }
  } else {
    woken_by_events_ = 0;
  }
  if (soon.after_next != nullptr) __builtin_prefetch(soon.after_next);
  return c;
}

inline fiber_core* worker::pop_fresh() noexcept {
  fiber_core* next = nullptr;
  fiber_core* const c = fresh_.pop(next);
  // Of a core that nobody has touched since it was queued: the half with the closure. The other one the queue has
  // just written to.
  if (next != nullptr) __builtin_prefetch(next->closure, 1);
  return c;
}

inline fiber_core* worker::take_lifo() noexcept {
  fiber_core* c = lifo_.load(std::memory_order_relaxed);
  if (c == nullptr) {
    lifo_streak_ = 0;
    return nullptr;
  }
  if (alone_) {
    lifo_.store(nullptr, std::memory_order_relaxed);
  } else {
    c = lifo_.exchange(nullptr, std::memory_order_acquire);
    if (c == nullptr) return nullptr;
  }
  if (++lifo_streak_ > lifo_limit) {  // two that wake each other must not starve the rest
    lifo_streak_ = 0;
    if (!ring_.empty() || pinned_head_.load(std::memory_order_relaxed) != nullptr) {
      push_ring(c);
      return nullptr;
    }
  }
  return c;
}

/// The next of this worker's own that can run, or null: then the scheduler context looks further, or does
/// the housekeeping that is due.
[[gnu::always_inline]] inline fiber_core* worker::next_fiber() noexcept {
  fiber_core* const c = pick_next();
  if (c != nullptr && wants_attention(c)) [[unlikely]]
    return ready_one(c);
  return c;
}

/// The next of this worker's own, wherever its stack is. Inlined into each way of leaving a fiber.
[[gnu::always_inline]] inline fiber_core* worker::pick_next() noexcept {
  if (--budget_ <= 0) return nullptr;
  if (++picks_ >= picks_until_fair_) [[unlikely]] {
    picks_ = 0;
    lifo_theft_.store(false, std::memory_order_relaxed);
    // In turn: each may be there all the time.
    pinned_first_ = !pinned_first_;
    if (pinned_first_)
      if (fiber_core* const c = pop_pinned()) return c;
    if (fiber_core* const c = fresh_.pop_oldest()) return c;
    if (fiber_core* const c = pop_pinned()) return c;
  }
  if (fiber_core* const c = take_lifo()) return c;
  if (fiber_core* const c = pop_ring()) return c;
  if (fiber_core* const c = pop_pinned()) return c;
  return pop_fresh();
}

__attribute__((noinline)) fiber_core* worker::pick_again() noexcept { return pick_next(); }

/// c, which wants attention, or the next one that can run, or null.
__attribute__((noinline)) fiber_core* worker::ready_one(fiber_core* c) noexcept {
  if (is_only_guarded(c)) [[likely]] {
    check_slot_guard(*c);
    return c;
  }
  while (c != nullptr && wants_attention(c) && !make_ready(c)) c = pick_again();
  return c;
}

/// c is this worker's, and wants attention. True: it can be switched to. False: it waits for its slot.
bool worker::make_ready(fiber_core* c) noexcept {
  note_run(c);
  if (c->is_at(spot::guarded)) check_slot_guard(*c);
  return !is_away(c) || bring_in(c);
}

fiber_core* worker::find_work() noexcept {
  if (budget_ <= 0) budget_ = housekeeping_interval;
  ++budget_;  // this look is not a switch between fibers
  if (fiber_core* const c = pick_again()) return c;
  drain_inbox();
  take_injected();
  ++budget_;
  if (budget_ <= 0) budget_ = housekeeping_interval;
  if (fiber_core* const c = pick_again()) return c;
  return alone_ ? nullptr : steal();
}

bool worker::has_queued_work() const noexcept {
  return !ring_.empty() || !fresh_.empty() || lifo_.load(std::memory_order_relaxed) != nullptr ||
         inbox_size_.load(std::memory_order_relaxed) != 0;
}

std::uint64_t worker::take_id() noexcept {
  constexpr std::uint64_t block = 256;
  if (next_id_ == last_id_) {
    next_id_ = take_fiber_ids(block);
    last_id_ = next_id_ + block;
  }
  return next_id_++;
}

}  // namespace tendril::detail
