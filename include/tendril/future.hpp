// SPDX-License-Identifier: Apache-2.0
//
// promise<T> writes a result once, future<T> reads it once: std's names and meaning, and then() for what
// is to happen with it. Also includes async() and shared_future; when_all and when_any are in when.hpp.
//
// The state the two share is one heap block (detail/future_state.hpp). A future that is born ready
// carries its result in itself and allocates nothing, nor does then() on a future that is ready.
//
// Misuse. A future that has no result to give throws a std::future_error with no_state, whose what()
// says why: never had one, moved from, already read. Two at once who wait for one future:
// future_already_retrieved. A fiber that waits for what only itself will write: errc::would_deadlock.
//
// Cancelling. request_stop() asks the producer to stop, and the result is what it makes of that: a
// fiber's wait ends with operation_canceled, which becomes the result unless the fiber catches it.
// cancel() asks too, and does not wait for the answer. A promise learns of both by on_cancel(). Rejected:
// to have cancel() write the result into the state, where every set_value would have to compete with it.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/flow.hpp>
#include <tendril/detail/future_state.hpp>
#include <tendril/detail/result_slot.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/detail/waiting.hpp>

#include <chrono>
#include <exception>
#include <future>  // std::future_error, std::future_errc, std::future_status
#include <type_traits>
#include <utility>

namespace tendril {

using std::future_errc;
using std::future_error;
using std::future_status;

template <class T>
class future;
template <class T>
class shared_future;
template <class T>
class promise;
struct configure_await;

namespace detail {

struct future_access;
struct shared_node;

/// Room in a block for what attaching to a Source needs beyond a chain_link.
template <class Source>
struct source_node {};

[[noreturn]] TENDRIL_API void throw_future_error(std::future_errc);
[[noreturn]] TENDRIL_API void throw_no_result(slot_kind why);
[[noreturn]] TENDRIL_API void throw_waited_twice();
TENDRIL_API std::exception_ptr broken_promise_error() noexcept;
TENDRIL_API std::exception_ptr canceled_error() noexcept;

/// What then() of a `Source` returns for a continuation that returns R.
template <class R>
struct unwrapped {
  using type = R;
  static constexpr bool unwraps = false;
};
template <class T>
struct unwrapped<future<T>> {
  using type = T;
  static constexpr bool unwraps = true;
};
template <class F, class Source>
using then_result = typename unwrapped<std::invoke_result_t<std::decay_t<F>, Source>>::type;

// In then.hpp.
template <class Source, class F>
future<then_result<F, Source>> continue_now(Source& source, F&& f);
template <class Source, class F>
future<then_result<F, Source>> continue_later(synchronization_context* where, Source& source,
                                              F&& f);

}  // namespace detail

/// The reading end: one-shot, move-only. Destroying it does not wait, also not after async.
///
///     tendril::future<int> size = tendril::async(count_lines, "readme");
///     std::cout << size.get();
///
/// States: invalid (default, moved from, read), pending, ready.
///
/// \threads one fiber or thread at a time
/// \source  [futures.unique.future]; then() as in the Concurrency TS
template <class T>
class [[nodiscard]] future {
 public:
  using value_type = T;

  future() noexcept = default;
  future(future&& other) noexcept(std::is_void_v<T> || std::is_reference_v<T> ||
                                  std::is_nothrow_move_constructible_v<T>)
      : state_(std::exchange(other.state_, nullptr)) {
    here_.move_from(other.here_);
  }
  future& operator=(future&& other) noexcept(std::is_nothrow_move_constructible_v<future>) {
    if (this != &other) {
      drop(slot_kind::empty);
      here_.reset();
      state_ = std::exchange(other.state_, nullptr);
      here_.move_from(other.here_);
    }
    return *this;
  }
  ~future() {
    if (state_ != nullptr) state_->release_reader();
  }

