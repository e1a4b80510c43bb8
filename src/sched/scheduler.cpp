// SPDX-License-Identifier: Apache-2.0
#include "sched/scheduler.hpp"

#include "base/check.hpp"
#include "base/sanitizer.hpp"
#include "base/yield.hpp"
#include "platform/memory.hpp"
#include "platform/switch.hpp"
#include "sched/blocked_places.hpp"
#include "sched/interruption.hpp"
#include "sched/registry.hpp"
#include "sched/stopped_threads.hpp"
#include "stack/segment_canary.hpp"
#include "stack/stack_choice.hpp"

#include <tendril/error.hpp>

#include <sched.h>
#include <algorithm>
#include <bit>
#include <cstdio>
#include <exception>
#include <system_error>

namespace tendril::detail {
namespace {

constexpr unsigned max_workers = 64;  // bits of sleepers_
constexpr std::chrono::milliseconds monitor_period{10};

[[noreturn]] void invalid_option(const std::string& what) {
  throw std::system_error(make_error_code(errc::invalid_option), what);
}

unsigned worker_count_for(unsigned wanted) {
  if (wanted > max_workers)
    invalid_option("runtime_options::workers is " + std::to_string(wanted) + "; at most " +
                   std::to_string(max_workers) + " are supported");
  if (wanted != 0) return wanted;
  return std::min(fiber::hardware_concurrency(), max_workers);
}

}  // namespace

scheduler::scheduler(runtime& handle, runtime_options options)
    : handle_(handle),
      options_(std::move(options)),
      worker_count_(worker_count_for(options_.workers)),
      slots_(choose_slot_options(options_.tasklets, options_.pack_cold_after,
                                 stack_source_.guard_mode(), worker::entry())),
      reporter_(options_),
      crew_(*this, options_.max_spare_threads, options_.spare_thread_idle) {
  platform::prepare_heavy_barrier();
  platform::prepare_switch();
  default_stack_class_ = choose_default_stack_class(options_.stack);
  constexpr std::size_t least = std::size_t{256} << 10, most = std::size_t{1} << 40;
  if (options_.max_stack_bytes < least || options_.max_stack_bytes > most)
    throw std::system_error(
        make_error_code(errc::invalid_option),
        "runtime_options::max_stack_bytes = " + std::to_string(options_.max_stack_bytes) +
            ": allowed are " + std::to_string(least) + " (256 KiB) to " + std::to_string(most) +
            " (1 TiB)");
  if constexpr (segments_built) platform::prepare_split_stacks();
  if (options_.seed == 0)
    options_.seed = static_cast<std::uint64_t>(clock::now().time_since_epoch().count());
  table_index_ = register_scheduler(*this, serial_);
  start_flags_.store(flag::alive | (table_index_ << flag::scheduler_shift),
                     std::memory_order_relaxed);
  try {
    for (unsigned i = 0; i != worker_count_; ++i)
      workers_.push_back(std::make_unique<worker>(*this, i));
    looks_.resize(worker_count_);
    for (auto& w : workers_) crew_.employ(*w);
    monitor_ = std::thread([this] { monitor_main(); });
  } catch (...) {
    exiting_.store(true, std::memory_order_release);
    for (auto& w : workers_) w->wake();
    crew_.end();
    unregister_scheduler(*this);
    throw;
  }
}

scheduler::~scheduler() {
  while (visitors_.load(std::memory_order_acquire) != 0) yield_thread();  // a few instructions
  {
    std::scoped_lock hold(monitor_mutex_);
    monitor_exit_ = true;
  }
  monitor_wake_.notify_all();
  monitor_.join();
  exiting_.store(true, std::memory_order_seq_cst);
  for (auto& w : workers_) w->wake();
  crew_.end();
  unregister_scheduler(*this);
  stack_source_.close();
}

// ---- Work from outside -----------------------------------------------------------------------

void scheduler::inject(fiber_core* c) noexcept { inject_chain(&c, 1); }

void scheduler::inject_chain(fiber_core* const* fibers, std::size_t count) noexcept {
  for (std::size_t i = 0; i + 1 < count; ++i) fibers[i]->next = fibers[i + 1];
  fibers[count - 1]->next = nullptr;
  injection_lock_.lock();
  (injection_tail_ != nullptr ? injection_tail_->next : injection_head_) = fibers[0];
  injection_tail_ = fibers[count - 1];
  injected_.store(injected_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
  injection_lock_.unlock();
  announce_work();
}

std::size_t scheduler::pop_injected(fiber_core** out, std::size_t room) noexcept {
  injection_lock_.lock();
  const std::uint64_t all = injected_.load(std::memory_order_relaxed);
  const std::size_t available = all % wanting_unit;
  const std::size_t share =
      std::min(room, available / worker_count_ + (available % worker_count_ != 0 ? 1 : 0));
  for (std::size_t i = 0; i != share; ++i) {
    out[i] = injection_head_;
    injection_head_ = injection_head_->next;
    out[i]->next = nullptr;
  }
  if (injection_head_ == nullptr) injection_tail_ = nullptr;
  injected_.store(all - share, std::memory_order_relaxed);
  injection_lock_.unlock();
  return share;
}

void scheduler::count_wanting(bool more) noexcept {
  injection_lock_.lock();
  const std::uint64_t all = injected_.load(std::memory_order_relaxed);
  injected_.store(more ? all + wanting_unit : all - wanting_unit, std::memory_order_relaxed);
  injection_lock_.unlock();
  if (more) announce_work();
}

void scheduler::schedule_woken(fiber_core* c) noexcept {
  const int affinity = c->affinity;
  if (affinity < affinity_any) {
    schedule_on_thread(c);
    return;
  }
  const worker_use here;
  worker* const w = here.get();
  if (w != nullptr && &w->owner() == this &&
      (affinity < 0 || static_cast<unsigned>(affinity) == w->index())) {
    w->push_woken(c);
    return;
  }
  const visit visiting(*this);
  if (affinity >= 0) workers_[static_cast<unsigned>(affinity)]->push_inbox(c);
  else inject(c);
}

/// c is tied to a thread.
__attribute__((noinline)) void scheduler::schedule_on_thread(fiber_core* c) noexcept {
  if (c->affinity == affinity_thread) {  // in park_in_place(), which takes it as its unparking
    c->the_frame()->thread->wake();
    return;
  }
  worker_thread& home = *c->the_frame()->stay->home;
  const worker_use here;
  if (worker* const w = here.get(); w != nullptr && &w->thread() == &home) {
    w->push_here(c);
    return;
  }
  const visit visiting(*this);
  // If the worker leaves the thread now, whoever has it then sends the fiber on.
  if (worker* const w = home.works_for.load(std::memory_order_acquire)) w->push_inbox(c);
  else crew_.await_worker(*c, home);
}

void scheduler::requeue(fiber_core* c) noexcept {
  if (c->affinity >= 0) workers_[static_cast<unsigned>(c->affinity)]->push_inbox(c);
  else if (c->affinity == affinity_any) inject(c);
  else schedule_on_thread(c);
}

void scheduler::check_affinity(int affinity) const {
  if (affinity >= 0 && static_cast<unsigned>(affinity) >= worker_count_)
    invalid_option("fiber_options::affinity is " + std::to_string(affinity) +
                   "; this runtime has " + std::to_string(worker_count_) + " workers, 0 to " +
                   std::to_string(worker_count_ - 1));
}

/// Out of line: who names unsplit code is moved to a larger segment each time it is entered.
[[noreturn, gnu::noinline]] static void throw_stopping() {
  throw std::system_error(make_error_code(errc::runtime_stopping), "tendril: starting a fiber");
}

void scheduler::start(fiber_core* c, worker* w) {
  if (exiting()) throw_stopping();
  if (c->affinity >= 0) check_affinity(c->affinity);
  const bool inside = w != nullptr && &w->owner() == this;
  c->id.store(inside ? w->take_id() : take_fiber_ids(1), std::memory_order_relaxed);
  c->places.store(is_tasklet(c->stack_class) ? spot::away : 0, std::memory_order_relaxed);
  c->slot_wanted.store(false, std::memory_order_relaxed);
  c->flags.store(flag::alive | (table_index_ << flag::scheduler_shift), std::memory_order_release);
  if (inside) {
    w->counters().spawned.add();
    if (c->affinity >= 0 && static_cast<unsigned>(c->affinity) != w->index())
      workers_[static_cast<unsigned>(c->affinity)]->push_inbox(c);
    else w->push_spawned(c);
  } else {
    const visit visiting(*this);
    spawned_outside_.fetch_add(1, std::memory_order_seq_cst);
    if (c->affinity >= 0) workers_[static_cast<unsigned>(c->affinity)]->push_inbox(c);
    else inject(c);
  }
}

stack_slice scheduler::take_stack(stack_choice what) noexcept {
  std::byte* base = nullptr;
  if (what == small_first) {
    if (segment_source_.take(&base, 1) == 0) return {};
    write_segment_canary(base);
    return {base, base + small_segment_bytes};
  }
  const unsigned size_class = size_class_of(what);
  if (stack_source_.take(size_class, &base, 1) == 0) return {};
  const stack_slice slice = slice_at(base, size_class, platform::page_size());
  unpoison(slice.low, static_cast<std::size_t>(slice.high - slice.low));
  return slice;
}

void scheduler::give_stack(stack_slice slice, stack_choice what) noexcept {
  std::byte* base = slice.low;
  if (what == small_first) {
    segment_source_.give(&base, 1);
    return;
  }
  const unsigned size_class = size_class_of(what);
  base = slice_base(slice.low, size_class);
  stack_source_.give(size_class, &base, 1, stack_source::memory::touched);
}

// ---- Sleeping and waking ---------------------------------------------------------------------

void scheduler::announce_work() noexcept {
  // Store-load with enter_sleep(): the caller queued, then looks for sleepers; a worker sets its bit,
  // then looks at the queues.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_relaxed) == 0) return;
  std::uint32_t nobody = 0;
  if (!searching_.compare_exchange_strong(nobody, 1, std::memory_order_seq_cst,
                                          std::memory_order_relaxed))
    return;
  for (std::uint64_t m = sleepers_.load(std::memory_order_seq_cst); m != 0;
       m = sleepers_.load(std::memory_order_seq_cst)) {
    const auto i = static_cast<unsigned>(std::countr_zero(m));
    const std::uint64_t bit = std::uint64_t{1} << i;
    if ((sleepers_.fetch_and(~bit, std::memory_order_seq_cst) & bit) != 0) {
      wakeups_.fetch_add(1, std::memory_order_relaxed);
      workers_[i]->wake();
      return;
    }
  }
  searching_.fetch_sub(1, std::memory_order_seq_cst);
}

void scheduler::wake_worker(worker& w) noexcept {
  std::atomic_thread_fence(std::memory_order_seq_cst);  // as in announce_work()
  const std::uint64_t bit = std::uint64_t{1} << w.index();
  if ((sleepers_.load(std::memory_order_relaxed) & bit) == 0) return;
  // Counted first: leave_sleep() takes the count over as soon as it finds its bit gone.
  searching_.fetch_add(1, std::memory_order_seq_cst);
  if ((sleepers_.fetch_and(~bit, std::memory_order_seq_cst) & bit) == 0) {
    end_search(true);  // whoever announced meanwhile took this call for a searcher
    return;
  }
  wakeups_.fetch_add(1, std::memory_order_relaxed);
  w.wake();
}

bool scheduler::begin_search() noexcept {
  // Half the workers at most: more thieves only get into each other's way.
  if (2 * searching_.load(std::memory_order_relaxed) >= worker_count_) return false;
  searching_.fetch_add(1, std::memory_order_seq_cst);
  return true;
}

void scheduler::end_search(bool found) noexcept {
  // Whoever queued while this worker searched woke nobody: the last searcher takes over that duty, by
  // announcing once more when it found work, by looking again in enter_sleep() when it did not.
  if (searching_.fetch_sub(1, std::memory_order_seq_cst) == 1 && found) {
    std::atomic_thread_fence(
        std::memory_order_seq_cst);  // no longer searching, then look: as in enter_sleep()
    for (const auto& w : workers_)
      if (w->has_stealable_work() || has_injected()) {
        announce_work();
        return;
      }
  }
}

bool scheduler::enter_sleep(worker& w, bool& claimed) noexcept {
  const std::uint64_t bit = std::uint64_t{1} << w.index();
  sleepers_.fetch_or(bit, std::memory_order_seq_cst);
  std::atomic_thread_fence(
      std::memory_order_seq_cst);  // pairs with announce_work() and wake_worker()
  if (work_in_sight(w)) {
    // Claimed meanwhile: then it is this worker that others see searching and rely on, so it must go on
    // as a searcher and pass the search on when it finds something. Giving the claim back here would
    // leave a second fiber beside a sleeping worker (found by the model: tests/model/idle.cpp).
    claimed = leave_sleep(w);
    return false;
  }
  notify_drained();
  return true;
}

bool scheduler::leave_sleep(worker& w) noexcept {
  const std::uint64_t bit = std::uint64_t{1} << w.index();
  const bool claimed = (sleepers_.fetch_and(~bit, std::memory_order_seq_cst) & bit) == 0;
  if (monitor_resting_.load(std::memory_order_relaxed)) wake_monitor();
  return claimed;
}

bool scheduler::work_in_sight(const worker& w) const noexcept {
  if (has_injected() || w.has_queued_work() || exiting()) return true;
  if (worker_count_ == 1) return false;
  return std::any_of(workers_.begin(), workers_.end(),
                     [](const auto& v) { return v->has_stealable_work(); });
}

bool scheduler::others_running(const worker& w) const noexcept {
  const std::uint64_t all =
      worker_count_ == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << worker_count_) - 1;
  const std::uint64_t others = all & ~(std::uint64_t{1} << w.index());
  return (sleepers_.load(std::memory_order_relaxed) & others) != others;
}

bool scheduler::all_asleep() const noexcept {
  const auto awake = worker_count_ - static_cast<unsigned>(
                                         std::popcount(sleepers_.load(std::memory_order_seq_cst)));
  return awake == 0;
}

// ---- The end ---------------------------------------------------------------------------------

std::uint64_t scheduler::alive() const noexcept {
  // Finished first: spawned >= finished at any moment, so equality of a later spawned with an earlier
  // finished means that at the moment in between nothing was alive.
  std::uint64_t finished = 0;
  for (const auto& w : workers_) finished += w->counters().finished.observe();
  std::atomic_thread_fence(std::memory_order_seq_cst);
  std::uint64_t spawned = spawned_outside_.load(std::memory_order_seq_cst);
  for (const auto& w : workers_) spawned += w->counters().spawned.get();
  return spawned - finished;
}

void scheduler::notify_drained() noexcept {
  // Called by a worker that has set its sleeping bit and fenced; drain_until() counts itself, fences,
  // then looks at the counters. The last worker to go to sleep sees the one or is seen by the other.
  if (drainers_.load(std::memory_order_relaxed) == 0 || alive() != 0) return;
  std::scoped_lock hold(drain_mutex_);
  drained_.notify_all();
}

bool scheduler::drain_until(time_point deadline) {
  std::unique_lock hold(drain_mutex_);
  drainers_.fetch_add(1, std::memory_order_seq_cst);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  while (alive() != 0) {
    // While stopping, look at the fibers again now and then: one that was just being started when
    // the stop was requested may have missed it.
    const bool again = stopping();
    const time_point until =
        again ? std::min(deadline, clock::now() + std::chrono::milliseconds(20)) : deadline;
    if (until == no_deadline) drained_.wait(hold);
    else drained_.wait_until(hold, until);
    if (alive() == 0 || clock::now() >= deadline) break;
    if (again) {
      hold.unlock();
      stop_all_fibers(*this);
      hold.lock();
    }
  }
  drainers_.fetch_sub(1, std::memory_order_seq_cst);
  return alive() == 0;
}

void scheduler::request_stop() noexcept {
  start_flags_.fetch_or(flag::stop_requested, std::memory_order_seq_cst);
  stop_all_fibers(*this);
  std::scoped_lock hold(drain_mutex_);
  drained_.notify_all();  // drain_until() changes to looking again
}

void scheduler::unhandled(const scheduler* s, fiber_core* c, std::exception_ptr error) noexcept {
  if (c->stop_requested()) {
    try {
      std::rethrow_exception(error);
    } catch (const std::system_error& e) {
      if (e.code() == std::errc::operation_canceled) return;  // it did what it was asked to
    } catch (...) {
    }
  }
  if (s != nullptr && s->options_.on_unhandled_exception) {
    s->options_.on_unhandled_exception(name_of(c), std::move(error));
    return;
  }
  const char* what = "an exception that is no std::exception";
  std::string text;
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    text = e.what();
    what = text.c_str();
  } catch (...) {
  }
  std::fprintf(stderr, "tendril: unhandled exception in fiber '%s' (id %llu): %s\n", name_of(c),
               static_cast<unsigned long long>(c->id.load(std::memory_order_relaxed)), what);
  std::terminate();
}

