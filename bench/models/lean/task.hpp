// SPDX-License-Identifier: Apache-2.0
//
// A lean coroutine task, as common libraries have it: started when awaited, awaited once, resumed and
// resuming by symmetric transfer, its frame from operator new, its result in the frame. No contexts, no shared
// state, no scheduler but the loop below. It stands beside async1 to show what that model pays for, and beside
// tendril::task to show what this one saves.
//
// An exception is kept in the frame and thrown again by the awaiting one, as in every coroutine type: the
// language ends a coroutine by unhandled_exception and knows no other way out.
#pragma once

#include <coroutine>
#include <cstddef>
#include <exception>
#include <type_traits>
#include <utility>
#include <variant>

namespace bench::lean {

template <class T>
class task;

namespace detail {

struct promise_base {
  struct final_awaiter {
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> h) const noexcept {
      return h.promise().awaiting;
    }
    void await_resume() const noexcept {}
  };
  std::suspend_always initial_suspend() const noexcept { return {}; }
  final_awaiter final_suspend() const noexcept { return {}; }

  std::coroutine_handle<> awaiting = std::noop_coroutine();
};

template <class T>
struct promise : promise_base {
  task<T> get_return_object() noexcept;
  void unhandled_exception() noexcept { result.template emplace<2>(std::current_exception()); }
  template <class U>
  void return_value(U&& value) {
    result.template emplace<1>(std::forward<U>(value));
  }
  T take() {
    if (result.index() == 2) std::rethrow_exception(std::get<2>(result));
    return std::move(std::get<1>(result));
  }
  std::variant<std::monostate, T, std::exception_ptr> result;
};

template <>
struct promise<void> : promise_base {
  task<void> get_return_object() noexcept;
  void unhandled_exception() noexcept { error = std::current_exception(); }
  void return_void() const noexcept {}
  void take() {
    if (error != nullptr) std::rethrow_exception(error);
  }
  std::exception_ptr error;
};

}  // namespace detail

template <class T>
class [[nodiscard]] task {
 public:
  using promise_type = detail::promise<T>;

  explicit task(std::coroutine_handle<promise_type> h) noexcept : frame_(h) {}
  task(task&& other) noexcept : frame_(std::exchange(other.frame_, nullptr)) {}
  task& operator=(task&&) = delete;
  ~task() {
    if (frame_) frame_.destroy();
  }

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> who) noexcept {
    frame_.promise().awaiting = who;
    return frame_;
  }
  T await_resume() { return frame_.promise().take(); }

  // For who is no coroutine.
  void start() { frame_.resume(); }
  bool done() const noexcept { return frame_.done(); }
  T get() { return frame_.promise().take(); }

 private:
  std::coroutine_handle<promise_type> frame_;
};

namespace detail {

template <class T>
task<T> promise<T>::get_return_object() noexcept {
  return task<T>(std::coroutine_handle<promise>::from_promise(*this));
}
inline task<void> promise<void>::get_return_object() noexcept {
  return task<void>(std::coroutine_handle<promise>::from_promise(*this));
}

}  // namespace detail

/// Runs coroutines that yield, in turn, on one thread.
class loop {
  struct node {
    std::coroutine_handle<> who;
    node* next = nullptr;
  };

 public:
  /// co_await loop.yield(): goes on when the loop comes round.
  struct yield_awaiter : node {
    explicit yield_awaiter(loop& where) noexcept : l(where) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) noexcept {
      this->who = h;
      (l.tail_ != nullptr ? l.tail_->next : l.head_) = this;
      l.tail_ = this;
    }
    void await_resume() const noexcept {}
    loop& l;
  };
  yield_awaiter yield() noexcept { return yield_awaiter(*this); }

  /// Runs t to its end and gives its result or throws its exception.
  template <class T>
  T run(task<T> t) {
    t.start();
    while (!t.done() && run_one()) {
    }
    return t.get();
  }
  /// False: nobody has yielded.
  bool run_one() {
    node* const n = head_;
    if (n == nullptr) return false;
    head_ = n->next;
    if (head_ == nullptr) tail_ = nullptr;
    n->who.resume();
    return true;
  }

 private:
  node* head_ = nullptr;
  node* tail_ = nullptr;
};

}  // namespace bench::lean
