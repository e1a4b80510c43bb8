// SPDX-License-Identifier: Apache-2.0
//
// The semaphore when somebody waits.
//
// Invariants
//  1. The low bit of state_ is set under the lock, while there are no permits, before a waiter is
//     linked; it is cleared under the lock by a release that has a permit left and finds the list empty.
//     So no permit is ever free while somebody waits. A waiter that gave up, and one that was handed its
//     permit, leave at most a set bit: who waits next need not set it, and a dialogue of waits and
//     releases does not change state_ at all.
//  2. release() does not touch the semaphore after the instruction that gives the last permit; as
//     that may be handed to a waiter under the lock, the waiter waits for the lock to be free.
#include <tendril/semaphore.hpp>

namespace tendril::detail {

outcome semaphore_core::acquire_slow(const wait_options& options) {
  waiter* const self = current_waiter();
  lock_.lock();
  std::ptrdiff_t s = state_.load(std::memory_order_relaxed);
  while (s !=
         1) {  // else somebody has waited before, and nobody but us can change it: we have the lock
    const bool available = s >= 2;
    if (state_.compare_exchange_weak(s, available ? s - 2 : s | 1, std::memory_order_acquire,
                                     std::memory_order_relaxed)) {
      if (!available) break;
      lock_.unlock();
      return outcome::signalled;
    }
  }
  wait_node& node = own_node(self);
  waiters_.push_back(node);
  const outcome result = wait_locked(lock_, waiters_, node, options);
  if (result == outcome::signalled) await_waker(lock_);
  return result;
}

void semaphore_core::release_slow(std::ptrdiff_t n) noexcept {
  wake_batch batch;
  while (n != 0) {
    lock_.lock();
    wait_node* node = nullptr;
    while (n != 0 && !batch.full() && (node = waiters_.pop_front()) != nullptr) {
      batch.add(complete(*node));
      --n;
    }
    // The rest is added below, as the last access. Relaxed: publishes nothing.
    if (n != 0 && waiters_.empty()) state_.fetch_and(~std::ptrdiff_t{1}, std::memory_order_relaxed);
    lock_.unlock();
    batch.unpark_all();
    if (n == 0) return;  // the last was handed over: whoever got it may have destroyed us
    std::ptrdiff_t s = state_.load(std::memory_order_relaxed);
    while (n != 0 && (s & 1) == 0) {
      if (state_.compare_exchange_weak(s, s + 2 * n, std::memory_order_release,
                                       std::memory_order_relaxed))
        return;
    }
  }
}

}  // namespace tendril::detail
