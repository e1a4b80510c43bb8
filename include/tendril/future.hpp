// SPDX-License-Identifier: Apache-2.0
//
// promise<T> writes a result once, future<T> reads it once: std's names and meaning. async(f) runs f
// on a fiber and gives the future of its result.
//
// The state the two share is one heap block with two references; for async the callable lives in it
// too. A future that is born ready carries its result in itself and allocates nothing.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/closure.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/fiber.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <future>  // std::future_error, std::future_errc, std::future_status
#include <memory>
#include <new>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

namespace tendril {

using std::future_errc;
using std::future_error;
using std::future_status;

template <class T>
class future;
template <class T>
class promise;

namespace detail {

struct async_start;
struct future_access;

[[noreturn]] TENDRIL_API void throw_future_error(std::future_errc);
TENDRIL_API std::exception_ptr broken_promise_error();

/// Nothing, a value or an exception.
template <class T>
class result_slot {
  using stored =
      std::conditional_t<std::is_void_v<T>, std::tuple<>,
                         std::conditional_t<std::is_reference_v<T>, std::add_pointer_t<T>, T>>;

 public:
  result_slot() noexcept {}
  result_slot(const result_slot&) = delete;
  result_slot& operator=(const result_slot&) = delete;
  ~result_slot() { reset(); }

  bool empty() const noexcept { return kind_ == kind::empty; }

  template <class... U>
  void emplace(U&&... value) {
    if constexpr (std::is_reference_v<T>) ::new (raw()) stored(std::addressof(value)...);
    else ::new (raw()) stored(std::forward<U>(value)...);
    kind_ = kind::value;
  }
  void fail(std::exception_ptr e) noexcept {
    ::new (raw()) std::exception_ptr(std::move(e));
    kind_ = kind::exception;
  }
  /// Empty afterwards, also when it throws.
  T take() {
    const cleared at_end{*this};
    if (kind_ == kind::exception) std::rethrow_exception(std::move(error()));
    if constexpr (std::is_reference_v<T>) return static_cast<T>(*value());
    else if constexpr (!std::is_void_v<T>) return std::move(value());
  }
  void move_from(result_slot& other) noexcept(std::is_nothrow_move_constructible_v<stored>) {
    if (other.kind_ == kind::exception) fail(std::move(other.error()));
    else if (other.kind_ == kind::value) {
      ::new (raw()) stored(std::move(other.value()));
      kind_ = kind::value;
    }
    other.reset();
  }
  void reset() noexcept {
    if (kind_ == kind::exception) std::destroy_at(&error());
    else if (kind_ == kind::value) std::destroy_at(std::addressof(value()));
    kind_ = kind::empty;
  }

 private:
  enum class kind : std::uint8_t { empty, value, exception };
  struct cleared {
    result_slot& slot;
    ~cleared() { slot.reset(); }
  };

  void* raw() noexcept { return static_cast<void*>(storage_); }
  stored& value() noexcept { return *std::launder(reinterpret_cast<stored*>(storage_)); }
  std::exception_ptr& error() noexcept {
    return *std::launder(reinterpret_cast<std::exception_ptr*>(storage_));
  }

  static constexpr std::size_t bytes = sizeof(stored) > sizeof(std::exception_ptr)
                                           ? sizeof(stored)
                                           : sizeof(std::exception_ptr);
  static constexpr std::size_t alignment = alignof(stored) > alignof(std::exception_ptr)
                                               ? alignof(stored)
                                               : alignof(std::exception_ptr);

  alignas(alignment) std::byte storage_[bytes];
  kind kind_ = kind::empty;
};

/// Written by the promise's side until ready, read by the future's side after it.
template <class T>
struct future_state {
  explicit future_state(void (*how)(future_state*) noexcept) noexcept : destroy(how) {}

