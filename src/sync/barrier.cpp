// SPDX-License-Identifier: Apache-2.0
#include <tendril/barrier.hpp>
#include <tendril/detail/timed.hpp>

namespace tendril::detail {

barrier_core::barrier_core(std::ptrdiff_t expected) noexcept
    : expected_(expected), pending_(expected) {
  expects(expected >= 0, "barrier: negative count");
}

bool barrier_core::arrive(std::ptrdiff_t n, bool drop, std::uint32_t& phase) noexcept {
  lock_.lock();
  expects(n > 0 && n <= pending_, "barrier::arrive: more arrivals than expected");
  phase = phase_;
  if (drop) --expected_;
  pending_ -= n;
  const bool last = pending_ == 0;
  lock_.unlock();
  return last;
}

void barrier_core::open() noexcept {
  wake_batch batch;
  lock_.lock();
  // Nobody can have arrived since: none was left. So the phase is over only now, after completion.
  const std::uint32_t over = phase_++;
  pending_ = expected_;
  for (bool more = true; more;) {
    more = false;
    // Those of the next phase queue behind those of this one.
    while (!waiters_.empty() && waiters_.front()->index == over && !(more = batch.full()))
      batch.add(complete(*waiters_.pop_front()));
    lock_.unlock();
    batch.unpark_all();
    if (more) lock_.lock();
  }
}

outcome barrier_core::wait(std::uint32_t phase, const wait_options& options) {
  waiter* const self = current_waiter();
  lock_.lock();
  if (phase_ != phase) {
    lock_.unlock();
    return outcome::signalled;
  }
  wait_node& node = own_node(self);
  node.index = phase;
  waiters_.push_back(node);
  const outcome result = wait_locked(lock_, waiters_, node, options);
  if (result == outcome::signalled) await_waker(lock_);
  return result;
}

}  // namespace tendril::detail
