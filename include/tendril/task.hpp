// SPDX-License-Identifier: Apache-2.0
//
// task<T>: a C++20 coroutine that waits without a stack. Fibers and coroutines wait for each other: a coroutine
// awaits futures, fibers and other tasks, and await(task) lets a fiber (or a thread) wait for a coroutine.
//
//     tendril::task<int> length(std::string url) {
//       const std::string page = co_await tendril::async(fetch, std::move(url));   // a fiber does the work
//       co_return static_cast<int>(page.size());
//     }
//     int main() { return tendril::run([] { return tendril::await(length("...")); }); }
//
// States: not started (made by calling the coroutine) -> started (awaited, or given to await, start or spawn;
// the task object is empty then) -> ended. A task is awaited once, as an rvalue: co_await std::move(t).
//
// Which thread. A coroutine has no flow of control of its own: it runs in that of who awaits it, and after a
// wait in that of who completed what it waited for (inside set_value, say), or, if the flow in which the wait
// began has a synchronization_context, there. What blocks in a coroutine blocks that flow: a fiber parks, a
// thread blocks.
//
// Calls. `co_await f()` is a call: control goes to f and back without a scheduler, by symmetric transfer, so
// that a million calls that end without waiting, or a million nested ones that return, use no stack. Compilers
// guarantee that only when they optimise (gcc: -O2; not with sanitizers): without it each such call may keep a
// stack frame until the next real wait. Frames lie in an arena of the chain (detail/chain.hpp).
//
// Exceptions are stored once, when they leave the coroutine, and thrown again where it is awaited. C++ does not
// tell whether a coroutine has handlers, so by default each coroutine on the way catches and throws again, about
// two throws a level. A coroutine that declares to have none, by `co_await tendril::pass_exceptions;` as its
// first statement, is skipped: its frame is destroyed (locals in order) instead of resumed, and only the
// nearest caller without the declaration sees a throw. What C++ does not let us do without it: look into a
// suspended frame for handlers, or run its destructors and then still be able to resume it.
//
// Stopping. request_stop on the fiber that awaits, or the stop_token given to start, reaches the whole chain:
// the present wait and all later ones that are tendril's own end with operation_canceled. Waits by means of
// foreign awaitables are not interrupted.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/awaitable.hpp>
#include <tendril/detail/chain.hpp>
#include <tendril/detail/contract.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/error.hpp>
#include <tendril/future.hpp>

#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <stop_token>
#include <type_traits>
#include <utility>

namespace tendril {

template <class T>
class task;

/// See the head of this file. A value, awaited first in a coroutine that handles no exception of what it awaits.
struct pass_exceptions_t {};
inline constexpr pass_exceptions_t pass_exceptions{};

namespace detail {

class promise_core;

class task_base {
 public:
  task_base(const task_base&) = delete;
  task_base& operator=(const task_base&) = delete;

 protected:
  task_base() noexcept = default;
  explicit task_base(promise_core* p) noexcept : promise_(p) {}
  ~task_base() = default;

  promise_core* promise_ = nullptr;

  friend class promise_core;
  friend struct task_access;
};

[[noreturn]] TENDRIL_API void throw_empty_task(const char* what);

/// What the promises of all tasks share.
class promise_core {
 public:
  static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
  static void operator delete(void* frame) noexcept { free_frame(frame); }

  struct at_end {
    bool await_ready() const noexcept { return false; }
    template <class P>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<P> h) const noexcept {
      promise_core& p = h.promise();
      return p.after ? p.after : p.end();
    }
    void await_resume() const noexcept {}
  };

  std::suspend_always initial_suspend() const noexcept { return {}; }
  at_end final_suspend() const noexcept { return {}; }
  void unhandled_exception() noexcept {
    error = std::current_exception();
    if (awaited_by != nullptr && awaited_by->passes) after = nullptr;  // to end()
  }

  /// Started, as part of `c`, by who is resumed at the end.
  void start_in(coroutine_chain* c, promise_core& caller, task_base& from) noexcept {
    chain = c;
    after = caller.self;
    awaited_by = &caller;
    owner = &from;
    frame_head& head = head_of(self.address());
    if (head.block != nullptr && head.block->owner.load(std::memory_order_relaxed) == c)
      head.flags.store(frame_head::local, std::memory_order_relaxed);
  }
  TENDRIL_API std::coroutine_handle<> end() noexcept;

