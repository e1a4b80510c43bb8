// SPDX-License-Identifier: Apache-2.0
//
// What await() of foreign things needs out of line: the driver coroutines and the looking at std::future.
#include <tendril/await.hpp>
#include <tendril/fiber.hpp>

#include <algorithm>
#include <chrono>

namespace tendril::detail {

/// The promise of a driver, so that one allocation holds all.
///
/// The driver suspends before it tells: in await_suspend it counts as suspended, so that the waiter may give it
/// back, and another thread resume it for the next wait, while the thread that resumed it has not returned yet.
struct await_driver::node {
  struct told {
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<node> h) const noexcept {
      h.promise().done.complete();
    }
    void await_resume() const noexcept {}
  };
  struct coroutine {
    using promise_type = node;
    node* made;
  };
  coroutine get_return_object() noexcept { return {this}; }
  std::suspend_always initial_suspend() const noexcept { return {}; }
  std::suspend_always final_suspend() const noexcept { return {}; }
  void return_void() const noexcept {}
  void unhandled_exception() const noexcept {}

  completion done;
  node* next = nullptr;
  alignas(16) std::byte room[room_bytes];
};

namespace {

await_driver::node::coroutine drive() {
  for (;;) co_await await_driver::node::told{};
}

void destroy(await_driver::node* n) noexcept {
  std::coroutine_handle<await_driver::node>::from_promise(*n).destroy();
}

/// A thread's store. Taking and giving back do not switch, so its address stays good.
struct node_store {
  static constexpr int most = 64;
  await_driver::node* head = nullptr;
  int count = 0;
  ~node_store() {
    while (head != nullptr) destroy(std::exchange(head, head->next));
    count = most;  // what other destructors of the thread give back goes at once
  }
};

[[gnu::noinline]] node_store& this_store() noexcept {
  static thread_local node_store store;
  node_store* p = &store;
  asm volatile("" : "+r"(p)::"memory");  // not to be remembered across a switch
  return *p;
}

}  // namespace

await_driver::await_driver()
    : node_([] {
        node_store& store = this_store();
        if (store.head == nullptr) return drive().made;
        node* const n = store.head;
        store.head = n->next;
        --store.count;
        n->done.reset();
        return n;
      }()) {}

await_driver::~await_driver() {
  node_store& store = this_store();
  if (store.count >= node_store::most) {
    destroy(node_);
    return;
  }
  node_->next = store.head;
  store.head = node_;
  ++store.count;
}

std::coroutine_handle<> await_driver::handle() const noexcept {
  return std::coroutine_handle<node>::from_promise(*node_);
}

void await_driver::wait() noexcept { node_->done.wait({.cancelable = false, .reason = "await"}); }

void* await_driver::room() noexcept { return node_->room; }

bool on_fiber() noexcept { return this_fiber::is_fiber(); }

void poll_until(bool (*ready)(const void*), const void* what, const char* reason) {
  using std::chrono::microseconds;
  constexpr clock::duration shortest = microseconds(65), longest = microseconds(10'000);
  for (const time_point begin = clock::now();;) {
    const time_point now = clock::now();
    const clock::duration pause = std::clamp((now - begin) / 8, shortest, longest);
    const outcome why = wait_until_done([](const void*) noexcept { return false; }, nullptr,
                                        {.deadline = now + pause, .reason = reason});
    if (ready(what)) return;
    if (why != outcome::timed_out) throw_outcome(why, reason);
  }
}

}  // namespace tendril::detail