runtime_stats scheduler::stats() const {
  runtime_stats s;
  s.workers = worker_count_;
  for (const auto& w : workers_) {
    const worker_counters& c = w->counters();
    s.fibers_finished += c.finished.observe();
    s.switches += c.switches.get();
    s.steals += c.steals.get();
    s.polls += c.polls.get();
    s.sleeps += c.sleeps.get();
    s.timers_fired += c.timers.get();
  }
  for (const auto& w : workers_) s.fibers_spawned += w->counters().spawned.get();
  s.fibers_spawned += spawned_outside_.load(std::memory_order_relaxed);
  s.wakeups = wakeups_.load(std::memory_order_relaxed);
  s.stalls = stalls_.load(std::memory_order_relaxed);
  s.workers_handed_over = crew_.handed_over();
  s.pinned_parks = crew_.pinned_parks();
  s.spare_threads = crew_.spare_threads();
  s.stacks = stack_source_.stats();
  s.tasklets.slots = slots_.made();
  s.tasklets.patterns = slots_.patterns();
  const auto add = [&s](const slot_cache& c) {
    s.tasklets.captures += c.captures.get();
    s.tasklets.restores += c.restores.get();
    s.tasklets.bytes_copied += c.bytes_copied.get();
    s.tasklets.conflicts += c.conflicts.get();
    s.tasklets.own_stacks += c.own_stacks.get();
    s.tasklets.folds += c.folds.get();
    s.tasklets.unfolds += c.unfolds.get();
    s.tasklets.fold_input_bytes += c.fold_input.get();
    s.tasklets.fold_output_bytes += c.fold_output.get();
    s.tasklets.evictions += c.evictions.get();
    s.tasklets.discards += c.discards.get();
    s.tasklets.packs += c.packs.get();
    s.tasklets.unpacks += c.unpacks.get();
    s.tasklets.pack_input_bytes += c.pack_input.get();
    s.tasklets.pack_output_bytes += c.pack_output.get();
  };
  for (const auto& w : workers_) add(w->slots());
  add(outside_slots_);
  add(monitor_slots_);
  return s;
}

