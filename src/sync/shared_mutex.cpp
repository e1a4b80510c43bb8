// SPDX-License-Identifier: Apache-2.0
//
// The shared mutex: plain state under a spinlock, a FIFO, and direct hand-off.
//
// Direct hand-off, unlike tendril::mutex: the queue is what makes readers and writers take turns, and
// a group of readers is let in by one pass. Where one lock is fought for by writers only, use mutex.
//
// Invariants
//  1. Not (written_ and readers_ > 0).
//  2. After every change the front of the list does not fit: else it would have been admitted. A
//     waiter that gives up may uncover one that fits; it admits in its place.
#include <tendril/detail/contract.hpp>
#include <tendril/shared_mutex.hpp>

namespace tendril {

using detail::outcome;

bool shared_mutex::try_take_locked(role r) noexcept {
  if (written_ || (r == writer && readers_ != 0)) return false;
  if (r == writer) written_ = true;
  else ++readers_;
  return true;
}

bool shared_mutex::try_take(role r) noexcept {
  lock_.lock();
  const bool taken = waiters_.empty() && try_take_locked(r);
  lock_.unlock();
  return taken;
}

void shared_mutex::take(role r, const char* what) {
  if (!try_take(r)) detail::require_signalled(take_slow(r, {.reason = what}), what);
}

bool shared_mutex::take_before(role r, detail::time_point deadline) {
  const char* const what =
      r == writer ? "shared_mutex::try_lock_until" : "shared_mutex::try_lock_shared_until";
  return try_take(r) ||
         detail::signalled_in_time(take_slow(r, {.deadline = deadline, .reason = what}), what);
}

outcome shared_mutex::take_slow(role r, const detail::wait_options& options) {
  detail::waiter* const self = detail::current_waiter();
  lock_.lock();
  if (waiters_.empty() && try_take_locked(r)) {
    lock_.unlock();
    return outcome::signalled;
  }
  detail::wait_node& node = detail::own_node(self);
  node.index = r;
  waiters_.push_back(node);
  detail::wait_options here = options;
  here.on_context = false;  // see synchronization_context.hpp
  const outcome result = detail::wait_locked(lock_, waiters_, node, here);
  lock_.lock();  // signalled: the waker has let go of the lock
  if (result == outcome::signalled) lock_.unlock();
  else admit_and_unlock();
  return result;
}

void shared_mutex::admit_and_unlock() noexcept {
  detail::wake_batch batch;
  for (bool more = true; more;) {
    more = false;
    for (detail::wait_node* node = waiters_.front(); node != nullptr; node = waiters_.front()) {
      if ((more = batch.full()) || !try_take_locked(static_cast<role>(node->index))) break;
      waiters_.remove(*node);
      batch.add(detail::complete(*node));
    }
    // With more to admit the front still waits, so the mutex is still there after the unlock.
    lock_.unlock();
    batch.unpark_all();
    if (more) lock_.lock();
  }
}

void shared_mutex::unlock() noexcept {
  lock_.lock();
  detail::expects(written_, "shared_mutex::unlock: not locked");
  written_ = false;
  admit_and_unlock();
}

void shared_mutex::unlock_shared() noexcept {
  lock_.lock();
  detail::expects(readers_ != 0, "shared_mutex::unlock_shared: not locked");
  --readers_;
  admit_and_unlock();
}

}  // namespace tendril
