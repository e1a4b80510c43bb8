// SPDX-License-Identifier: Apache-2.0
#include "bench/models/async1/thread_pool.hpp"

#include <stdexcept>

namespace bench::async1 {
namespace {

std::atomic<thread_pool*> the_pool{nullptr};

}  // namespace

thread_pool::thread_pool(unsigned threads) {
  if (threads == 0) throw std::invalid_argument("async1::thread_pool: 0 threads would run nothing");
  thread_pool* expected = nullptr;
  if (!the_pool.compare_exchange_strong(expected, this))
    throw std::logic_error("async1::thread_pool: there is one already; end it first");
  try {
    for (unsigned i = 0; i != threads; ++i) threads_.emplace_back([this] { work(); });
  } catch (...) {
    lock();
    ending_ = true;
    unlock();
    news_.fetch_add(1);
    news_.notify_all();
    for (std::thread& t : threads_) t.join();
    the_pool.store(nullptr);
    throw;
  }
}

thread_pool::~thread_pool() {
  lock();
  ending_ = true;
  unlock();
  news_.fetch_add(1);
  news_.notify_all();
  for (std::thread& t : threads_) t.join();
  the_pool.store(nullptr);
}

thread_pool* thread_pool::find() noexcept { return the_pool.load(std::memory_order_acquire); }

thread_pool& thread_pool::installed() {
  thread_pool* const p = find();
  if (p == nullptr)
    throw std::logic_error("async1: nothing to resume on: make an async1::thread_pool first");
  return *p;
}

void thread_pool::post(continuation& c) noexcept {
  c.next = nullptr;
  lock();
  (tail_ != nullptr ? tail_->next : head_) = &c;
  tail_ = &c;
  const bool wake = sleepers_ != 0;
  unlock();
  if (wake) {
    news_.fetch_add(1, std::memory_order_release);
    news_.notify_one();
  }
}

/// Null: the pool ends.
continuation* thread_pool::next() {
  lock();
  for (;;) {
    if (continuation* const c = head_; c != nullptr) {
      head_ = c->next;
      if (head_ == nullptr) tail_ = nullptr;
      unlock();
      return c;
    }
    if (ending_) {
      unlock();
      return nullptr;
    }
    ++sleepers_;
    const std::uint32_t seen = news_.load(std::memory_order_relaxed);
    unlock();
    news_.wait(seen, std::memory_order_acquire);
    lock();
    --sleepers_;
  }
}

void thread_pool::work() noexcept {
  this_thread.pool = this;
  while (continuation* const c = next()) c->run(c);
}

}  // namespace bench::async1
