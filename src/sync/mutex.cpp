// SPDX-License-Identifier: Apache-2.0
//
// The mutex when it is contended.
//
//     state   locked   somebody holds it
//             waiting  the list is not empty, or was until its last waiter gave up
//             woken    a waiter was taken from the list and is on its way to try again
//
// Unlocking wakes the first waiter and lets it compete with whoever is running. Always handing the
// mutex over was rejected: each hand-off makes the mutex unavailable for the time of a switch or a
// worker's wake-up, everybody who comes in that time queues up, and the queue never dissolves (a
// convoy: one switch an operation, for ever). Pure competition was rejected too: a fiber that locks
// and unlocks in a loop would starve the rest. So the unfairness is bounded: who was woken and lost
// goes back to the front with a mark, and the next unlock hands it the mutex directly.
//
// Invariants
//  1. list changes, and the bits waiting and woken, under list_lock_; locked by compare-exchange.
//  2. When the list is not empty, then locked or woken is set: somebody will look at the list.
//     Whoever clears woken (the woken waiter) either takes the mutex or links itself again, in one
//     critical section, and relinks only while locked is set.
//  3. unlock() never touches the mutex after the instruction that makes it free, so that the next
//     owner may destroy it. Hence the list is served while the mutex is still locked; clearing
//     locked comes last, and only while the state is still what serving the list has left. A woken
//     waiter that runs too early (by a left-over permit) finds it locked, clears woken, and so makes
//     that last compare-exchange fail: the unlocker serves the list once more.
//  4. At most one waiter is woken at a time; unlocks meanwhile need not look at the list.
//
// node.index: 0 fresh; 1 has lost once; 2 set by the unlocker: the mutex is yours.
#include <tendril/detail/contract.hpp>
#include <tendril/mutex.hpp>

namespace tendril {

using detail::outcome;

namespace {
enum : std::uint32_t { fresh = 0, lost_once = 1, handed_over = 2 };
}

bool mutex::lock_before(detail::time_point deadline) {
  return detail::signalled_in_time(
      lock_contended({.deadline = deadline, .reason = "mutex::try_lock_until"}),
      "mutex::try_lock_until");
}

outcome mutex::lock_contended(const detail::wait_options& options) {
  if (try_lock()) return outcome::signalled;
  detail::waiter* const self = detail::current_waiter();  // may allocate: not under the list's lock
  std::uint32_t history = fresh;
  for (;;) {
    list_lock_.lock();
    std::uint32_t s = state_.load(std::memory_order_relaxed);
    for (;;) {
      // Only one is woken at a time, so a set bit is ours if we were woken.
      const std::uint32_t base = history == fresh ? s : s & ~woken;
      const std::uint32_t wanted = base | ((s & locked) == 0 ? locked : waiting);
      if (state_.compare_exchange_weak(s, wanted, std::memory_order_acquire,
                                       std::memory_order_relaxed))
        break;
    }
    if ((s & locked) == 0) {
      list_lock_.unlock();
      return outcome::signalled;
    }
    detail::wait_node& node = detail::own_node(self);
    node.index = history;
    if (history == fresh) waiters_.push_back(node);
    else waiters_.push_front(node);
    detail::wait_options here = options;
    here.on_context = false;  // see synchronization_context.hpp
    const outcome result = detail::wait_locked(list_lock_, waiters_, node, here);
    if (result != outcome::signalled) return result;  // `waiting` may stay: an unlock will clear it
    if (node.index == handed_over) {
      detail::await_waker(list_lock_);
      return outcome::signalled;
    }
    history = lost_once;
  }
}

void mutex::unlock_contended() noexcept {
  std::uint32_t s = state_.load(std::memory_order_relaxed);
  detail::expects((s & locked) != 0, "mutex::unlock: not locked");
  detail::waiter* to_wake = nullptr;
  for (;;) {
    if ((s & waiting) == 0 || (s & woken) != 0) {
      if (state_.compare_exchange_weak(s, s & ~locked, std::memory_order_release,
                                       std::memory_order_relaxed))
        break;
      continue;
    }
    list_lock_.lock();
    detail::wait_node* const node = waiters_.pop_front();
    if (waiters_.empty()) state_.fetch_and(~waiting, std::memory_order_relaxed);
    bool handed = false;
    detail::waiter* who = nullptr;
    if (node != nullptr) {
      handed = node->index == lost_once;
      if (handed) node->index = handed_over;
      else state_.fetch_or(woken, std::memory_order_relaxed);
      who = detail::complete(*node);
    }
    list_lock_.unlock();
    if (to_wake != nullptr && to_wake != who) detail::unpark(to_wake);
    to_wake = who;
    // Its acquire of the node's result pairs with complete(): it sees what we wrote while we held
    // the mutex. From here on the mutex is its own.
    if (handed) break;
    s = state_.load(std::memory_order_relaxed);
  }
  if (to_wake != nullptr) detail::unpark(to_wake);
}

bool recursive_mutex::mine() const {
  // Relaxed: only the caller itself can have stored the caller, and only the caller removes it.
  return owner_.load(std::memory_order_relaxed) == detail::current_waiter();
}

bool recursive_mutex::enter(bool taken) {
  if (taken) {
    owner_.store(detail::current_waiter(), std::memory_order_relaxed);
    ++depth_;
  }
  return taken;
}

void recursive_mutex::lock() {
  if (!mine()) mutex_.lock();
  enter(true);
}

bool recursive_mutex::try_lock() { return enter(mine() || mutex_.try_lock()); }

void recursive_mutex::unlock() {
  detail::expects(mine(), "recursive_mutex::unlock: not held by the caller");
  if (--depth_ == 0) {
    owner_.store(nullptr, std::memory_order_relaxed);
    mutex_.unlock();
  }
}

}  // namespace tendril