// ---- The monitor -----------------------------------------------------------------------------

void scheduler::wake_monitor() noexcept {
  std::scoped_lock hold(monitor_mutex_);
  monitor_resting_.store(false, std::memory_order_relaxed);
  monitor_wake_.notify_all();
}

void scheduler::monitor_main() noexcept {
  count_as_the_runtimes();
  std::unique_lock hold(monitor_mutex_);
  while (!monitor_exit_) {
    // At rest when everybody sleeps and there is nothing left to find out: the first worker that wakes
    // ends the rest. It may miss that by a moment; then the next one does.
    if (quiet_looks_ > 100 && deadlock_settled() && slots_.settled())
      monitor_resting_.store(true, std::memory_order_relaxed);
    if (monitor_resting_.load(std::memory_order_relaxed))
      monitor_wake_.wait(hold, [this] {
        return monitor_exit_ || !monitor_resting_.load(std::memory_order_relaxed);
      });
    else monitor_wake_.wait_for(hold, monitor_period, [this] { return monitor_exit_; });
    if (monitor_exit_) return;
    hold.unlock();
    look_for_stalls();
    follow_blocks();
    look_for_deadlock();
    tend_slots();
    hold.lock();
  }
}

void scheduler::look_for_stalls() noexcept {
  const std::uint64_t asleep = sleepers_.load(std::memory_order_relaxed);
  const time_point now = clock::now();
  for (unsigned i = 0; i != worker_count_; ++i) {
    worker& w = *workers_[i];
    last_look& last = looks_[i];
    const std::uint64_t switches = w.counters().switches.get();
    if (switches != last.switches || (asleep >> i & 1) != 0) {
      last = {switches, now};
      continue;
    }
    if (w.has_queued_work()) {
      stalls_.fetch_add(1, std::memory_order_relaxed);
      w.allow_lifo_theft();
      announce_work();
    }
    if (w.in_demand() || has_injected()) look_whether_blocked(w, now - last.since);
  }
}

