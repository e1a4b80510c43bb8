// SPDX-License-Identifier: Apache-2.0
//
// await(x): waiting, in ordinary code, for what other models of concurrency produce. A fiber parks; a plain
// thread blocks.
//
//   tendril::future, task            their own waits (a task: <tendril/task.hpp>); also woken by a stop request
//   std::future, std::shared_future  looked at again and again, see there
//   any C++20 awaitable              what co_await would do, without a coroutine
//   callbacks                        await_callback<Results...>(start)
//
// None of it puts anything that others reach on the calling stack: awaiters, results and wait nodes lie in heap
// blocks that are reused. What x itself is, when it is passed as an lvalue or cannot be moved, is the caller's; so
// are buffers that the function given to await_callback hands out. On a tasklet they must not be local variables.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/awaitable.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/future.hpp>
#include <tendril/shared_future.hpp>
#include <tendril/synchronization_context.hpp>

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <future>
#include <memory>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

namespace tendril {

/// f.get(). \switch yes, unless ready
template <class T>
T await(future<T>&& f) {
  return f.get();
}
template <class T>
T await(future<T>& f) {
  return f.get();
}

/// f.get(): a reference that is good while a copy of f lives.
template <class T>
decltype(auto) await(const shared_future<T>& f) {
  return f.get();
}

namespace detail {

/// co_await of a future in a coroutine that is no task.
template <class T>
class future_awaiter : private continuation {
 public:
  explicit future_awaiter(future<T>&& f) noexcept : future_(std::move(f)) {}
  future_awaiter(const future_awaiter&) = delete;
  future_awaiter& operator=(const future_awaiter&) = delete;

  bool await_ready() const {
    if (!future_.valid()) throw_future_error(std::future_errc::no_state);
    return future_access::is_ready(future_);
  }
  bool await_suspend(std::coroutine_handle<> h) {
    who_ = h;
    context_ = resume_context();
    run = [](continuation* c) noexcept {
      auto* const self = static_cast<future_awaiter*>(c);
      if (self->context_ == nullptr) {
        self->who_.resume();
        return;
      }
      c->run = [](continuation* posted) noexcept {
        static_cast<future_awaiter*>(posted)->who_.resume();
      };
      try {
        self->context_->post(to_work(*c));
      } catch (...) {
        c->run(c);  // late in the wrong place is better than never
      }
    };
    return future_access::on_ready(future_, *this);
  }
  T await_resume() { return future_access::take(future_); }

 private:
  future<T> future_;
  std::coroutine_handle<> who_;
  synchronization_context* context_ = nullptr;
};

}  // namespace detail

/// For coroutines of any kind. They are resumed by who completes f, or by the context that was in force.
template <class T>
detail::future_awaiter<T> operator co_await(future<T>&& f) noexcept {
  return detail::future_awaiter<T>(std::move(f));
}

// ---- futures of std -----------------------------------------------------------------------------

namespace detail {

/// Parks until ready(what), looking at it now and then.
/// \throws std::system_error  operation_canceled, timed_out
TENDRIL_API void poll_until(bool (*ready)(const void*), const void* what, const char* reason);
TENDRIL_API bool on_fiber() noexcept;

template <class Future>
void wait_for_std(const Future& f) {
  if (!f.valid()) throw_future_error(std::future_errc::no_state);
  if (!on_fiber()) {
    f.wait();
    return;
  }
  using std::chrono::seconds;
  const auto ready = [](const void* p) {
    return static_cast<const Future*>(p)->wait_for(seconds(0)) != std::future_status::timeout;
  };
  if (!ready(&f)) poll_until(ready, &f, "await(std::future)");
}

}  // namespace detail

/// The value of a std::future, or its exception.
///
/// std::future has no means to be told when it is ready. A fiber therefore looks: at once, and then after
/// pauses that grow with the time waited (an eighth of it; at least one tick of the timers, 65 us, at most
/// 10 ms). So a wait ends that much too late, and a hundred waiting fibers cost about 1 % of a worker. The
/// alternative, a thread that blocks for each wait, wakes sooner and costs a thread each: for that, write
/// blocking([&] { return f.get(); }). A deferred future runs here. A plain thread just blocks.
///
/// \throws std::future_error no_state; operation_canceled or timed_out: f is still valid then
/// \switch yes, unless ready
template <class T>
T await(std::future<T>&& f) {
  detail::wait_for_std(f);
  return f.get();
}
template <class T>
T await(std::future<T>& f) {
  return tendril::await(std::move(f));
}
/// A copy of the future is waited for: the result is as get()'s. Copies may be awaited by many.
template <class T>
decltype(auto) await(const std::shared_future<T>& f) {
  detail::wait_for_std(f);
  return f.get();
}
template <class T>
decltype(auto) await(std::shared_future<T>& f) {
  return tendril::await(std::as_const(f));
}
/// By value: the state may go with f.
template <class T>
T await(std::shared_future<T>&& f) {
  detail::wait_for_std(f);
  return f.get();
}

// ---- awaitables ---------------------------------------------------------------------------------

namespace detail {

/// A coroutine that does nothing but notice that it was resumed, with room for an operand and its awaiter.
/// One is taken from the thread's store for each await, and is not allocated once warm.
class TENDRIL_API await_driver {
 public:
  static constexpr std::size_t room_bytes = 192;

