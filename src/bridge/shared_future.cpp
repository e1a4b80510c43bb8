// SPDX-License-Identifier: Apache-2.0
//
// The lists of a shared future.
#include <tendril/shared_future.hpp>

#include <mutex>

namespace tendril::detail {

outcome shared_state_base::wait(const wait_options& options) {
  waiter* const self = current_waiter();
  if (future_state_base* const s = source_state()) throw_if_own_result(*s, self, options.reason);
  lock_.lock();
  if (set_.load(std::memory_order_relaxed)) {
    lock_.unlock();
    return outcome::signalled;
  }
  wait_node& node = own_node(self);
  waiters_.push_back(node);
  return wait_locked(lock_, waiters_, node, options);
}

bool shared_state_base::attach(shared_node& node, continuation& c) noexcept {
  const std::scoped_lock hold(lock_);
  if (set_.load(std::memory_order_relaxed)) return false;
  node.what = &c;
  node.next = nullptr;
  node.prev = last_;
  (last_ != nullptr ? last_->next : first_) = &node;
  last_ = &node;
  return true;
}

bool shared_state_base::detach(shared_node& node) noexcept {
  const std::scoped_lock hold(lock_);
  if (set_.load(std::memory_order_relaxed)) return false;  // complete() has the list
  (node.prev != nullptr ? node.prev->next : first_) = node.next;
  (node.next != nullptr ? node.next->prev : last_) = node.prev;
  return true;
}

/// The link's step: whoever completes the source runs this once.
continuation* shared_state_base::complete() noexcept {
  lock_.lock();
  set_.store(true, std::memory_order_release);
  shared_node* node = first_;
  wake_batch batch;
  while (!waiters_.empty()) {
    while (!waiters_.empty() && !batch.full()) batch.add(detail::complete(*waiters_.pop_front()));
    lock_.unlock();
    batch.unpark_all();
    lock_.lock();
  }
  lock_.unlock();
  // What is attached holds handles of its own. A node is gone once its continuation has run. The last is
  // the caller's to run, so that a chain of shared futures is a loop too.
  continuation* last = nullptr;
  while (node != nullptr) {
    shared_node* const next = node->next;
    if (next == nullptr) last = node->what;
    else node->what->run(node->what);
    node = next;
  }
  release_handle();
  return last;
}

void shared_state_base::release_handle() noexcept {
  // Two references and not set: this handle and the link; nobody can make another handle.
  if (references_.load(std::memory_order_acquire) == 2 && !is_set() && withdraw_from_source())
    return destroy();
  if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) destroy();
}

}  // namespace tendril::detail
