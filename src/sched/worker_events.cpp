// SPDX-License-Identifier: Apache-2.0
//
// A worker's clock and events: what it looks after between fibers every so often, its timers, and its sleep when there
// is nothing to run. In the scheduler context, but for arm_timer() and cancel_timer(), which any thread may call.
#include "sched/scheduler.hpp"
#include "sched/worker.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>

namespace tendril::detail {

void worker::housekeeping() noexcept {
  budget_ = housekeeping_interval;
  drain_inbox();
  take_injected();
  const bool timers = armed_.load(std::memory_order_relaxed) != 0;
  const bool sources = poller_->has_sources();
  if (!timers && !sources) return;
  const time_point now = clock::now();
  if (now - last_poll_ < poll_interval) return;
  last_poll_ = now;
  if (timers) expire_timers(now);
  if (sources) poll(std::chrono::nanoseconds::zero());
}

void worker::poll(std::chrono::nanoseconds timeout) noexcept {
  counters_.polls.add();
  poller_->poll(timeout);
}

void worker::expire_timers(time_point now) noexcept {
  for (;;) {
    constexpr std::size_t portion = 64;
    timer_node* nodes[portion];
    waiter* due[portion];
    std::size_t n = 0;
    {
      timer_guard hold(*this);
      if (timers_.advance(now)) n = timers_.pop_due(nodes, portion);
      // Who is read under the lock: once it is released the node is its owner's again.
      for (std::size_t i = 0; i != n; ++i) due[i] = static_cast<wait_timer*>(nodes[i])->who;
      armed_.store(timers_.size(), std::memory_order_relaxed);
    }
    for (std::size_t i = 0; i != n; ++i) unpark(due[i]);
    counters_.timers.add(n);
    if (n != portion) return;
  }
}

void worker::arm_timer(wait_timer& t, time_point deadline) noexcept {
  // Long waits may end a little later (never earlier), so that those that end at about the same time share
  // one wake-up of the worker: up to 1 ms from 128 ms on, as fine as other runtimes' clocks are. The time
  // of the last poll is near enough to now for this.
  using namespace std::chrono;
  constexpr nanoseconds slack{1 << 20};
  if (deadline - last_poll_ >= 128 * slack && deadline < no_deadline - slack) {
    const auto late = deadline.time_since_epoch() % slack;
    if (late.count() != 0) deadline += slack - late;
  }
  timer_guard hold(*this);
  timers_.arm(t, deadline);
  armed_.store(timers_.size(), std::memory_order_relaxed);
}

bool worker::cancel_timer(wait_timer& t) noexcept {
  timer_guard hold(*this);
  const bool was_pending = timers_.cancel(t);
  armed_.store(timers_.size(), std::memory_order_relaxed);
  return was_pending;
}

fiber_core* worker::idle() noexcept {
  if (!alone_ && owner_.others_running(*this)) {
    if (!searching_) searching_ = owner_.begin_search();
    if (searching_) {
      const time_point end = clock::now() + spin_time;
      do {
        for (int i = 0; i != 32; ++i) {
          std_atomics::spin_pause();
          if (owner_.has_injected() || inbox_size_.load(std::memory_order_relaxed) != 0)
            return nullptr;
        }
        if (fiber_core* const c = steal()) return c;
      } while (clock::now() < end);
    }
  }
  if (searching_) {
    searching_ = false;
    owner_.end_search(false);
  }
  if (!owner_.enter_sleep(*this, searching_)) return nullptr;
  std::chrono::nanoseconds timeout{-1};
  if (armed_.load(std::memory_order_relaxed) != 0) {
    std::optional<time_point> next;
    {
      timer_guard hold(*this);
      next = timers_.next_deadline();
    }
    if (next) timeout = std::max(*next - clock::now(), clock::duration::zero());
  }
  // A burst of fibers leaves warm stacks behind. They are worth keeping while it may come again, and are
  // given back, in portions between polls, when nothing has happened for a while.
  const bool trim_later = stacks_.worth_trimming();
  time_point slept_at{};
  if (trim_later) {
    const auto patience =
        trimming_ ? std::chrono::nanoseconds::zero() : std::chrono::nanoseconds(trim_after);
    if (timeout < timeout.zero() || timeout > patience) timeout = patience;
    slept_at = clock::now();
  }
  if (timeout != timeout.zero()) counters_.sleeps.add();
  poll(timeout);
  searching_ = owner_.leave_sleep(*this);
  budget_ = housekeeping_interval;
  last_poll_ = clock::now();
  if (armed_.load(std::memory_order_relaxed) != 0) expire_timers(last_poll_);
  if (trim_later) {
    trimming_ = !has_queued_work() && (trimming_ || last_poll_ - slept_at >= trim_after);
    if (trimming_) stacks_.trim_portion();
  }
  return nullptr;
}

}  // namespace tendril::detail