  bool valid() const noexcept { return state_ != nullptr || !here_.empty(); }
  /// No wait would switch. Precondition: valid.
  bool is_ready() const noexcept { return state_ == nullptr || state_->ready.is_set(); }

  /// The value, or throws the exception set; not valid afterwards.
  ///
  /// \throws std::future_error  no_state: read before, moved from, default-constructed;
  ///         future_already_retrieved: another waits already
  /// \throws std::system_error  operation_canceled or timed_out (deadline_scope) when the wait was ended,
  ///         errc::would_deadlock when the caller is who should write it: still valid then
  /// \switch yes, unless ready
  T get() {
    wait();
    if (state_ == nullptr) return here_.take();
    const read at_end{*this};
    return state_->result.take();
  }

  /// \throws as get, but not what was set
  /// \switch yes, unless ready
  void wait() const {
    if (!ready_or_throw())
      detail::require_signalled(detail::wait_for_result(*state_, {.reason = what}), what);
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
      return detail::signalled_in_time(
          detail::wait_for_result(*state_, {.deadline = d, .reason = what}), what);
    });
    return in_time ? future_status::ready : future_status::timeout;
  }

  /// Runs f(ready future) once the result is there; what f returns or throws is the result of the future
  /// returned. If f returns a future, its result is. This future is not valid afterwards.
  ///
  /// Where: at once when ready; else in the synchronization context of the caller's flow if it has
  /// one; else on whoever completes the promise, inside its set_value or at the end of its fiber: such a
  /// continuation must not block for long, as it holds up who completes and those behind it. An
  /// exception that nobody reads is dropped, as every unread result. When the context cannot queue
  /// (its post throws), f does not run and that exception is the result. f sees the ambient values of
  /// the caller of then().
  ///
  /// \param f       decayed; called once, with this future, as an rvalue
  /// \throws std::future_error  as get; std::bad_alloc; what copying f throws: still valid then
  /// \switch no, but for f itself
  /// \cost   none beyond f when ready and nothing is to be posted; else one allocation
  template <class F>
  future<detail::then_result<F, future>> then(F&& f);
  /// The same, in a context of the caller's choice, which must outlive the wait. Also when ready, unless the
  /// caller's flow has this context already.
  template <class F>
  future<detail::then_result<F, future>> then(synchronization_context& where, F&& f);
  /// then(configure_await(false), f): as then(f) of a flow that has no context.
  template <class F>
  future<detail::then_result<F, future>> then(configure_await how, F&& f);

  /// For more than one reader. This future is not valid afterwards.
  ///
  /// \throws std::future_error no_state; std::bad_alloc
  /// \cost   one allocation
  shared_future<T> share();

  /// Asks the producer to stop: async's fiber gets a stop request, a promise's on_cancel runs, a
  /// continuation passes it on to the future it waits for. The future stays valid and can be waited
  /// for; what has not stopped by then gives its value. True: this was the first request, and not too late.
  ///
  /// \throws std::future_error  no_state
  bool request_stop() { return !ready_or_throw() && detail::request_stop(*state_); }

  /// The same, and lets go of the result: from now on this future is ready with operation_canceled. False: it
  /// was ready before and is unchanged. What the producer still does then, nobody waits for: do
  /// not cancel what uses the caller's variables.
  ///
  /// \throws std::future_error  no_state
  bool cancel() {
    if (ready_or_throw()) return false;
    detail::request_stop(*state_);
    drop(slot_kind::empty);
    here_.fail(detail::canceled_error());
    return true;
  }

 private:
  friend struct detail::future_access;
  using slot_kind = detail::slot_kind;

  static constexpr const char* what = "future::wait";
  struct read {
    future& f;
    ~read() { f.drop(slot_kind::consumed); }
  };

  explicit future(detail::future_state<T>* state) noexcept : state_(state) {}
  bool ready_or_throw() const {
    if (!valid()) [[unlikely]]
      detail::throw_no_result(here_.kind());
    return is_ready();
  }
  /// Precondition: a state, or here_ is empty.
  void drop(slot_kind why) noexcept {
    if (state_ == nullptr) return;
    here_.mark(why);
    std::exchange(state_, nullptr)->release_reader();
  }
  detail::future_state<T>* state_ = nullptr;
  detail::result_slot<T> here_;  // of a future born ready
};

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
    if (!f.state_->ready.is_set()) throw_waited_twice();
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
    const typename future<T>::read at_end{f};
    return f.state_->result.take();
  }

  // ---- The same of a shared_future; any number at a time --------------------------------------

  template <class T>
  static bool is_ready(const shared_future<T>& f) noexcept;
  /// \throws std::future_error  no_state
  template <class T>
  static bool on_ready(shared_future<T>& f, continuation& c, shared_node& node);
  /// True: what was attached with the node will not run. False: it has run, or will in a moment.
  template <class T>
  static bool withdraw(shared_future<T>& f, shared_node& node) noexcept;
  /// Precondition: ready.
  template <class T>
  static const result_slot<T>& result(const shared_future<T>& f) noexcept;
  template <class T>
  static void require_valid(const shared_future<T>& f);

  // ---- For who makes futures -----------------------------------------------------------------

  /// The reader of a state; the state's first reader reference is its.
  template <class T>
  static future<T> make(future_state<T>* s) noexcept {
    return future<T>(s);
  }
  /// Where the result of a ready future lies; of a default-constructed one: where it can be put, so that it
  /// is born ready.
  template <class T>
  static result_slot<T>& result(future<T>& f) noexcept {
    return f.state_ == nullptr ? f.here_ : f.state_->result;
  }
  /// The same of one that is known to have no state.
  template <class T>
  static result_slot<T>& own_result(future<T>& f) noexcept {
    return f.here_;
  }
  /// Null: born ready, or not valid.
  template <class T>
  static future_state_base* state(const future<T>& f) noexcept {
    return f.state_;
  }
  template <class T>
  static future_state_base* state(const future<T>& f, source_use) noexcept {
    return f.state_;
  }
  template <class T>
  static future_state_base* state(const shared_future<T>& f, source_use use) noexcept;
  template <class T>
  static bool on_ready(future<T>& f, continuation& c, const source_node<future<T>>&) {
    return on_ready(f, c);
  }
  template <class T>
  static void require_valid(const future<T>& f) {
    static_cast<void>(f.ready_or_throw());
  }
};

