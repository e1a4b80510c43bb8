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
// that a million calls that end without waiting, or a million nested ones that return, use no stack. That
// takes a compiler that makes a jump of the transfer (detail/tail_transfer.hpp). With others f is
// called on the caller's stack: nested calls take stack, as those of functions do, but a loop of them does
// not. Frames lie in an arena of the chain (detail/chain.hpp).
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

#include <tendril/channel.hpp>
#include <tendril/config.hpp>
#include <tendril/detail/awaitable.hpp>
#include <tendril/detail/chain.hpp>
#include <tendril/detail/contract.hpp>
#include <tendril/detail/task_core.hpp>
#include <tendril/detail/task_waits.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/shared_future.hpp>
#include <tendril/synchronization_context.hpp>

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <stop_token>
#include <system_error>
#include <type_traits>
#include <utility>

namespace tendril {

template <class T>
class task;

/// See the head of this file. A value, awaited first in a coroutine that handles no exception of what it awaits.
struct pass_exceptions_t {};
inline constexpr pass_exceptions_t pass_exceptions{};

namespace detail {

template <class T>
struct task_promise;

/// What calls have in common.
template <class T, class Site>
class task_call_base {
 public:
  explicit task_call_base(task_base& callee) noexcept : site_{callee} {}
  task_call_base(const task_call_base&) = delete;
  task_call_base& operator=(const task_call_base&) = delete;

  bool await_ready() const noexcept { return false; }
  T await_resume() const {
    const frame_owner ended(task_access::release(site_.callee));
    return static_cast<task_promise<T>*>(ended.promise)->take();
  }

 protected:
  Site site_;
};

/// co_await of a task in a task: a call.
template <class T>
class task_call : public task_call_base<T, call_site> {
 public:
  using task_call_base<T, call_site>::task_call_base;

  template <class P>
  std::coroutine_handle<> await_suspend(std::coroutine_handle<P> caller) {
    promise_core& p = task_access::to_start(this->site_.callee, "co_await task");
    promise_core& by = caller.promise();
    p.start_in(by.chain, by, this->site_);
    return p.self;
  }
};

/// The same without tail transfer. Whether the callee has ended is known by a variable on the stack, which an end
/// in the same turn sets: after resume() the frames may be others', or gone.
template <class T>
class task_call_here : public task_call_base<T, call_site_here> {
 public:
  using task_call_base<T, call_site_here>::task_call_base;

  template <class P>
  bool await_suspend(std::coroutine_handle<P> caller) {
    promise_core& p = task_access::to_start(this->site_.callee, "co_await task");
    promise_core& by = caller.promise();
    bool returned = false;
    p.start_here(by.chain, by, this->site_, returned);
    p.self.resume();
    return !returned;
  }
};

template <class T>
using task_call_as_compiled =
    std::conditional_t<TENDRIL_TAIL_TRANSFER, task_call<T>, task_call_here<T>>;

/// co_await of a task in a coroutine that is no task: a chain of its own, which resumes the other at its end.
template <class T>
class task_chain {
 public:
  explicit task_chain(task_base& t) noexcept : task_(t) {}
  task_chain(const task_chain&) = delete;
  task_chain& operator=(const task_chain&) = delete;

  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> caller) const {
    promise_core& root = task_access::to_start(task_, "co_await task");
    coroutine_chain& chain =
        coroutine_chain::create(root, [](coroutine_chain* c) noexcept { return c->follower; });
    chain.follower = caller;
    root.chain = &chain;
    chain.enter_first();
    return root.self;
  }
  T await_resume() const {
    const frame_owner ended(task_access::release(task_));
    ended.promise->chain->destroy();
    return static_cast<task_promise<T>*>(ended.promise)->take();
  }

 private:
  task_base& task_;
};

template <class T>
struct task_promise_base : promise_core {
  task<T> get_return_object() noexcept;

