// SPDX-License-Identifier: Apache-2.0
//
// Contexts, hosts and waiters that the tests of synchronization contexts share.
#pragma once

#include <tendril/context.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>

#include <atomic>
#include <coroutine>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

namespace tendril::test {

/// Counts what is posted, and has a thread run it.
class counting_context final : public synchronization_context {
 public:
  explicit counting_context(loop_context& loop) : loop_(loop) {}
  void post(tendril::posted_work work) override {
    ++posts;
    loop_.post(work);
  }
  std::atomic<int> posts{0};

 private:
  loop_context& loop_;
};

/// A loop with a thread that runs it.
class loop_thread {
 public:
  explicit loop_thread(tendril::loop_options options = {}) : loop(std::move(options)) {}
  ~loop_thread() {
    loop.stop();
    thread_.join();
  }
  loop_thread(const loop_thread&) = delete;
  loop_thread& operator=(const loop_thread&) = delete;
  std::thread::id id() const { return thread_.get_id(); }
  loop_context loop;

 private:
  std::thread thread_{[this] { loop.run(); }};
};

/// Parks the calling fiber until another fiber has run.
inline void wait_really() {
  tendril::promise<void> p;
  auto f = p.get_future();
  tendril::fiber other([p = std::move(p)]() mutable { p.set_value(); });
  // Not ready before the wait: the other fiber starts when this one parks, or is on another worker, where
  // it may be first. So wait for its end, too, which is a wait at least as often.
  f.get();
  other.join();
}

/// A wait that is not over before it begins, whatever the waker does.
class turn {
 public:
  void take() {
    namespace d = tendril::detail;
    lock_.lock();
    d::wait_node& mine = d::own_node(d::current_waiter());
    list_.push_back(mine);
    d::require_signalled(d::wait_locked(lock_, list_, mine, {.reason = "turn"}), "turn");
    d::await_waker(lock_);
  }
  /// On another flow: waits for somebody to have come, and wakes it.
  void give() {
    for (;; tendril::this_fiber::yield()) {
      tendril::detail::waiter* w = nullptr;
      lock_.lock();
      if (tendril::detail::wait_node* const n = list_.pop_front())
        w = tendril::detail::complete(*n);
      lock_.unlock();
      if (w == nullptr) continue;
      tendril::detail::unpark(w);
      return;
    }
  }

 private:
  tendril::detail::tiny_lock lock_;
  tendril::detail::wait_list list_;
};

/// The least of an async method: starts at once, goes on in the context in which it began to wait.
struct eager {
  struct promise_type {
    std::shared_ptr<tendril::promise<int>> result = std::make_shared<tendril::promise<int>>();
    tendril::future<int> future = result->get_future();
    eager get_return_object() { return {std::move(future)}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_value(int x) { result->set_value(x); }
    void unhandled_exception() { result->set_exception(std::current_exception()); }
  };
  tendril::future<int> task;
};

/// co_await: lets somebody else go on first, then posts to the context that was in force, or, with
/// configure_await(false), goes on where it is resumed.
struct later {
  configure_await how{true};
  struct state {
    std::coroutine_handle<> who;
    synchronization_context* where;
  };
  std::optional<std::thread> helper{};
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    auto s = std::make_unique<state>(state{h, tendril::detail::resume_context(how)});
    std::thread([s = std::move(s)]() mutable {
      if (s->where == nullptr) {
        s->who.resume();
        return;
      }
      state* const raw = s.release();
      raw->where->post({[](void* p) noexcept {
                          const std::unique_ptr<state> mine(static_cast<state*>(p));
                          mine->who.resume();
                        },
                        raw});
    }).detach();
  }
  void await_resume() const noexcept {}
};

inline eager answer(configure_await how) {
  co_await later{how};
  co_return 42;
}

}  // namespace tendril::test