  std::coroutine_handle<> self;
  coroutine_chain* chain = nullptr;  ///< null: not started
  std::coroutine_handle<> after;     ///< null: a root, or it fails and is passed over
  promise_core* awaited_by = nullptr;
  task_base* owner = nullptr;
  std::exception_ptr error;
  bool passes = false;
};

struct task_access {
  static promise_core* promise(const task_base& t) noexcept { return t.promise_; }
  static promise_core* release(task_base& t) noexcept { return std::exchange(t.promise_, nullptr); }
  /// \throws std::system_error invalid_argument: moved from, or awaited before
  static promise_core& to_start(const task_base& t, const char* what) {
    if (t.promise_ == nullptr || t.promise_->chain != nullptr) [[unlikely]]
      throw_empty_task(what);
    return *t.promise_;
  }
};

/// Destroys a coroutine that has ended or not begun.
struct frame_owner {
  promise_core* promise;
  explicit frame_owner(promise_core* p) noexcept : promise(p) {}
  frame_owner(const frame_owner&) = delete;
  frame_owner& operator=(const frame_owner&) = delete;
  ~frame_owner() { promise->self.destroy(); }
};

template <class T>
struct task_promise;

/// co_await of a task in a task: a call.
template <class T>
class task_call {
 public:
  explicit task_call(task_base& callee) noexcept : callee_(callee) {}
  task_call(const task_call&) = delete;
  task_call& operator=(const task_call&) = delete;

  bool await_ready() const noexcept { return false; }
  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> caller) const {
    promise_core& p = task_access::to_start(callee_, "co_await task");
    promise_core& by = caller.promise();
    p.start_in(by.chain, by, callee_);
    return p.self;
  }
  T await_resume() const {
    const frame_owner ended(task_access::release(callee_));
    return static_cast<task_promise<T>*>(ended.promise)->take();
  }

 private:
  task_base& callee_;
};

/// co_await of a future in a task.
template <class T>
class future_wait : private chain_leaf {
 public:
  future_wait(future<T>&& f, bool with_context) noexcept
      : future_(std::move(f)), with_context_(with_context) {}
  future_wait(const future_wait&) = delete;
  future_wait& operator=(const future_wait&) = delete;

  bool await_ready() const {
    if (!future_.valid()) [[unlikely]]
      throw_future_error(std::future_errc::no_state);
    return future_access::is_ready(future_);
  }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> h) {
    who = h;
    withdraw = [](chain_leaf* leaf) noexcept {
      auto& self = *static_cast<future_wait*>(leaf);
      return future_access::withdraw(self.future_, self);
    };
    promise_core& p = h.promise();
    return p.chain->suspend(*this, with_context_,
                            [this] { return future_access::on_ready(future_, *this); });
  }
  T await_resume() {
    require_signalled(result, "co_await future");
    return future_access::take(future_);
  }

 private:
  future<T> future_;
  bool with_context_;
};

/// co_await of anything else in a task: the chain leaves the flow while others may resume it.
template <class A>
class foreign_wait {
 public:
  explicit foreign_wait(A&& a) : inner_(awaiter_of(static_cast<A&&>(a))) {}
  foreign_wait(const foreign_wait&) = delete;
  foreign_wait& operator=(const foreign_wait&) = delete;

  bool await_ready() { return static_cast<bool>(inner_.await_ready()); }
  template <class P>
  auto await_suspend(std::coroutine_handle<P> h) {
    promise_core& p = h.promise();
    left_ = p.chain;
    left_->leave();
    try {
      return inner_.await_suspend(
          h);  // nothing of this object is touched after it, unless it throws
    } catch (...) {
      std::exchange(left_, nullptr)->enter();
      throw;
    }
  }
  decltype(auto) await_resume() {
    if (left_ != nullptr) left_->enter();
    return inner_.await_resume();
  }

 private:
  awaiter_type<A> inner_;
  coroutine_chain* left_ = nullptr;
};

template <class T>
struct task_promise_base : promise_core {
  task<T> get_return_object() noexcept;

