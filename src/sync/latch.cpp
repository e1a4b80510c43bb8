// SPDX-License-Identifier: Apache-2.0
#include <tendril/detail/timed.hpp>
#include <tendril/latch.hpp>

namespace tendril {

void latch::count_down(std::ptrdiff_t n) noexcept {
  std::ptrdiff_t c = count_.load(std::memory_order_relaxed);
  detail::expects(n >= 0 && n <= c, "latch::count_down: below zero");
  while (c > n) {
    // Release: what was done before arriving; the chain of decrements hands it to the last one.
    if (count_.compare_exchange_weak(c, c - n, std::memory_order_release,
                                     std::memory_order_relaxed))
      return;
    detail::expects(n <= c, "latch::count_down: below zero");
  }
  if (n == 0) return;
  detail::wake_batch batch;
  bool more;
  lock_.lock();
  // Whoever could still count down would go below zero: count_ is ours.
  count_.exchange(0, std::memory_order_acq_rel);
  do {
    while (!batch.full() && !waiters_.empty()) batch.add(detail::complete(*waiters_.pop_front()));
    // Decided before the unlock: after the last waiter has left, the latch may be gone.
    more = !waiters_.empty();
    lock_.unlock();
    batch.unpark_all();
    if (more) lock_.lock();
  } while (more);
}

bool latch::try_wait() const noexcept {
  if (count_.load(std::memory_order_acquire) != 0) return false;
  detail::await_waker(lock_);
  return true;
}

void latch::wait() const {
  if (try_wait()) return;
  detail::waiter* const self = detail::current_waiter();
  lock_.lock();
  if (count_.load(std::memory_order_acquire) == 0) {
    lock_.unlock();
    return;
  }
  detail::wait_node& node = detail::own_node(self);
  waiters_.push_back(node);
  const detail::outcome result =
      detail::wait_locked(lock_, waiters_, node, {.reason = "latch::wait"});
  detail::require_signalled(result, "latch::wait");
  detail::await_waker(lock_);
}

}  // namespace tendril
