// SPDX-License-Identifier: Apache-2.0
//
// What a worker is given by others, and takes from them: fibers and tasks that threads and other workers have sent to
// this one, fibers that nobody has, fibers that other workers have too many of, and those that stay on a thread which
// this worker has come to. All in the scheduler context, but for push_inbox(), which any thread may call. The queues of
// its own, on the way of each switch: worker.cpp.
#include "sched/scheduler.hpp"
#include "sched/worker.hpp"

#include <cstddef>
#include <iterator>
#include <utility>

namespace tendril::detail {

/// c has an affinity. It may have come to another worker with the thread that it stayed on.
__attribute__((noinline)) void worker::push_owned(fiber_core* c) noexcept {
  const auto index = static_cast<unsigned>(c->affinity);
  if (index == index_) push_pinned(c);
  else owner_.worker_at(index).push_inbox(c);
}

/// c was sent here, or queued here before the worker changed threads.
void worker::push_received(fiber_core* c) noexcept {
  if (c->affinity == affinity_stay && c->the_frame()->stay->home != thread_) owner_.requeue(c);
  else push_pinned(c);
}

/// The worker has come to a thread.
void worker::take_over_stayers() noexcept {
  fiber_core* lists[] = {pinned_head_.exchange(nullptr, std::memory_order_relaxed),
                         std::exchange(thread_->ready_here, nullptr)};
  pinned_tail_ = nullptr;
  for (fiber_core* c : lists)
    while (c != nullptr) push_received(std::exchange(c, c->next));
}

fiber_core* worker::steal() noexcept {
  const unsigned n = owner_.size();
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  const auto start = static_cast<unsigned>(random_ % n);
  for (unsigned i = 0; i != n; ++i) {
    worker& victim = owner_.worker_at((start + i) % n);
    if (&victim == this) continue;
    fiber_core* first = nullptr;
    std::size_t taken = victim.ring_.steal_into(ring_, first);
    if (taken == 0) taken = victim.fresh_.steal_into(fresh_, first);
    if (taken == 0 && victim.lifo_theft_.load(std::memory_order_relaxed)) {
      first = victim.lifo_.exchange(nullptr, std::memory_order_acquire);
      taken = first != nullptr ? 1 : 0;
    }
    if (taken != 0) {
      counters_.steals.add(taken);
      return first;
    }
  }
  return nullptr;
}

void worker::take_injected() noexcept {
  if (!owner_.has_injected()) return;
  fiber_core* taken[64];
  const std::size_t n = owner_.pop_injected(taken, std::size(taken));
  for (std::size_t i = 0; i != n; ++i)
    if (!ring_.push(taken[i])) overflow(taken[i]);
  wanted_ = owner_.worker_is_wanted();
}

void worker::push_inbox(fiber_core* c) noexcept {
  inbox_lock_.lock();
  c->next = nullptr;
  (inbox_tail_ != nullptr ? inbox_tail_->next : inbox_head_) = c;
  inbox_tail_ = c;
  inbox_size_.fetch_add(1, std::memory_order_relaxed);
  inbox_lock_.unlock();
  owner_.wake_worker(*this);
}

void worker::push_inbox(worker_task& t) noexcept {
  inbox_lock_.lock();
  t.next = nullptr;
  (tasks_tail_ != nullptr ? tasks_tail_->next : tasks_head_) = &t;
  tasks_tail_ = &t;
  inbox_size_.fetch_add(1, std::memory_order_relaxed);
  inbox_lock_.unlock();
  owner_.wake_worker(*this);
}

void worker::drain_inbox() noexcept {
  if (inbox_size_.load(std::memory_order_relaxed) == 0) return;
  inbox_lock_.lock();
  fiber_core* fibers = std::exchange(inbox_head_, nullptr);
  inbox_tail_ = nullptr;
  worker_task* tasks = std::exchange(tasks_head_, nullptr);
  tasks_tail_ = nullptr;
  inbox_size_.store(0, std::memory_order_relaxed);
  inbox_lock_.unlock();
  while (fibers != nullptr) {
    fiber_core* const c = fibers;
    fibers = c->next;
    push_received(c);
  }
  while (tasks != nullptr) {
    worker_task* const t = tasks;
    tasks = t->next;  // first: run() may end the task's life
    t->run(*t);
  }
}

}  // namespace tendril::detail
