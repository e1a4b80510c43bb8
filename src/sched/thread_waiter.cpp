// SPDX-License-Identifier: Apache-2.0
#include "sched/thread_waiter.hpp"

#include "base/check.hpp"
#include "sched/thread_words.hpp"

#include <utility>

namespace tendril::detail {

constinit thread_local thread_waiter* tls_waiter = nullptr;

namespace {

struct free_waiters {
  std::mutex mutex;
  thread_waiter* head = nullptr;

  static free_waiters& instance() {
    static free_waiters& list = *new free_waiters;
    return list;
  }
};

thread_local unsigned ended = 0;  // how often the thread has given its waiter back

/// At the thread's end: the end of its flow, and the waiter is another's.
void give_back() noexcept {
  end_flow(tls_waiter->wait.flow);  // may use it
  thread_waiter* const old = std::exchange(tls_waiter, nullptr);
  ++ended;
  free_waiters& list = free_waiters::instance();
  const std::scoped_lock hold(list.mutex);
  old->next_free = list.head;
  list.head = old;
}

/// Destructors of other thread_local objects may run later, and use what has a waiter: then the thread gets
/// one anew, and another of these, which the system calls after that.
template <unsigned Turn>
void call_at_exit() {
  struct last_will {
    ~last_will() { give_back(); }
  };
  static thread_local const last_will will;
  static_cast<void>(&will);
}

thread_waiter& get_waiter() {
  thread_waiter* w;
  {
    free_waiters& list = free_waiters::instance();
    const std::scoped_lock hold(list.mutex);
    w = list.head;
    if (w != nullptr) list.head = w->next_free;
  }
  if (w == nullptr) w = new thread_waiter;
  w->wait.ambient_deadline = no_deadline;
  w->wait.flow = {};
  w->shields = 0;
  w->flags.store(0, std::memory_order_relaxed);
  tls_waiter = w;
  switch (ended) {
    case 0:
      call_at_exit<0>();
      break;
    case 1:
      call_at_exit<1>();
      break;
    case 2:
      call_at_exit<2>();
      break;
    default:
      TENDRIL_CHECK(false,
                    "destructors of thread_local objects use fiber_local ones in turn for ever");
  }
  return *w;
}

}  // namespace

__attribute__((noinline)) thread_waiter& this_thread_waiter() {
  if (tls_waiter != nullptr) [[likely]]
    return *tls_waiter;
  return get_waiter();
}

thread_waiter* existing_thread_waiter() noexcept { return tls_waiter; }

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