/// What promise<T>, <T&> and <void> share.
template <class T>
class promise_base {
 public:
  promise_base() : state_(new promise_state<T>) {}
  promise_base(promise_base&& other) noexcept
      : state_(std::exchange(other.state_, nullptr)),
        retrieved_(other.retrieved_),
        satisfied_(other.satisfied_),
        hooked_(other.hooked_) {}
  promise_base& operator=(promise_base&& other) noexcept {
    promise_base(std::move(other)).swap(*this);
    return *this;
  }
  ~promise_base() {
    if (state_ != nullptr) abandon();
  }

  /// \throws std::future_error  future_already_retrieved, no_state
  future<T> get_future() {
    if (state_ == nullptr) throw_future_error(std::future_errc::no_state);
    if (retrieved_) throw_future_error(std::future_errc::future_already_retrieved);
    retrieved_ = true;
    return future_access::make<T>(state_);
  }
  /// \throws std::future_error  promise_already_satisfied, no_state
  void set_exception(std::exception_ptr e) {
    check();
    unhook();
    state_->result.fail(std::move(e));
    publish();
  }

  /// Has f() called when nobody wants the result any more: at future::request_stop, cancel or the end of the
  /// future before the result is set; at once if that has happened. Once, on whoever does that, also
  /// while this promise is being set or destroyed elsewhere: f owns what it uses. Never after the
  /// result was set. Several hooks run newest first. For a std::stop_token:
  ///
  ///     std::stop_source stop;
  ///     p.on_cancel([stop]() mutable { stop.request_stop(); });
  ///
  /// \param f  may set this promise, must not throw (terminates) nor wait for long
  /// \throws std::future_error  promise_already_satisfied, no_state; std::bad_alloc
  /// \cost   one allocation
  template <class F>
  void on_cancel(F&& f) {
    struct hook final : cancel_hook {
      explicit hook(F&& given) : call(std::forward<F>(given)) {
        end = [](cancel_hook* self, bool run) noexcept {
          auto* const me = static_cast<hook*>(self);
          if (run) me->call();
          delete me;
        };
      }
      std::decay_t<F> call;
    };
    check();
    auto* const fresh = new hook(std::forward<F>(f));
    hooked_ = true;  // first: the hook may use this promise
    state_->add_hook(fresh);
  }
  /// The result is not wanted any more: what on_cancel's hook would be told. One load.
  ///
  /// \throws std::future_error  no_state
  bool stop_requested() const {
    if (state_ == nullptr) throw_future_error(std::future_errc::no_state);
    return state_->life.is_requested() || !state_->life.has_readers();
  }