  await_driver();
  ~await_driver();
  await_driver(const await_driver&) = delete;
  await_driver& operator=(const await_driver&) = delete;

  std::coroutine_handle<> handle() const noexcept;
  /// Until the handle has been resumed. Not ended by stop requests: what was begun cannot be called off.
  void wait() noexcept;
  void* room() noexcept;

  struct node;

 private:
  node* const node_;
};

/// The operand, its own if it can be moved, and the awaiter.
template <class A>
struct await_operation {
  static constexpr bool keeps =
      !std::is_lvalue_reference_v<A> && std::is_move_constructible_v<std::remove_cvref_t<A>>;
  std::conditional_t<keeps, std::remove_cvref_t<A>, A&&> operand;
  awaiter_type<A> awaiter;

  explicit await_operation(A&& a)
      : operand(static_cast<A&&>(a)), awaiter(awaiter_of(static_cast<A&&>(operand))) {}
};

/// In the driver's room if it fits.
template <class Operation>
class operation_place {
 public:
  template <class A>
  operation_place(await_driver& driver, A&& a) {
    if constexpr (fits) at_ = ::new (driver.room()) Operation(static_cast<A&&>(a));
    else at_ = new Operation(static_cast<A&&>(a));
  }
  ~operation_place() {
    if constexpr (fits) at_->~Operation();
    else delete at_;
  }
  operation_place(const operation_place&) = delete;
  operation_place& operator=(const operation_place&) = delete;
  Operation* operator->() const noexcept { return at_; }

 private:
  static constexpr bool fits =
      sizeof(Operation) <= await_driver::room_bytes && alignof(Operation) <= 16;
  Operation* at_;
};

}  // namespace detail

/// What co_await a gives, in code that is no coroutine: await_ready, await_suspend (returning nothing, bool or
/// a handle) and await_resume are called here, in that order. An rvalue that can be moved is moved into the
/// wait; what await_resume returns as an rvalue reference is returned by value.
///
/// await_suspend gets a std::coroutine_handle<>, so it must not ask for a promise. The handle may be resumed
/// once, from any thread, also before await_suspend has returned.
///
/// \throws what the awaiter's functions throw
/// \switch yes, unless ready. Not ended by stop requests or deadlines: awaitables cannot be called off
/// \cost   no allocation once warm, for awaiters with operand up to 192 bytes
template <detail::awaitable A>
auto await(A&& a)
    -> std::conditional_t<std::is_rvalue_reference_v<detail::await_result<A>>,
                          std::remove_cvref_t<detail::await_result<A>>, detail::await_result<A>> {
  using operation = detail::await_operation<A>;
  detail::await_driver driver;
  const detail::operation_place<operation> place(driver, static_cast<A&&>(a));
  auto& awaiter = place->awaiter;
  if (!awaiter.await_ready()) {
    using suspended = decltype(awaiter.await_suspend(driver.handle()));
    bool waits = true;
    if constexpr (std::is_void_v<suspended>) {
      awaiter.await_suspend(driver.handle());
    } else if constexpr (std::is_same_v<suspended, bool>) {
      waits = awaiter.await_suspend(driver.handle());
    } else {
      const std::coroutine_handle<> next = awaiter.await_suspend(driver.handle());
      next.resume();
    }
    if (waits) driver.wait();
  }
  return awaiter.await_resume();
}

// ---- callbacks ----------------------------------------------------------------------------------

namespace detail {

template <class... R>
struct callback_result {
  using type = std::tuple<R...>;
};
template <class R>
struct callback_result<R> {
  using type = R;
};
template <>
struct callback_result<> {
  using type = void;
};

template <class... R>
struct callback_state {
  using type = typename callback_result<R...>::type;

