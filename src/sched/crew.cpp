// SPDX-License-Identifier: Apache-2.0
#include "sched/crew.hpp"

#include "sched/scheduler.hpp"
#include "sched/worker.hpp"

#include <new>
#include <system_error>
#include <utility>

namespace tendril::detail {

crew::crew(scheduler& owner, unsigned max_spares, std::chrono::nanoseconds spare_idle) noexcept
    : owner_(owner), max_spares_(max_spares), spare_idle_(spare_idle) {}

void crew::employ(worker& w) {
  std::scoped_lock hold(mutex_);
  worker_thread& t = *threads_.emplace_back(std::make_unique<worker_thread>(owner_));
  spares_.reserve(threads_.size());
  employ_locked(w, t);
  try {
    t.thread = std::thread([&t] { t.main(); });
  } catch (...) {
    threads_.pop_back();
    throw;
  }
}

void crew::end() noexcept {
  {
    std::scoped_lock hold(mutex_);
    ending_ = true;
    for (worker_thread* const t : spares_) t->called.notify_one();
  }
  // Nobody adds to the list any more: the monitor has ended, and no fiber is left.
  for (const auto& t : threads_)
    if (t->thread.joinable()) t->thread.join();
}

// ---- Spares ----------------------------------------------------------------------------------

/// One to give a worker to, off the list of spares; null when there must not be one more.
worker_thread* crew::spare_locked() noexcept {
  if (worker_thread* const t = wanting_first_) {
    satisfy_locked(*t);
    return t;
  }
  if (!spares_.empty()) {
    worker_thread* const t = spares_.back();
    spares_.pop_back();
    t->listed = false;
    return t;
  }
  if (extra_.load(std::memory_order_relaxed) >= max_spares_) return nullptr;
  std::erase_if(threads_, [](const std::unique_ptr<worker_thread>& t) {
    if (!t->ended) return false;
    t->thread.join();  // it has let go of the lock for the last time
    return true;
  });
  try {
    spares_.reserve(threads_.size() + 1);  // so that becoming a spare never allocates
    worker_thread& t = *threads_.emplace_back(std::make_unique<worker_thread>(owner_));
    try {
      t.thread = std::thread([&t] { t.main(); });
    } catch (...) {
      threads_.pop_back();
      return nullptr;
    }
    extra_.fetch_add(1, std::memory_order_relaxed);
    return &t;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void crew::list_locked(worker_thread& t) noexcept {
  spares_.push_back(&t);
  t.listed = true;
  if (t.stay_first != nullptr) want_locked(t);
}

void crew::want_locked(worker_thread& t) noexcept {
  if (t.wants_worker) return;
  t.wants_worker = true;
  t.next_wanting = nullptr;
  (wanting_last_ != nullptr ? wanting_last_->next_wanting : wanting_first_) = &t;
  wanting_last_ = &t;
  owner_.count_wanting(true);
}

/// The first of those that want a worker gets one: it is a spare no more.
void crew::satisfy_locked(worker_thread& t) noexcept {
  wanting_first_ = t.next_wanting;
  if (wanting_first_ == nullptr) wanting_last_ = nullptr;
  t.wants_worker = false;
  std::erase(spares_, &t);
  t.listed = false;
  owner_.count_wanting(false);
}

void crew::employ_locked(worker& w, worker_thread& t) noexcept {
  w.set_thread(t);
  t.given = &w;
  t.works_for.store(&w, std::memory_order_release);
}

void crew::give_locked(worker& w, worker_thread& t) noexcept {
  employ_locked(w, t);
  t.called.notify_one();
  orphans_.fetch_add(1, std::memory_order_seq_cst);
  handed_over_.fetch_add(1, std::memory_order_relaxed);
}

worker* crew::next_worker(worker_thread& t) noexcept {
  std::unique_lock hold(mutex_);
  if (t.given == nullptr) {
    // One that is just being started may be listed already: a claim was withdrawn.
    if (!t.listed) list_locked(t);
    const auto is_called = [&] { return t.given != nullptr || ending_; };
    // Who stays here when the thread comes to rest may be woken at any time; nobody begins to stay meanwhile.
    if (t.stays_here.any() || spare_idle_ > std::chrono::hours(24 * 365))
      t.called.wait(hold, is_called);
    else if (!t.called.wait_for(hold, spare_idle_, is_called)) {
      std::erase(spares_, &t);
      extra_.fetch_sub(1, std::memory_order_relaxed);
      t.ended = true;
    }
  }
  t.ready_here = std::exchange(t.stay_first, nullptr);
  t.stay_last = nullptr;
  return std::exchange(t.given, nullptr);
}

// ---- Handing over ----------------------------------------------------------------------------

platform::thread_number crew::thread_of(const worker& w) noexcept {
  std::scoped_lock hold(mutex_);
  return w.thread().number.load(std::memory_order_relaxed);
}

crew::hand_over crew::take_over(worker& w, blocked_fiber& who) noexcept {
  std::scoped_lock hold(mutex_);
  worker_thread& t = w.thread();
  if (t.hold.held() != &w || t.hold.looks_inside()) return hand_over::returned;
  worker_thread* const spare = spare_locked();
  if (!t.hold.claim(&w)) {
    if (spare != nullptr) list_locked(*spare);
    return platform::prepare_heavy_barrier() ? hand_over::returned : hand_over::no_barrier;
  }
  // Until the claim is finished or withdrawn its fiber can do nothing that ends it: it would ask for this
  // lock first. Except a hot one, which may become a shell meanwhile, or its host the current fiber: cores and
  // frames of all three stay where they are (hot_start.hpp).
  fiber_core* const c = t.current;
  who.id = ensure_id(c);
  copy_name_of(c, who.name, sizeof who.name);
  who.thread = t.number.load(std::memory_order_relaxed);
  who.call = platform::blocked_call_of(who.thread);
  const stack_slice& stack = c->the_frame()->slice;
  who.caller = platform::likely_caller(who.call, stack.low, stack.high);
  platform::likely_trace(who.call, stack.low, stack.high, who.trace.data(), who.trace.size());
  if (spare == nullptr) {
    t.hold.withdraw(&w);
    return hand_over::no_spare;
  }
  t.works_for.store(nullptr, std::memory_order_relaxed);
  give_locked(w, *spare);
  t.hold.finish_claim();
  return hand_over::done;
}

bool crew::give_away(worker_thread& t) noexcept {
  std::scoped_lock hold(mutex_);
  worker* const w = t.hold.held();
  worker_thread* const spare = spare_locked();
  if (spare == nullptr) return false;
  t.hold.drop();
  t.works_for.store(nullptr, std::memory_order_relaxed);
  give_locked(*w, *spare);
  return true;
}

bool crew::hand_on(worker_thread& t) noexcept {
  std::scoped_lock hold(mutex_);
  worker_thread* const next = wanting_first_;
  if (next == nullptr) return false;
  satisfy_locked(*next);
  worker* const w = t.hold.held();
  t.hold.drop();
  t.works_for.store(nullptr, std::memory_order_relaxed);
  employ_locked(*w, *next);
  next->called.notify_one();
  handed_on_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

void crew::await_worker(fiber_core& c, worker_thread& t) noexcept {
  worker* w;
  {
    std::scoped_lock hold(mutex_);
    w = t.works_for.load(std::memory_order_relaxed);
    if (w == nullptr) {
      c.next = nullptr;
      (t.stay_last != nullptr ? t.stay_last->next : t.stay_first) = &c;
      t.stay_last = &c;
      if (t.listed) want_locked(t);
    }
  }
  if (w != nullptr) w->push_inbox(&c);
}

worker* crew::resolve(worker_thread& t) noexcept {
  std::scoped_lock hold(mutex_);
  return t.hold.held();
}

}  // namespace tendril::detail