  void swap(promise_base& other) noexcept {
    std::swap(state_, other.state_);
    std::swap(retrieved_, other.retrieved_);
    std::swap(satisfied_, other.satisfied_);
    std::swap(hooked_, other.hooked_);
  }

 protected:
  /// If the value's construction throws, the promise is still pending.
  template <class... U>
  void set(U&&... value) {
    check();
    if (hooked_) [[unlikely]] {
      const hooks_out out{*state_};
      state_->result.emplace(std::forward<U>(value)...);
      hooked_ = false;
    } else {
      state_->result.emplace(std::forward<U>(value)...);
    }
    publish();
  }

 private:
  /// The hooks' room is the result's; if there is none in the end, they are put back.
  struct hooks_out {
    explicit hooks_out(promise_state<T>& s) noexcept : state(s), first(s.take_hooks()) {}
    ~hooks_out() {
      if (!state.result.empty()) end_hooks(std::exchange(first, nullptr), false);
      while (first != nullptr) {
        cancel_hook* const h = first;
        first = h->next;
        state.add_hook(h);
      }
    }
    hooks_out(const hooks_out&) = delete;
    hooks_out& operator=(const hooks_out&) = delete;
    promise_state<T>& state;
    cancel_hook* first;
  };

  void check() const {
    if (state_ == nullptr) throw_future_error(std::future_errc::no_state);
    if (satisfied_) throw_future_error(std::future_errc::promise_already_satisfied);
  }
  void unhook() noexcept {
    if (std::exchange(hooked_, false)) end_hooks(state_->take_hooks(), false);
  }
  void publish() noexcept {
    satisfied_ = true;
    state_->publish();
  }
  void abandon() noexcept {
    unhook();
    if (retrieved_) {
      if (!satisfied_) {
        state_->result.fail(broken_promise_error());
        state_->publish();
      }
    } else {
      state_->release_reader();  // the future's reference, which nobody took
    }
    state_->release_producer();
  }

  promise_state<T>* state_;
  bool retrieved_ = false;  // these are ours alone: a promise is used by one at a time
  bool satisfied_ = false;
  bool hooked_ = false;  // there may be hooks
};

}  // namespace detail

/// The writing end. Destroyed without a result, it leaves broken_promise to whoever waits, of whichever
/// kind.
///
/// \threads one fiber or thread at a time; setting does not switch, but for the continuations it runs
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
  detail::future_access::result(f).emplace(std::forward<Args>(args)...);
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
  detail::future_access::result(f).fail(std::move(e));
  return f;
}

}  // namespace tendril

#include <tendril/async.hpp>
#include <tendril/detail/then.hpp>
#include <tendril/shared_future.hpp>
