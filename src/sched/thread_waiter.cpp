// SPDX-License-Identifier: Apache-2.0
#include "sched/thread_waiter.hpp"

#include <utility>

namespace tendril::detail {
namespace {

struct free_waiters {
  std::mutex mutex;
  thread_waiter* head = nullptr;

  static free_waiters& instance() {
    static free_waiters& list = *new free_waiters;
    return list;
  }
};

/// A thread's waiter, for the thread's life. Others' thread_local objects may be destroyed later and use it again:
/// they get one that lasts until the process ends, since nothing tells when they have done.
struct holder {
  thread_waiter* mine = nullptr;
  ~holder() {
    if (mine == nullptr) return;
    end_flow(mine->wait.flow);
    thread_waiter* const old = std::exchange(mine, nullptr);
    free_waiters& list = free_waiters::instance();
    std::scoped_lock hold(list.mutex);
    old->next_free = list.head;
    list.head = old;
  }
};

thread_local holder this_thread;

}  // namespace

thread_waiter& this_thread_waiter() {
  holder& h = this_thread;
  if (h.mine == nullptr) {
    free_waiters& list = free_waiters::instance();
    std::scoped_lock hold(list.mutex);
    if (list.head != nullptr) {
      h.mine = list.head;
      list.head = h.mine->next_free;
    } else {
      h.mine = new thread_waiter;
    }
    h.mine->wait.ambient_deadline = no_deadline;
    h.mine->shields = 0;
    h.mine->flags.store(0, std::memory_order_relaxed);
    h.mine->wait.flow = {};
  }
  return *h.mine;
}

thread_waiter* existing_thread_waiter() noexcept { return this_thread.mine; }

void thread_waiter::wake() noexcept {
  std::scoped_lock hold(mutex_);
  permit_ = true;
  changed_.notify_one();
}

bool thread_waiter::block(time_point deadline) {
  std::unique_lock hold(mutex_);
  if (deadline == no_deadline) changed_.wait(hold, [this] { return permit_; });
  else changed_.wait_until(hold, deadline, [this] { return permit_; });
  return std::exchange(permit_, false);
}

}  // namespace tendril::detail
