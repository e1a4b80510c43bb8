// SPDX-License-Identifier: Apache-2.0
//
// The one wait loop: what waiting.hpp declares. See there for the protocol.
#include "base/check.hpp"
#include "base/yield.hpp"
#include "sched/fiber_core.hpp"
#include "sched/scheduler.hpp"
#include "sched/slot_contract.hpp"
#include "sched/stopped_threads.hpp"
#include "sched/thread_waiter.hpp"
#include "sched/worker.hpp"

#include <tendril/detail/ambient.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/error.hpp>
#include <tendril/synchronization_context.hpp>

#include <algorithm>
#include <thread>

namespace tendril::detail {
namespace {

/// Why a wait that has not been signalled should end now; `waiting` when it should not.
outcome reason_to_give_up(const waiter* self, const wait_block& block,
                          const wait_options& o) noexcept {
  if (o.interruption != nullptr &&
      o.interruption->load(std::memory_order_acquire) == wait_interrupted)
    return outcome::interrupted;
  if (o.cancelable) {
    if (self->shields == 0 && self->what == waiter::kind::fiber &&
        (self->flags.load(std::memory_order_acquire) & flag::stop_requested) != 0)
      return outcome::canceled;
    if (o.stop != nullptr && o.stop->stop_requested()) return outcome::canceled;
  }
  const bool ambient = o.cancelable && self->shields == 0 && block.ambient_deadline != no_deadline;
  if (o.deadline == no_deadline && !ambient) [[likely]]
    return outcome::waiting;
  const time_point now = clock::now();
  if (now >= o.deadline) return outcome::timed_out;
  return ambient && now >= block.ambient_deadline ? outcome::expired : outcome::waiting;
}

/// What must be undone at the end of a wait: the timer, the callback.
class wait_setup {
 public:
  [[gnu::always_inline]] wait_setup(waiter* self, wait_block& block, const wait_options& o,
                                    time_point look_again = no_deadline)
      : self_(self), block_(block) {
    deadline_ = std::min(o.deadline, look_again);
    if (o.cancelable && self->shields == 0) deadline_ = std::min(deadline_, block.ambient_deadline);
    if (o.stop != nullptr && o.stop->stop_possible()) {
      stop_ = &place_for_stop();
      watch(*o.stop);
    }
    if (deadline_ != no_deadline && self->what == waiter::kind::fiber) arm();
  }
  ~wait_setup() {
    if (timer_home_ != nullptr) cancel();
    if (stop_ != nullptr) forget_stop();
  }
  wait_setup(const wait_setup&) = delete;
  wait_setup& operator=(const wait_setup&) = delete;

  /// Until the next unpark.
  void park(const char* reason) {
    if (self_->what == waiter::kind::fiber) {
      block_.reason.store(reason);
      if (worker* const w = hold_to_leave()) [[likely]]
        worker::park_current(w);
      else park_in_place(deadline_, reason);
    } else {
      rest([this] { static_cast<thread_waiter*>(self_)->block(deadline_); });
    }
  }

 private:
  /// Others reach the callback while the waiter is parked: a tasklet's is not on its stack.
  wait_stop& place_for_stop() noexcept {
    if (self_->what == waiter::kind::fiber)
      if (auto* const c = static_cast<fiber_core*>(self_); is_tasklet(c->stack_class)) [[unlikely]]
        return wait_extras_of_tasklet(*c).stop_callback;
    return stop_here_;
  }

  // The standard library waits for whoever holds the lock of a token's state, and for a callback that runs on another
  // thread: by calls that are intercepted. A fiber that parked in them would stand in two lines at a time, by one node.
  // Inside its worker it does not park; these waits are as short as those for a spin lock.
  [[gnu::noinline]] void watch(const std::stop_token& token) noexcept {
    const worker_use here;
    stop_->emplace(token, unpark_on_stop{self_});
  }
  [[gnu::noinline]] void forget_stop() noexcept {
    const worker_use here;
    stop_->reset();
  }

  // Out of line, so that waits without a deadline are short.
  [[gnu::noinline]] void arm() noexcept {
    // The thread of a pinned fiber waits with a limit, and may lose its worker before it cancels a timer.
    if (!can_park()) return;
    const worker_use here{worker_use::may_move{}};
    timer_home_ = here.get();
    block_.timer.who = self_;
    timer_home_->arm_timer(block_.timer, deadline_);
  }
  [[gnu::noinline]] void cancel() noexcept {
    const worker_use here{worker_use::may_move{}};
    timer_home_->cancel_timer(block_.timer);
  }