  template <class U>
  task_call_as_compiled<U> await_transform(task<U>&& t) noexcept {
    return task_call_as_compiled<U>(t);
  }
  template <class U>
  void await_transform(task<U>& t) = delete;  // a task is awaited once: co_await std::move(t)
  template <class U>
  future_wait<U> await_transform(future<U>&& f) noexcept {
    return future_wait<U>(std::move(f), true);
  }
  template <class U>
  void await_transform(future<U>& f) = delete;  // a future is awaited once: co_await std::move(f)
  /// What it refers to is good while a copy of f lives.
  template <class U>
  shared_future_wait<U> await_transform(const shared_future<U>& f) {
    return shared_future_wait<U>(f, true);
  }
  template <class U>
  future_wait<U> await_transform(configured_future<U>&& f) noexcept {
    return future_wait<U>(std::move(f.value), f.how.on_context);
  }
  std::suspend_never await_transform(pass_exceptions_t) noexcept {
    this->passes = true;
    return {};
  }
  known<std::stop_token> await_transform(chain_stop_token) { return {this->chain->stop_token()}; }
  known<bool> await_transform(chain_stop_requested) noexcept {
    return {this->chain->stop_requested()};
  }
  template <class F>
  fiber_wait<F> await_transform(fiber_call<F>&& call) {
    return fiber_wait<F>(std::move(call.f));
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
  /// For coroutines of other kinds; in a task, co_await is a call.
  auto operator co_await() && noexcept { return detail::task_chain<T>(*this); }
  /// await(std::move(*this)): so a task is the body of a fiber, spawn(t), async(t), fiber(t).
  T operator()();
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

template <class T>
T task<T>::operator()() {
  return tendril::await(std::move(*this));
}

namespace detail {

/// How start() and the end of the chain find out who comes first; in chain.starter: null, then one of
///   ended      the coroutine has ended within start(), which takes the result
///   a promise  start() has returned its future; the end fulfils it
///   nobody     start() has failed
template <class T>
struct task_start {
  static inline char ended = 0, nobody = 0;
  using promise_place = promise<T>;
  static_assert(sizeof(promise_place) <= sizeof(coroutine_chain::starter_room));

  static std::coroutine_handle<> at_end(coroutine_chain* c) noexcept {
    void* const starter = c->starter.exchange(&ended, std::memory_order_acq_rel);
    if (starter == nullptr) return std::noop_coroutine();
    if (starter == &nobody) {
      destroy(*c);
      return std::noop_coroutine();
    }
    auto* const place = static_cast<promise_place*>(starter);
    promise_place result(std::move(*place));
    std::destroy_at(place);
    deliver(*c, result);
    return std::noop_coroutine();
  }
  /// The frame goes first: who sees the result sees the arguments destroyed.
  static void deliver(coroutine_chain& c, promise_place& result) noexcept {
    auto& root = static_cast<task_promise<T>&>(c.root());
    if (root.error) {
      std::exception_ptr error = std::move(root.error);
      destroy(c);
      result.set_exception(std::move(error));
      return;
    }
    try {
      if constexpr (std::is_void_v<T>) {
        destroy(c);
        result.set_value();
      } else {
        T value = take(c);
        result.set_value(static_cast<T&&>(value));
      }
    } catch (...) {
      result.set_exception(std::current_exception());
    }
  }
  static T take(coroutine_chain& c) {
    const frame_owner frame(&c.root());
    c.destroy();
    return static_cast<task_promise<T>*>(frame.promise)->take();
  }
  static void destroy(coroutine_chain& c) noexcept {
    const frame_owner frame(&c.root());
    c.destroy();
  }

  static future<T> run(task<T>&& t, const std::stop_token& stop) {
    promise_core& root = task_access::to_start(t, "start(task)");
    coroutine_chain& chain = coroutine_chain::create(root, &at_end);
    root.chain = &chain;
    task_access::release(t);
    try {
      chain.stop_with(stop);
    } catch (...) {
      destroy(chain);
      throw;
    }
    chain.start();
    // Acquire: what it did, wherever it ended.
    if (chain.starter.load(std::memory_order_acquire) == &ended) return ready(chain);
    void* expected = nullptr;
    promise_place* place = nullptr;
    future<T> result;
    try {
      place = ::new (static_cast<void*>(chain.starter_room)) promise_place;
      result = place->get_future();
    } catch (...) {
      if (!chain.starter.compare_exchange_strong(expected, &nobody, std::memory_order_acq_rel))
        destroy(chain);
      throw;
    }
    chain.produces.store(future_access::state(result), std::memory_order_relaxed);
    if (chain.starter.compare_exchange_strong(expected, place, std::memory_order_acq_rel))
      return result;
    std::destroy_at(place);
    return ready(chain);
  }
  static future<T> ready(coroutine_chain& c) {
    try {
      if constexpr (std::is_void_v<T>) {
        take(c);
        return make_ready_future();
      } else {
        return make_ready_future<T>(take(c));
      }
    } catch (...) {
      return make_exceptional_future<T>(std::current_exception());
    }
  }
};

}  // namespace detail

/// Runs t here, at once, until it waits for the first time; from then on it runs wherever what it waits for
/// completes, and nobody need wait for it.
///
/// \param stop  a request ends the waits of t with operation_canceled
/// \throws std::system_error invalid_argument: t is empty; std::bad_alloc
/// \switch no, but t's code may
/// \cost   no allocation besides t's frame when it does not wait, else the future's state
template <class T>
future<T> start(task<T>&& t, std::stop_token stop = {}) {
  return detail::task_start<T>::run(std::move(t), stop);
}
template <class T>
void start(task<T>&, std::stop_token = {}) = delete;  // start(std::move(t))

/// What a coroutine awaits to have f run on a fiber of the current runtime: code that blocks, or is not written
/// as coroutines. Returns or throws what f does. co_await async(f) does the same without handing requests to
/// stop on.
///
/// \throws std::system_error  errc::no_runtime, errc::runtime_stopping
/// \cost   a fiber
template <class F>
detail::fiber_call<std::decay_t<F>> on_fiber(F&& f) {
  return {std::forward<F>(f)};
}

/// co_await awaiting(std::move(f), configure_await(false)): the coroutine goes on on whoever completes f, also
/// where a synchronization context is in force.
template <class T>
detail::configured_future<T> awaiting(future<T>&& f, configure_await how) {
  return {std::move(f), how};
}

/// The coroutine's own chain of tasks, in a task: co_await this_task::...
namespace this_task {

/// A token that is triggered when the chain is requested to stop.
inline detail::chain_stop_token get_stop_token() noexcept { return {}; }
/// Whether it has been.
inline detail::chain_stop_requested stop_requested() noexcept { return {}; }

/// \cost a fiber, which sleeps. Throws operation_canceled at a request to stop.
template <class Clock, class Duration>
task<> sleep_until(std::chrono::time_point<Clock, Duration> t) {
  co_await pass_exceptions;
  co_await on_fiber([t] { this_fiber::sleep_until(t); });
}
template <class Rep, class Period>
task<> sleep_for(std::chrono::duration<Rep, Period> d) {
  return this_task::sleep_until(detail::deadline_after(d));
}

}  // namespace this_task

/// channel::receive for coroutines: a value, or nothing from a channel that is closed and drained. Waits, if it
/// must, on a fiber: a send never runs the code of who receives.
///
/// \throws std::system_error operation_canceled; nothing is taken then
/// \cost   none but the call when there is a value, else a fiber
template <class T>
task<std::optional<T>> async_receive(channel<T>& from) {
  co_await pass_exceptions;
  std::error_code ec;
  std::optional<T> got = from.try_receive(ec);
  if (got || ec == errc::channel_closed) co_return got;
  co_return co_await on_fiber([&from] { return from.receive(); });
}

/// channel::send for coroutines.
///
/// \throws std::system_error errc::channel_closed, operation_canceled; the value is destroyed then
template <class T>
task<> async_send(channel<T>& to, std::type_identity_t<T> value) {
  co_await pass_exceptions;
  if (!to.is_closed() && to.try_send(std::move(value))) co_return;
  if (to.is_closed()) to.send(std::move(value));  // which throws
  else co_await on_fiber([&] { to.send(std::move(value)); });
}

/// fiber::join for coroutines.
/// \throws as join(); f stays joinable when the wait is ended by a request to stop
inline task<> async_join(fiber& f) {
  co_await pass_exceptions;
  co_await on_fiber([&f] { f.join(); });
}

}  // namespace tendril