  /// The other side gone, nobody can revive the count: one load suffices for the last.
  void release() noexcept {
    // Acquire, as the subtraction's: what the other side did with the state comes before its end.
    if (references.load(std::memory_order_acquire) == 1 ||
        references.fetch_sub(1, std::memory_order_acq_rel) == 1)
      destroy(this);
  }
  /// The result is written. After this, only release() may be called by this side.
  void publish() noexcept { ready.complete(); }

  completion ready;
  std::atomic<std::uint32_t> references{2};
  void (*destroy)(future_state*) noexcept;  // knows the whole block
  result_slot<T> result;
};

template <class T>
future_state<T>* make_future_state() {
  return new future_state<T>([](future_state<T>* s) noexcept { delete s; });
}

/// What promise<T>, <T&> and <void> share.
template <class T>
class promise_base {
 public:
  promise_base() : state_(make_future_state<T>()) {}
  promise_base(promise_base&& other) noexcept
      : state_(std::exchange(other.state_, nullptr)),
        retrieved_(other.retrieved_),
        satisfied_(other.satisfied_) {}
  promise_base& operator=(promise_base&& other) noexcept {
    promise_base(std::move(other)).swap(*this);
    return *this;
  }
  ~promise_base() { abandon(); }

  /// \throws std::future_error  future_already_retrieved, no_state
  future<T> get_future() {
    if (state_ == nullptr) throw_future_error(std::future_errc::no_state);
    if (retrieved_) throw_future_error(std::future_errc::future_already_retrieved);
    retrieved_ = true;
    return future<T>(state_);
  }
  /// \throws std::future_error  promise_already_satisfied, no_state
  void set_exception(std::exception_ptr e) {
    check();
    state_->result.fail(std::move(e));
    publish();
  }
  void swap(promise_base& other) noexcept {
    std::swap(state_, other.state_);
    std::swap(retrieved_, other.retrieved_);
    std::swap(satisfied_, other.satisfied_);
  }

 protected:
  template <class... U>
  void set(U&&... value) {
    check();
    state_->result.emplace(
        std::forward<U>(value)...);  // if it throws, the promise is still pending
    publish();
  }

 private:
  void check() const {
    if (state_ == nullptr) throw_future_error(std::future_errc::no_state);
    if (satisfied_) throw_future_error(std::future_errc::promise_already_satisfied);
  }
  void publish() noexcept {
    satisfied_ = true;
    state_->publish();
  }
  void abandon() noexcept {
    if (state_ == nullptr) return;
    if (retrieved_) {
      if (!satisfied_) {
        state_->result.fail(broken_promise_error());
        state_->publish();
      }
    } else {
      state_->release();  // the future's reference, which nobody took
    }
    state_->release();
  }

  future_state<T>* state_;
  bool retrieved_ = false;  // these two are ours alone: a promise is used by one at a time
  bool satisfied_ = false;
};

}  // namespace detail

/// The reading end: one-shot, move-only. Destroying it does not wait, also not after async.
///
/// \threads one fiber or thread at a time
/// \source  [futures.unique.future]
template <class T>
class [[nodiscard]] future {
 public:
  future() noexcept = default;
  future(future&& other) noexcept(std::is_void_v<T> || std::is_reference_v<T> ||
                                  std::is_nothrow_move_constructible_v<T>)
      : state_(std::exchange(other.state_, nullptr)) {
    here_.move_from(other.here_);
  }
  future& operator=(future&& other) noexcept(std::is_nothrow_move_constructible_v<future>) {
    if (this != &other) {
      drop();
      here_.reset();
      state_ = std::exchange(other.state_, nullptr);
      here_.move_from(other.here_);
    }
    return *this;
  }
  ~future() { drop(); }

  bool valid() const noexcept { return state_ != nullptr || !here_.empty(); }
  /// No wait would switch. Precondition: valid.
  bool is_ready() const noexcept { return state_ == nullptr || state_->ready.is_set(); }

  /// The value, or throws the exception set; not valid afterwards.
  ///
  /// \throws std::future_error no_state; std::system_error operation_canceled or timed_out
  ///         (deadline_scope) when the wait was ended: still valid then
  /// \switch yes, unless ready
  T get() {
    wait();
    if (state_ == nullptr) return here_.take();
    const dropped at_end{*this};
    return state_->result.take();
  }