  waiter* self_;
  wait_block& block_;
  time_point deadline_;
  worker* timer_home_ =
      nullptr;                 ///< whose wheel the timer is in: on this stack, for the waiter alone
  wait_stop* stop_ = nullptr;  ///< where the callback is, if there is one
  wait_stop stop_here_;
};

// ---- Waits of flows with a context: see synchronization_context.hpp ----------------------------

/// Has the context unpark self, which waits until then. What was to be waited for has happened.
void resume_through(synchronization_context& context, waiter* self, wait_block& block) noexcept {
  self->flags.fetch_and(~flag::resumed, std::memory_order_relaxed);
  try {
    context.post({[](void* who) noexcept {
                    auto* const w = static_cast<waiter*>(who);
                    // Release: what the context's thread did before is before what the fiber does next.
                    w->flags.fetch_or(flag::resumed, std::memory_order_release);
                    unpark(w);
                  },
                  self});
  } catch (...) {
    TENDRIL_CHECK(false, "a synchronization context takes the resumption of a fiber");
  }
  wait_setup setup(self, block, {.cancelable = false});
  while ((self->flags.load(std::memory_order_acquire) & flag::resumed) == 0)
    setup.park("resumption by its context");
}

/// The host's: the context says when it wants to look again, or that it must not wait at all.
outcome wait_as_host(synchronization_context& context, waiter* self, wait_block& block,
                     bool (*done)(const void*) noexcept, const void* argument,
                     const wait_options& o) {
  host_wait about{.reason = o.reason, .since = clock::now(), .refusable = o.cancelable};
  outcome result = outcome::waiting;
  while (result == outcome::waiting) {
    const time_point look_again = context.before_host_waits(about);
    if (!about.refused) {
      wait_setup setup(self, block, o, look_again);
      setup.park(o.reason);
    }
    if (done(argument)) result = outcome::signalled;
    else if (about.refused) result = outcome::refused;
    else result = reason_to_give_up(self, block, o);
  }
  context.after_host_waited();
  return result;
}

[[gnu::noinline]] outcome wait_in_context(waiter* self, wait_block& block,
                                          bool (*done)(const void*) noexcept, const void* argument,
                                          const wait_options& o) {
  const flow_locals& flow = block.flow;
  outcome result = outcome::waiting;
  if (flow.host != nullptr) {
    result = wait_as_host(*flow.host, self, block, done, argument, o);
  } else {
    wait_setup setup(self, block, o);
    while (result == outcome::waiting) {
      setup.park(o.reason);
      result = done(argument) ? outcome::signalled : reason_to_give_up(self, block, o);
    }
  }
  if (o.on_context && !flow.off_context && flow.sync != nullptr && flow.sync != flow.host &&
      self->what == waiter::kind::fiber)
    resume_through(*flow.sync, self, block);
  return result;
}

/// Whether nothing but what is waited for ends the wait of a fiber, as far as one can tell before it parks, so that
/// there is neither anything to set up nor to undo. Not exact: false only costs time.
inline bool is_plain_wait(const waiter* self, const wait_block& block,
                          const wait_options& o) noexcept {
  return (self->flags.load(std::memory_order_acquire) &
          (flag::stop_requested | flag::has_context)) == 0 &&
         o.deadline == no_deadline && o.stop == nullptr && o.interruption == nullptr &&
         block.ambient_deadline == no_deadline;
}

template <class Done>
[[gnu::noinline]] outcome wait_with_ends(waiter* self, Done& done, const wait_options& o) {
  wait_block& block = block_of(self);
  if (const outcome early = reason_to_give_up(self, block, o); early != outcome::waiting)
    return early;
  if ((self->flags.load(std::memory_order_relaxed) & flag::has_context) != 0) [[unlikely]]
    return wait_in_context(
        self, block,
        [](const void* d) noexcept {
          return (*static_cast<const std::remove_reference_t<Done>*>(d))();
        },
        std::addressof(done), o);
  wait_setup setup(self, block, o);
  for (;;) {
    setup.park(o.reason);
    if (done()) return outcome::signalled;
    if (const outcome why = reason_to_give_up(self, block, o); why != outcome::waiting) return why;
  }
}

template <class Done>
[[gnu::always_inline]] inline outcome wait_loop(waiter* self, Done&& done, const wait_options& o) {
  if (self->what == waiter::kind::fiber) [[likely]] {
    wait_block& block = static_cast<fiber_core*>(self)->the_frame()->block;
    while (is_plain_wait(self, block, o)) {
      block.reason.store(o.reason);
      if (worker* const w = hold_to_leave()) [[likely]]
        worker::park_current(w);
      else park_in_place(no_deadline, o.reason);
      if (done()) return outcome::signalled;
    }
  }
  return wait_with_ends(self, done, o);
}

}  // namespace

wait_block& block_of(waiter* w) noexcept {
  return w->what == waiter::kind::fiber ? static_cast<fiber_core*>(w)->the_frame()->block
                                        : static_cast<thread_waiter*>(w)->wait;
}

value_cell& value_cell_of(waiter* w) noexcept {
  if (w->what == waiter::kind::thread) return static_cast<thread_waiter*>(w)->cell;
  auto* const c = static_cast<fiber_core*>(w);
  if (is_tasklet(c->stack_class)) [[unlikely]]
    return wait_extras_of_tasklet(*c).cell;
  return static_cast<own_frame*>(c->the_frame())->cell;
}

waiter* current_waiter() {
  if (fiber_core* const c = current_fiber()) [[likely]]
    return c;
  return &this_thread_waiter();
}

wait_node& own_node(waiter* w) noexcept {
  wait_node& n = block_of(w).node;
  n.who = w;
  n.result.store(outcome::waiting, std::memory_order_relaxed);
  n.index = 0;
  n.cell = nullptr;
  n.claim = nullptr;
  return n;
}

void* own_cell(waiter* w) noexcept { return value_cell_of(w).bytes; }

void tiny_lock::lock_slow() noexcept {
  if (may_be_in_a_slot(this)) [[unlikely]]
    check_lock_place(this);
  for (unsigned spins = 0;; ++spins) {
    while (word_.load(std::memory_order_relaxed) != 0) {
      if (++spins % 64 != 0) std_atomics::spin_pause();
      else yield_thread();  // the holder's thread may have been preempted
    }
    if (word_.exchange(1, std::memory_order_acquire) == 0) return;
  }
}

void unpark(waiter* w) noexcept {
  if (w->what == waiter::kind::thread) {
    static_cast<thread_waiter*>(w)->wake();
    return;
  }
  auto* const core = static_cast<fiber_core*>(w);
  if (!core->park.unpark()) return;
  // Parked until now: the core is this caller's to schedule, so its fields are stable.
  if (waits_in_its_slot(*core)) [[unlikely]]
    check_wake(*core);
  const worker_use here;
  if (here.get() != nullptr) here.get()->schedule(core);
  else scheduler_at(core->scheduler_index())->schedule_woken(core);
}

outcome wait_locked(tiny_lock& lock, wait_list& list, wait_node& node, const wait_options& o) {
  const wait_place place(node.who, &list, o.reason);
  lock.unlock();
  const outcome why = wait_loop(
      node.who,
      [&node]() noexcept {
        return node.result.load(std::memory_order_acquire) != outcome::waiting;
      },
      o);
  if (why == outcome::signalled) return node.result.load(std::memory_order_relaxed);
  lock.lock();
  const outcome result = node.result.load(std::memory_order_relaxed);
  if (result == outcome::waiting) list.remove(node);
  lock.unlock();
  return result == outcome::waiting ? why : result;
}

outcome wait_until_done(bool (*done)(const void*) noexcept, const void* argument,
                        const wait_options& o) {
  if (done(argument)) return outcome::signalled;
  return wait_loop(
      current_waiter(), [=]() noexcept { return done(argument); }, o);
}

outcome completion::wait_slow(const wait_options& o) { return wait_as(current_waiter(), o); }

outcome completion::wait_as(waiter* self, const wait_options& o) {
  if (!install(self)) return outcome::signalled;
  const outcome why = wait_loop(
      self, [this]() noexcept { return is_set(); }, o);
  if (why == outcome::signalled || !withdraw(self)) return outcome::signalled;
  return why;
}

std::error_code to_error(outcome result) noexcept {
  switch (result) {
    case outcome::waiting:
    case outcome::signalled:
      return {};
    case outcome::closed:
      return std::make_error_code(std::errc::bad_file_descriptor);
    case outcome::timed_out:
    case outcome::expired:
      return std::make_error_code(std::errc::timed_out);
    case outcome::canceled:
      return std::make_error_code(std::errc::operation_canceled);
    case outcome::interrupted:
      return std::make_error_code(std::errc::interrupted);
    case outcome::refused:
      return make_error_code(errc::would_deadlock);
  }
  return {};
}

void throw_outcome(outcome result, const char* what) {
  throw std::system_error(to_error(result), what);
}

time_point ambient_deadline() noexcept { return block_of(current_waiter()).ambient_deadline; }
void set_ambient_deadline(time_point t) noexcept {
  block_of(current_waiter()).ambient_deadline = t;
}
unsigned enter_shield() noexcept { return ++current_waiter()->shields; }
void leave_shield() noexcept { --current_waiter()->shields; }

}  // namespace tendril::detail
