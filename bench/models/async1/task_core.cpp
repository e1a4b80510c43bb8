// SPDX-License-Identifier: Apache-2.0
#include "bench/models/async1/task_core.hpp"

#include <condition_variable>

namespace bench::async1 {

void run_or_post(continuation& c) noexcept {
  // Each takes a few hundred bytes of stack; a fiber's has 64 KiB.
  constexpr unsigned inlined_at_most = 128;
  thread_state& t = this_thread;
  thread_pool* const pool = t.pool != nullptr ? t.pool : thread_pool::find();
  // Off the pool nothing is known of the stack: .NET's threads are all alike.
  const bool here = t.sync == nullptr && t.inlined < inlined_at_most && t.pool != nullptr;
  if (!here && pool != nullptr) {
    pool->post(c);
    return;
  }
  ++t.inlined;
  c.run(&c);
  --this_thread.inlined;
}

task_core::~task_core() { delete used_list_; }

bool task_core::add_another(continuation& c, std::uintptr_t seen) {
  if ((seen & is_list) == 0) {
    auto list = std::make_unique<continuation_list>();
    list->all = {reinterpret_cast<continuation*>(seen), &c};
    if (word_.compare_exchange_strong(seen, reinterpret_cast<std::uintptr_t>(list.get()) | is_list,
                                      std::memory_order_acq_rel, std::memory_order_acquire)) {
      list.release();
      return true;
    }
    if (seen == completed) return false;
  }
  // Somebody's list by now, which stays until the task is complete.
  auto* const list = reinterpret_cast<continuation_list*>(seen & ~is_list);
  const std::lock_guard hold(list->mutex);
  if (is_completed()) return false;  // its owner has taken the list, or waits for the lock to do so
  list->all.push_back(&c);
  return true;
}

void task_core::run_continuations(std::uintptr_t word) noexcept {
  if ((word & is_list) == 0) {
    run_or_post(*reinterpret_cast<continuation*>(word));
    return;
  }
  auto* const list = reinterpret_cast<continuation_list*>(word & ~is_list);
  used_list_ = list;
  std::vector<continuation*> all;
  {
    const std::lock_guard hold(list->mutex);
    all.swap(list->all);
  }
  for (continuation* const c : all) run_or_post(*c);
}

void task_core::wait() {
  if (is_completed()) return;
  struct blocked : continuation {
    blocked()
        : continuation([](continuation* c) noexcept {
            auto& self = static_cast<blocked&>(*c);
            const std::lock_guard hold(self.mutex);  // notified under it: then the waiter may end
            self.done = true;
            self.changed.notify_one();
          }) {}
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
  } waiter;
  if (!add<true>(waiter)) return;
  std::unique_lock lock(waiter.mutex);
  waiter.changed.wait(lock, [&] { return waiter.done; });
}

}  // namespace bench::async1
