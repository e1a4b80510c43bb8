// SPDX-License-Identifier: Apache-2.0
//
// What a coroutine of <tendril/task.hpp> does at a co_await that is no call: it waits for a future, for any foreign
// awaitable, or for a function on a fiber.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/awaitable.hpp>
#include <tendril/detail/chain.hpp>
#include <tendril/detail/contract.hpp>
#include <tendril/detail/task_core.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/shared_future.hpp>
#include <tendril/synchronization_context.hpp>

#include <coroutine>
#include <exception>
#include <memory>
#include <optional>
#include <stop_token>
#include <system_error>
#include <type_traits>
#include <utility>

namespace tendril::detail {

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
    if (p.chain->produces.load(std::memory_order_relaxed) == future_access::state(future_))
        [[unlikely]]
      throw_awaits_itself();
    if (p.chain->awaiting != nullptr)
      throw_if_own_result(*future_access::state(future_), p.chain->awaiting, "co_await future");
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
      // Nothing of this object is touched after it, unless it throws or says that it does not suspend.
      if constexpr (std::is_same_v<decltype(inner_.await_suspend(h)), bool>) {
        if (inner_.await_suspend(h)) return true;
        std::exchange(left_, nullptr)->go_on();
        return false;
      } else {
        return inner_.await_suspend(h);
      }
    } catch (...) {
      std::exchange(left_, nullptr)->go_on();
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

/// co_await of a shared_future in a task: a reference, as from get().
template <class T>
class shared_future_wait : private chain_leaf {
 public:
  shared_future_wait(const shared_future<T>& f, bool with_context)
      : future_(f), with_context_(with_context) {}
  shared_future_wait(const shared_future_wait&) = delete;
  shared_future_wait& operator=(const shared_future_wait&) = delete;

  bool await_ready() const {
    future_access::require_valid(future_);
    return future_.is_ready();
  }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> h) {
    who = h;
    withdraw = [](chain_leaf* leaf) noexcept {
      auto& self = *static_cast<shared_future_wait*>(leaf);
      return future_access::withdraw(self.future_, self.node_);
    };
    promise_core& p = h.promise();
    if (p.chain->awaiting != nullptr)
      if (future_state_base* const s = future_access::state(future_, source_use::look))
        throw_if_own_result(*s, p.chain->awaiting, "co_await shared_future");
    return p.chain->suspend(*this, with_context_,
                            [this] { return future_access::on_ready(future_, *this, node_); });
  }
  decltype(auto) await_resume() {
    require_signalled(result, "co_await shared_future");
    return future_.get();
  }

 private:
  shared_future<T> future_;
  shared_node node_;
  bool with_context_;
};

template <class T>
struct configured_future {
  future<T> value;
  configure_await how;
};

/// An awaiter of what is there already.
template <class T>
struct known {
  T value;
  bool await_ready() const noexcept { return true; }
  void await_suspend(std::coroutine_handle<>) const noexcept {}
  T await_resume() noexcept { return std::move(value); }
};
struct chain_stop_token {};
struct chain_stop_requested {};

template <class F>
struct fiber_call {
  F f;
};

/// co_await of a function on a fiber. A request to stop the chain is handed on to the fiber, whose end is
/// waited for all the same.
template <class F>
class fiber_wait : private chain_leaf {
  using R = std::invoke_result_t<F&>;

 public:
  explicit fiber_wait(F&& f) : f_(std::move(f)) {}
  fiber_wait(const fiber_wait&) = delete;
  fiber_wait& operator=(const fiber_wait&) = delete;

  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> h) {
    who = h;
    withdraw = [](chain_leaf* leaf) noexcept {
      static_cast<fiber_wait*>(leaf)->fiber_.request_stop();
      return false;
    };
    promise_core& p = h.promise();
    return p.chain->suspend(*this, true, [this] {
      fiber_ = fiber([this] { run(); });
      return done_.install(*this);
    });
  }
  R await_resume() {
    fiber_.detach();
    return result_.take();
  }

 private:
  void run() noexcept {
    try {
      if constexpr (std::is_void_v<R>) {
        f_();
        result_.emplace();
      } else {
        result_.emplace(f_());
      }
    } catch (...) {
      result_.fail(std::current_exception());
    }
    done_.complete();  // the coroutine may go on here, and this object with it
  }

  F f_;
  fiber fiber_;
  completion done_;
  result_slot<R> result_;
};

}  // namespace tendril::detail
