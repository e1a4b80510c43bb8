// SPDX-License-Identifier: Apache-2.0
//
// Condition variables.
//
// No morphing: a notified waiter is unparked and takes the mutex like anybody else, instead of being
// moved to the mutex's list. Morphing saves the wake-ups of a notify_all under the lock, but ties the
// two lists together through every cancellation; with fibers a wake-up that finds the mutex taken
// costs tens of nanoseconds, not a system call.
//
// Invariants
//  1. With tendril::mutex the waiter is linked before its mutex is given back, under our lock: a
//     notifier that has seen the changed condition finds it. (Lock order: ours, then the mutex's.)
//  2. Any other lock's unlock() may itself wait, using the waiter's only node, and must not run under
//     a spinlock. So such a waiter is only counted first. A notification that finds nobody linked but
//     somebody announced advances epoch_, which lets all the announced return: at most spuriously,
//     and only in that window.
//  3. A wait that gave up unlinks itself under our lock; one that was notified before is not linked
//     any more and reports the notification. So no notification is spent on somebody who left.
#include <tendril/condition_variable.hpp>
#include <tendril/detail/contract.hpp>

namespace tendril {

namespace detail {

void notify_list::notify_one() noexcept {
  waiter* who = nullptr;
  lock_.lock();
  if (wait_node* const node = waiters_.pop_front()) who = complete(*node);
  else if (announced_ != 0) ++epoch_;
  lock_.unlock();
  if (who != nullptr) unpark(who);
}

void notify_list::notify_all() noexcept {
  wake_batch batch;
  lock_.lock();
  if (announced_ != 0) ++epoch_;
  // In rounds, so those woken in the first may wait again before the last: they are not ours to wake.
  const std::uint32_t end = next_;
  for (bool more = true; more;) {
    more = false;
    for (wait_node* node = waiters_.front();
         node != nullptr && static_cast<std::int32_t>(node->index - end) < 0;
         node = waiters_.front()) {
      if ((more = batch.full())) break;
      waiters_.remove(*node);
      batch.add(complete(*node));
    }
    lock_.unlock();
    batch.unpark_all();
    if (more) lock_.lock();
  }
}

std::uint32_t notify_list::announce() noexcept {
  lock_.lock();
  ++announced_;
  const std::uint32_t ticket = epoch_;
  lock_.unlock();
  return ticket;
}

void notify_list::retract() noexcept {
  lock_.lock();
  --announced_;
  lock_.unlock();
}

outcome notify_list::wait_announced(std::uint32_t ticket, const wait_options& options) {
  waiter* const self = current_waiter();
  lock_.lock();
  --announced_;
  if (epoch_ != ticket) {
    lock_.unlock();
    return outcome::signalled;
  }
  wait_node& node = own_node(self);
  node.index = next_++;
  waiters_.push_back(node);
  return wait_locked(lock_, waiters_, node, options);
}

}  // namespace detail

detail::outcome condition_variable::wait_outcome(std::unique_lock<mutex>& lock,
                                                 const detail::wait_options& options) {
  detail::expects(lock.owns_lock(), "condition_variable::wait: the lock is not held");
  mutex& m = *lock.mutex();
  detail::waiter* const self = detail::current_waiter();
  lock_.lock();
  detail::wait_node& node = detail::own_node(self);
  node.index = next_++;
  waiters_.push_back(node);
  m.unlock();
  const detail::outcome result = detail::wait_locked(lock_, waiters_, node, options);
  m.lock_uncancelable();
  return result;
}

}  // namespace tendril