  completion ready;
  std::atomic<std::uint32_t> handles{0};     ///< copies of callback_done
  std::atomic<std::uint32_t> references{1};  ///< one of the waiter's, one of all handles together
  std::atomic<bool> called{false};
  result_slot<type> result;

  void release() noexcept {
    // Acquire and release: all uses of the state come before its end.
    if (references.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};

}  // namespace detail

/// Completes an await_callback: called once, from any thread, during start or later. May be copied; when all
/// copies have gone without a call, the wait ends with std::future_errc::broken_promise.
///
/// \threads copies are independent; one may call while others are copied or destroyed
template <class... R>
class callback_done {
  using state = detail::callback_state<R...>;

 public:
  explicit callback_done(state* s) noexcept : state_(s) {
    s->handles.store(1, std::memory_order_relaxed);
    s->references.fetch_add(1, std::memory_order_relaxed);
  }
  callback_done(const callback_done& other) noexcept : state_(other.state_) {
    if (state_ != nullptr) state_->handles.fetch_add(1, std::memory_order_relaxed);
  }
  callback_done(callback_done&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  callback_done& operator=(callback_done other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~callback_done() {
    // Acquire and release: a call through another copy comes before the last one's end.
    if (state_ == nullptr || state_->handles.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    if (!state_->called.exchange(true, std::memory_order_acq_rel)) {
      state_->result.fail(detail::broken_promise_error());
      state_->ready.complete();
    }
    state_->release();
  }

  /// \throws std::future_error promise_already_satisfied: called before; no_state: moved from
  void operator()(R... values) const {
    begin();
    try {
      state_->result.emplace(std::forward<R>(values)...);
    } catch (...) {
      state_->result.fail(std::current_exception());
    }
    state_->ready.complete();
  }
  /// The wait ends by throwing it.
  void set_exception(std::exception_ptr e) const {
    begin();
    state_->result.fail(std::move(e));
    state_->ready.complete();
  }

  /// For interfaces that carry a void*: gives up the handle; one from_pointer takes it back.
  void* to_pointer() && noexcept { return std::exchange(state_, nullptr); }
  static callback_done from_pointer(void* p) noexcept {
    callback_done done;
    done.state_ = static_cast<state*>(p);
    return done;
  }

 private:
  callback_done() noexcept = default;
  void begin() const {
    if (state_ == nullptr) detail::throw_future_error(std::future_errc::no_state);
    if (state_->called.exchange(true, std::memory_order_acq_rel))
      detail::throw_future_error(std::future_errc::promise_already_satisfied);
  }

  state* state_ = nullptr;
};

/// Calls start(done) and waits until done has been called: the bridge from interfaces with callbacks.
///
///     const auto [status, length] = tendril::await_callback<int, std::size_t>(
///         [&](auto done) { device.read(buffer, [done](int s, std::size_t n) { done(s, n); }); });
///
/// \param start     called here, once; what it throws leaves await_callback
/// \param on_cancel called here, once, when the fiber is requested to stop or its deadline passes: it should
///                  make the operation end early, calling done as ever. Without it the wait is not interrupted:
///                  the operation may be using the caller's buffers
/// \returns         nothing, the value, or a tuple of several
/// \throws          std::future_error broken_promise; what done.set_exception was given
/// \switch yes, unless done was called in start
/// \cost   one allocation
template <class... R, class Start, class OnCancel>
auto await_callback(Start&& start, OnCancel&& on_cancel) ->
    typename detail::callback_result<R...>::type {
  using state = detail::callback_state<R...>;
  struct owner {
    state* s;
    ~owner() { s->release(); }
  };
  const owner mine{new state};
  std::forward<Start>(start)(callback_done<R...>(mine.s));
  constexpr bool cancelable = !std::is_null_pointer_v<std::remove_cvref_t<OnCancel>>;
  constexpr const char* what = "await_callback";
  if (mine.s->ready.wait({.cancelable = cancelable, .reason = what}) !=
      detail::outcome::signalled) {
    if constexpr (cancelable) on_cancel();
    mine.s->ready.wait({.cancelable = false, .reason = what});
  }
  return mine.s->result.take();
}
template <class... R, class Start>
auto await_callback(Start&& start) -> typename detail::callback_result<R...>::type {
  return tendril::await_callback<R...>(std::forward<Start>(start), nullptr);
}

}  // namespace tendril
