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

struct holder {
  thread_waiter* mine = nullptr;
  ~holder() {
    if (mine == nullptr) return;
    free_waiters& list = free_waiters::instance();
    std::scoped_lock hold(list.mutex);
    mine->next_free = list.head;
    list.head = mine;
  }
};

}  // namespace

thread_waiter& this_thread_waiter() {
  static thread_local holder h;
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
  }
  return *h.mine;
}

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