  void wait() const {
    if (!ready_or_throw()) detail::require_signalled(state_->ready.wait({.reason = what}), what);
  }
  template <class Rep, class Period>
  future_status wait_for(const std::chrono::duration<Rep, Period>& d) const {
    if (ready_or_throw()) return future_status::ready;
    return wait_until(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  future_status wait_until(const std::chrono::time_point<Clock, Duration>& t) const {
    if (ready_or_throw()) return future_status::ready;
    const bool in_time = detail::attempt_until(t, [this](detail::time_point d) {
      return detail::signalled_in_time(state_->ready.wait({.deadline = d, .reason = what}), what);
    });
    return in_time ? future_status::ready : future_status::timeout;
  }

 private:
  template <class>
  friend class detail::promise_base;
  template <class U, class... Args>
  friend future<U> make_ready_future(Args&&...);
  template <class U>
  friend future<U> make_exceptional_future(std::exception_ptr);
  friend struct detail::async_start;
  friend struct detail::future_access;

  static constexpr const char* what = "future::wait";
  struct dropped {
    future& f;
    ~dropped() { f.drop(); }
  };

  explicit future(detail::future_state<T>* state) noexcept : state_(state) {}
  bool ready_or_throw() const {
    if (!valid()) [[unlikely]]
      detail::throw_future_error(std::future_errc::no_state);
    return is_ready();
  }
  void drop() noexcept {
    if (state_ != nullptr) std::exchange(state_, nullptr)->release();
  }

  detail::future_state<T>* state_ = nullptr;
  detail::result_slot<T> here_;  // of a future born ready
};

/// The writing end. Destroyed without a result, it leaves broken_promise.
///
/// \threads one fiber or thread at a time; setting never switches
/// \source  [futures.promise]
template <class T>
class promise : public detail::promise_base<T> {
 public:
  void set_value(const T& value) requires std::is_copy_constructible_v<T> { this->set(value); }
  void set_value(T&& value) { this->set(std::move(value)); }
};

template <class T>
class promise<T&> : public detail::promise_base<T&> {
 public:
  void set_value(T& value) { this->set(value); }
};

template <>
class promise<void> : public detail::promise_base<void> {
 public:
  void set_value() { this->set(); }
};

template <class T>
void swap(promise<T>& a, promise<T>& b) noexcept {
  a.swap(b);
}

/// A future that is ready. No allocation.
template <class T, class... Args>
future<T> make_ready_future(Args&&... args) {
  future<T> f;
  f.here_.emplace(std::forward<Args>(args)...);
  return f;
}
template <int..., class T>  // the int... keeps make_ready_future<int&>(x) out of here
future<std::decay_t<T>> make_ready_future(T&& value) {
  return make_ready_future<std::decay_t<T>, T>(std::forward<T>(value));
}
inline future<void> make_ready_future() { return make_ready_future<void>(); }

template <class T>
future<T> make_exceptional_future(std::exception_ptr e) {
  future<T> f;
  f.here_.fail(std::move(e));
  return f;
}

namespace detail {

/// What the other bridges (tasks, thunks, await) do with a future. One flow at a time, as every use of a
/// future; a continuation that is attached counts as waiting for it.
struct future_access {
  /// No wait would switch. Precondition: valid.
  template <class T>
  static bool is_ready(const future<T>& f) noexcept {
    return f.is_ready();
  }
  /// Attaches c, which runs once on whoever completes f. False: f is ready, c will not run.
  ///
  /// \throws std::future_error  no_state; future_already_retrieved when somebody waits already
  template <class T>
  static bool on_ready(future<T>& f, continuation& c) {
    if (f.ready_or_throw()) return false;
    if (f.state_->ready.install(c)) return true;
    if (!f.state_->ready.is_set()) throw_future_error(std::future_errc::future_already_retrieved);
    return false;
  }
  /// True: c will not run. False: it has run, or runs now. Precondition: on_ready(f, c) was true, and what
  /// c does has not let go of f.
  template <class T>
  static bool withdraw(future<T>& f, continuation& c) noexcept {
    return f.state_ != nullptr && f.state_->ready.withdraw(c);
  }
  /// The result, without waiting; f is not valid afterwards. Precondition: ready.
  template <class T>
  static T take(future<T>& f) {
    if (f.state_ == nullptr) return f.here_.take();
    const typename future<T>::dropped at_end{f};
    return f.state_->result.take();
  }
};

/// The state of an async: result, callable and arguments in one block.
template <class R, class F, class Tuple>
struct async_state final : future_state<R> {
  template <class G, class U>
  async_state(G&& g, U&& u)
      : future_state<R>([](future_state<R>* s) noexcept { delete static_cast<async_state*>(s); }),
        call(std::in_place, std::forward<G>(g), std::forward<U>(u)) {}

  void run() noexcept {
    try {
      // On the fiber's stack, as captures are locals there; the block then holds the result alone.
      std::pair<F, Tuple> local(std::move(*call));
      call.reset();
      const auto invoke = [&local]() -> R {
        return std::apply(
            [&local](auto&&... a) -> R {
              return std::invoke(std::move(local.first), std::move(a)...);
            },
            std::move(local.second));
      };
      if constexpr (std::is_void_v<R>) {
        invoke();
        this->result.emplace();
      } else {
        this->result.emplace(invoke());
      }
    } catch (...) {
      this->result.fail(std::current_exception());
    }
    this->publish();
  }

  std::optional<std::pair<F, Tuple>> call;
};

/// The fiber's body: one pointer. Destroyed without having run, it breaks the promise.
template <class State>
class async_body {
 public:
  explicit async_body(State* s) noexcept : state_(s) {}
  async_body(async_body&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  async_body& operator=(async_body&&) = delete;
  ~async_body() {
    if (state_ == nullptr) return;
    state_->result.fail(broken_promise_error());
    state_->publish();
    state_->release();
  }
  void operator()() noexcept {
    State* const s = std::exchange(state_, nullptr);
    s->run();
    s->release();
  }

 private:
  State* state_;
};

struct async_start {
  template <class R, class F, class... Args>
  static future<R> run(const fiber_options* options, F&& f, Args&&... args) {
    using tuple = std::tuple<std::decay_t<Args>...>;
    using state = async_state<R, std::decay_t<F>, tuple>;
    auto* const s = new state(std::forward<F>(f), tuple(std::forward<Args>(args)...));
    future<R> result(s);
    if (options != nullptr) spawn(*options, async_body<state>(s));
    else spawn(async_body<state>(s));
    return result;
  }
};

template <class F, class... Args>
using async_result = std::invoke_result_t<std::decay_t<F>, std::decay_t<Args>...>;

}  // namespace detail

/// Starts f(args...) as a fiber of the current runtime; what it returns or throws is the future's.
/// Callable and arguments are decayed, as std::async's; unlike it, the future's destructor does not
/// wait.
///
/// \throws std::system_error  errc::no_runtime, errc::runtime_stopping; std::bad_alloc
/// \switch no
template <class F, class... Args>
requires(!std::is_same_v<std::remove_cvref_t<F>, fiber_options>) auto async(F&& f, Args&&... args)
    -> future<detail::async_result<F, Args...>> {
  return detail::async_start::run<detail::async_result<F, Args...>>(nullptr, std::forward<F>(f),
                                                                    std::forward<Args>(args)...);
}
template <class F, class... Args>
auto async(const fiber_options& options, F&& f, Args&&... args)
    -> future<detail::async_result<F, Args...>> {
  return detail::async_start::run<detail::async_result<F, Args...>>(&options, std::forward<F>(f),
                                                                    std::forward<Args>(args)...);
}

}  // namespace tendril