  template <class U>
  task_call<U> await_transform(task<U>&& t) noexcept {
    return task_call<U>(t);
  }
  template <class U>
  void await_transform(task<U>& t) = delete;  // a task is awaited once: co_await std::move(t)
  template <class U>
  future_wait<U> await_transform(future<U>&& f) noexcept {
    return future_wait<U>(std::move(f), true);
  }
  template <class U>
  void await_transform(future<U>& f) = delete;  // a future is awaited once: co_await std::move(f)
  std::suspend_never await_transform(pass_exceptions_t) noexcept {
    passes = true;
    return {};
  }
  template <awaitable A>
  foreign_wait<A> await_transform(A&& a) {
    return foreign_wait<A>(static_cast<A&&>(a));
  }
};

template <class T>
struct task_promise : task_promise_base<T> {
  template <class U = T>
  requires std::is_constructible_v<T, U&&>
  void return_value(U&& value) noexcept(std::is_nothrow_constructible_v<T, U&&>) {
    value_.emplace(std::forward<U>(value));
  }
  /// Of a coroutine that has ended.
  T take() {
    if (this->error) [[unlikely]]
      std::rethrow_exception(std::move(this->error));
    return value_.take();
  }

 private:
  result_slot<T> value_;
};

template <class T>
struct task_promise<T&> : task_promise_base<T&> {
  void return_value(T& value) noexcept { value_ = std::addressof(value); }
  T& take() {
    if (this->error) [[unlikely]]
      std::rethrow_exception(std::move(this->error));
    return *value_;
  }

 private:
  T* value_ = nullptr;
};

template <>
struct task_promise<void> : task_promise_base<void> {
  void return_void() const noexcept {}
  void take() {
    if (error) [[unlikely]]
      std::rethrow_exception(std::move(error));
  }
};

}  // namespace detail

/// A coroutine that produces a T: an object, a reference or void. Its caller starts it by awaiting it.
///
/// Destroying a task that was not started destroys the arguments. One that is awaited belongs to who awaits; if
/// that is a foreign coroutine which is destroyed while the task waits, the program is ended with a message.
///
/// \threads one at a time
/// \cost    a call that does not wait: about 10 ns, no allocation once the chain's arena is warm
template <class T = void>
class [[nodiscard]] task : public detail::task_base {
 public:
  using promise_type = detail::task_promise<T>;
  using value_type = T;

  task() noexcept = default;
  task(task&& other) noexcept : task_base(std::exchange(other.promise_, nullptr)) {}
  task& operator=(task&& other) noexcept {
    task(std::move(other)).swap(*this);
    return *this;
  }
  ~task() {
    if (promise_ == nullptr) return;
    detail::expects(promise_->chain == nullptr,
                    "a task was destroyed that has been started and has not ended");
    promise_->self.destroy();
  }

  /// It was made by a coroutine and has not been awaited.
  bool valid() const noexcept { return promise_ != nullptr && promise_->chain == nullptr; }
  explicit operator bool() const noexcept { return valid(); }
  void swap(task& other) noexcept { std::swap(promise_, other.promise_); }
  friend void swap(task& a, task& b) noexcept { a.swap(b); }

 private:
  friend struct detail::task_promise_base<T>;
  explicit task(detail::promise_core* p) noexcept : task_base(p) {}
};

namespace detail {

template <class T>
task<T> task_promise_base<T>::get_return_object() noexcept {
  this->self =
      std::coroutine_handle<task_promise<T>>::from_promise(static_cast<task_promise<T>&>(*this));
  return task<T>(this);
}

/// Runs the chain of a root to its end; parks or blocks meanwhile. A stop request or a deadline of the caller
/// is passed on to the chain.
TENDRIL_API void run_chain(promise_core& root);

}  // namespace detail

/// Runs t and waits for its end: a fiber parks, a thread blocks. Returns or throws what the coroutine does.
///
/// \throws std::system_error invalid_argument: t is empty. A stop request or the deadline of a deadline_scope stops the
///         coroutine, which is still waited for; what it ends with then is thrown.
/// \switch yes, when the coroutine waits
/// \cost   none but the frame's allocation when it does not
template <class T>
T await(task<T>&& t) {
  detail::promise_core& root = detail::task_access::to_start(t, "await(task)");
  const detail::frame_owner ended(&root);
  detail::task_access::release(t);
  detail::run_chain(root);
  return static_cast<detail::task_promise<T>&>(root).take();
}
template <class T>
void await(task<T>&) = delete;  // a task is awaited once: await(std::move(t))

}  // namespace tendril
