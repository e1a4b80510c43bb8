// SPDX-License-Identifier: Apache-2.0
//
// The children of a task_scope.
//
//            cancel             ended                reap
//     running ----> stopping ----------> finished ----------> joined and freed
//        '-------------- ended -------------^    by add() and by the end of the scope
//
// Invariants
//  1. A child is in one of the first two lists until its function has ended; live_ counts those. The
//     last one completes the waiters.
//  2. A child that has ended is still a fiber for a moment: it is joined before it is freed, so that
//     no child touches the scope after wait_all(). Joining then waits for a few instructions only.
//  3. Its handle is stored by the spawner, possibly after the child has ended: it is reaped when
//     both have happened.
//  4. request_stop runs callbacks and therefore happens outside the lock. While somebody is doing so
//     (cancelers_ > 0) nothing is reaped, so that the handles stay. A canceler moves the child it takes
//     to the stopping list first, so each is requested once.
#include <tendril/detail/contract.hpp>
#include <tendril/scope.hpp>

#include <system_error>

namespace tendril::detail {

struct scope_child {
  scope_child* next = nullptr;
  scope_child* prev = nullptr;
  fiber handle;
  bool has_handle = false;
  bool stop_requested = false;
  bool ended = false;
};

namespace {

bool is_cancellation(const std::exception_ptr& e) noexcept {
  try {
    std::rethrow_exception(e);
  } catch (const std::system_error& error) {
    return error.code() == std::errc::operation_canceled;
  } catch (...) {
    return false;
  }
}

}  // namespace

scope_core::scope_core() noexcept : deadline_(ambient_deadline()) {}
scope_core::~scope_core() = default;

scope_child* scope_core::add() {
  reap();
  auto* const child = new scope_child;
  lock_.lock();
  child->next = running_;
  if (running_ != nullptr) running_->prev = child;
  running_ = child;
  ++live_;
  lock_.unlock();
  return child;
}

void scope_core::started(scope_child* child, fiber handle) noexcept {
  if (!handle.joinable()) {
    ended(child, nullptr);
    lock_.lock();
    child->has_handle = true;
    lock_.unlock();
    return;
  }
  // The child cannot be freed before has_handle, and nobody uses the handle before it.
  child->handle = std::move(handle);
  lock_.lock();
  child->has_handle = true;
  const bool stop = canceled_ && !child->ended;  // cancel() has passed it over
  if (stop) {
    mark_stopped(child);
    ++cancelers_;
  }
  lock_.unlock();
  if (!stop) return;
  child->handle.request_stop();
  lock_.lock();
  --cancelers_;
  lock_.unlock();
}

void scope_core::ended(scope_child* child, std::exception_ptr failure) noexcept {
  lock_.lock();
  const bool expected = canceled_;
  lock_.unlock();
  if (failure && !(expected && is_cancellation(failure))) {
    lock_.lock();
    if (!failure_) failure_.swap(failure);
    lock_.unlock();
    failure = nullptr;
    cancel();
  }
  lock_.lock();
  child->ended = true;
  unlink(child);
  child->next = finished_;
  finished_ = child;
  wake_batch batch;
  for (bool more = --live_ == 0; more;) {
    while (!batch.full() && !waiters_.empty()) batch.add(complete(*waiters_.pop_front()));
    more = !waiters_.empty();
    lock_.unlock();
    batch.unpark_all();
    lock_.lock();
  }
  lock_.unlock();
}

void scope_core::unlink(scope_child* child) noexcept {
  scope_child*& head = child->stop_requested ? stopping_ : running_;
  (child->prev != nullptr ? child->prev->next : head) = child->next;
  if (child->next != nullptr) child->next->prev = child->prev;
  child->next = child->prev = nullptr;
}

void scope_core::mark_stopped(scope_child* child) noexcept {
  unlink(child);
  child->stop_requested = true;
  child->next = stopping_;
  if (stopping_ != nullptr) stopping_->prev = child;
  stopping_ = child;
}

void scope_core::cancel() noexcept {
  lock_.lock();
  canceled_ = true;
  ++cancelers_;
  for (scope_child* child = running_; child != nullptr;) {
    if (!child->has_handle) {  // started() will see canceled_
      child = child->next;
      continue;
    }
    mark_stopped(child);
    lock_.unlock();
    child->handle.request_stop();
    lock_.lock();
    child = running_;
  }
  --cancelers_;
  lock_.unlock();
}

bool scope_core::canceled() const noexcept {
  lock_.lock();
  const bool c = canceled_;
  lock_.unlock();
  return c;
}

std::size_t scope_core::size() const noexcept {
  lock_.lock();
  const std::size_t n = live_;
  lock_.unlock();
  return n;
}

void scope_core::reap() noexcept {
  scope_child* done = nullptr;
  lock_.lock();
  if (cancelers_ == 0) {
    for (scope_child** link = &finished_; *link != nullptr;) {
      scope_child* const child = *link;
      if (child->has_handle) {
        *link = child->next;
        child->next = done;
        done = child;
      } else {
        link = &child->next;
      }
    }
  }
  lock_.unlock();
  while (done != nullptr) delete std::exchange(done, done->next);  // ~fiber joins
}

outcome scope_core::wait_all() noexcept {
  waiter* const self = current_waiter();
  outcome result = outcome::signalled;
  for (;;) {
    lock_.lock();
    if (live_ == 0) {
      lock_.unlock();
      break;
    }
    wait_node& node = own_node(self);
    waiters_.push_back(node);
    const bool first = result == outcome::signalled;
    const outcome ended =
        wait_locked(lock_, waiters_, node, {.cancelable = first, .reason = "task_scope::join"});
    if (ended != outcome::signalled) {
      result = ended;
      cancel();
    }
  }
  for (;;) {
    reap();
    lock_.lock();
    const bool all = finished_ == nullptr && live_ == 0;
    lock_.unlock();
    if (all) return result;
    this_fiber::yield();  // a canceler or a spawner is between two instructions of its own
  }
}

std::exception_ptr scope_core::take_failure() noexcept {
  lock_.lock();
  std::exception_ptr e = std::move(failure_);
  failure_ = nullptr;
  lock_.unlock();
  return e;
}

}  // namespace tendril::detail
