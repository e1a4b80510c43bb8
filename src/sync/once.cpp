// SPDX-License-Identifier: Apache-2.0
#include <tendril/detail/timed.hpp>
#include <tendril/once.hpp>

namespace tendril {

bool once_flag::begin() {
  detail::waiter* const self = detail::current_waiter();
  for (;;) {
    lock_.lock();
    const std::uint32_t s = state_.load(std::memory_order_relaxed);
    if (s != running) {
      if (s == fresh)
        state_.store(running, std::memory_order_relaxed);  // others look under the lock
      lock_.unlock();
      return s == fresh;
    }
    detail::wait_node& node = detail::own_node(self);
    waiters_.push_back(node);
    detail::require_signalled(detail::wait_locked(lock_, waiters_, node, {.reason = "call_once"}),
                              "call_once");
  }
}

void once_flag::finish(std::uint32_t state) noexcept {
  detail::wake_batch batch;
  lock_.lock();
  state_.store(state, std::memory_order_release);  // pairs with call_once()'s acquire
  // All are woken also when f threw: the first runs it, the others find out and wait again. Waking
  // one alone would strand the rest if it were cancelled before it looked.
  for (bool more = true; more;) {
    while (!batch.full() && !waiters_.empty()) batch.add(detail::complete(*waiters_.pop_front()));
    more = !waiters_.empty();
    lock_.unlock();
    batch.unpark_all();
    if (more) lock_.lock();
  }
}

}  // namespace tendril