void scheduler::look_whether_blocked(worker& w, std::chrono::nanoseconds stuck_for) noexcept {
  if (options_.max_spare_threads == 0) return;
  const platform::thread_number thread = crew_.thread_of(w);
  if (thread == 0 || platform::activity_of(thread) != platform::thread_activity::blocked) return;
  if (collector_stops(thread)) return;
  blocked_fiber who;
  const crew::hand_over result = crew_.take_over(w, who);
  if (result == crew::hand_over::returned) return;
  note_block(who, stuck_for);
  reporter_.blocked(w.index(), who, stuck_for, result);
}

void scheduler::look_for_deadlock() noexcept {
  std::uint64_t epoch = 0;
  for (const auto& w : workers_) epoch += w->counters().switches.get();
  bool quiet = all_asleep() && !has_injected() && !crew_.has_orphans() && epoch == seen_epoch_;
  if (epoch != seen_epoch_) deadlock_reported_ = false;
  seen_epoch_ = epoch;
  quiet_looks_ = quiet ? quiet_looks_ + 1 : 0;
  if (!quiet || deadlock_reported_ || monitor_period * quiet_looks_ < options_.deadlock_grace)
    return;
  std::size_t pending = 0;
  for (const auto& w : workers_) {
    if (w->pending_timers() != 0 || w->has_queued_work()) return;
    pending += w->events().pending();
  }
  if (pending != 0) return;
  if (alive() == 0 || !all_asleep() || crew_.has_orphans()) return;
  deadlock_reported_ = true;
  const std::string text =
      "tendril: all workers are idle, and no timer, I/O or pool work is pending: nothing inside "
      "this runtime "
      "can wake these fibers (a thread outside it still may):\n" +
      dump();
  std::fputs(text.c_str(), stderr);
  if (options_.on_deadlock == deadlock_policy::abort) std::abort();
  if (options_.on_deadlock == deadlock_policy::stop) request_stop();
}

/// In portions: stalls are to be found in time, and a million that turn cold at once are no reason to take a core.
void scheduler::tend_slots() noexcept {
  constexpr std::size_t most_bytes = std::size_t{512} << 10;
  constexpr unsigned most_looks = 4096;
  const std::uint32_t now = slot_clock_now();
  std::size_t bytes = 0;
  for (unsigned looks = 0; looks != most_looks && bytes < most_bytes; ++looks) {
    made_runnable others;
    const std::size_t n = slots_.tend(now, monitor_slots_, others);
    for (fiber_core* const c : {others.first, others.second})
      if (c != nullptr) scheduler_at(c->scheduler_index())->schedule_woken(c);
    if (n == slot_table::done) return;
    bytes += n;
  }
}

bool scheduler::deadlock_settled() const noexcept {
  return deadlock_reported_ || alive() == 0 ||
         monitor_period * quiet_looks_ > options_.deadlock_grace;
}

}  // namespace tendril::detail
