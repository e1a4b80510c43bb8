// SPDX-License-Identifier: Apache-2.0
//
// shared_future<T>: a future that many may wait for, and read as often as they like.
//
// Its state is a block of its own that waits for the one-shot future and keeps the result where it is.
// The lists of waiters and continuations stand under one lock, as in every primitive: a shared future is
// waited for by many, so a lock of a few instructions is not what it costs. Rejected: a lock-free stack
// of waiters in one word, which would have to be a second protocol for giving up a wait.
//
// What waits keeps the state alive: each handle, each continuation (by its handle), and the link in the
// one-shot future. When the last handle goes before the result is there, that link is taken out, so that
// the producer learns that nobody wants it.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/then.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/future.hpp>
#include <tendril/synchronization_context.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace tendril {
namespace detail {

/// A place in the list of continuations; belongs to who attaches it.
struct shared_node {
  continuation* what = nullptr;
  shared_node* next = nullptr;
  shared_node* prev = nullptr;
};

class shared_state_base : public chain_link {
 public:
  shared_state_base(const shared_state_base&) = delete;
  shared_state_base& operator=(const shared_state_base&) = delete;

  bool is_set() const noexcept { return set_.load(std::memory_order_acquire); }
  /// \throws as wait_for_result, but for any number of waiters
  TENDRIL_API outcome wait(const wait_options& options);
  /// False: it is set, c will not run.
  TENDRIL_API bool attach(shared_node& node, continuation& c) noexcept;
  /// True: it will not run. False: it has run, runs, or will run in a moment.
  TENDRIL_API bool detach(shared_node& node) noexcept;

  void add_handle() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
  TENDRIL_API void release_handle() noexcept;
  /// Null: the source was born ready.
  virtual future_state_base* source_state() const noexcept = 0;

 protected:
  shared_state_base() noexcept {
    step = [](chain_link* self) noexcept {
      return static_cast<shared_state_base*>(self)->complete();
    };
  }
  ~shared_state_base() = default;
  /// The source was ready.
  void born_set() noexcept {
    set_.store(true, std::memory_order_relaxed);
    references_.store(1, std::memory_order_relaxed);
  }
  virtual void destroy() noexcept = 0;
  virtual bool withdraw_from_source() noexcept = 0;

 private:
  continuation* complete() noexcept;

  tiny_lock lock_;  // guards set_'s writing and the lists
  std::atomic<bool> set_{false};
  std::atomic<std::uint32_t> references_{2};  // the handles, and the link until it has run
  wait_list waiters_;
  shared_node* first_ = nullptr;
  shared_node* last_ = nullptr;
};

template <class T>
class shared_state final : public shared_state_base {
 public:
  /// \throws std::future_error  future_already_retrieved: f is unchanged
  static shared_state* make(future<T>& f) {
    auto* const s = new shared_state(std::move(f));
    try {
      if (!future_access::on_ready(s->source_, *s)) s->born_set();
    } catch (...) {
      f = std::move(s->source_);
      delete s;
      throw;
    }
    return s;
  }
  const result_slot<T>& result() noexcept { return future_access::result(source_); }
  bool request_stop() { return source_.request_stop(); }
  future_state_base* source_state() const noexcept override {
    return future_access::state(source_);
  }

 private:
  explicit shared_state(future<T>&& f) : source_(std::move(f)) {}
  void destroy() noexcept override { delete this; }
  bool withdraw_from_source() noexcept override { return future_access::withdraw(source_, *this); }

  future<T> source_;  // only looked at after the start
};

template <class T>
struct source_node<shared_future<T>> : shared_node {};

}  // namespace detail

/// A future that can be copied, waited for by any number and read any number of times.
///
///     tendril::shared_future<config> settings = tendril::async(load).share();
///
/// States: invalid (default, moved from), pending, ready.
///
/// \threads one handle is used by one fiber or thread at a time; copies independently
/// \source  [futures.shared.future]
template <class T>
class shared_future {
 public:
  using value_type = T;

  shared_future() noexcept = default;
  /// \throws as future::share
  shared_future(future<T>&& f) {  // NOLINT: converts, as std's
    detail::future_access::require_valid(f);
    state_ = detail::shared_state<T>::make(f);
  }
  shared_future(const shared_future& other) noexcept : state_(other.state_) {
    if (state_ != nullptr) state_->add_handle();
  }
  shared_future(shared_future&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  shared_future& operator=(shared_future other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~shared_future() {
    if (state_ != nullptr) state_->release_handle();
  }

  bool valid() const noexcept { return state_ != nullptr; }
  /// No wait would switch. Precondition: valid.
  bool is_ready() const noexcept { return state_->is_set(); }

  /// The value, or throws the exception set, which is then shared by all who read.
  ///
  /// \return reference that is good as long as any copy of this future is; for T& and void: T& and nothing
  /// \throws std::future_error  no_state
  /// \throws std::system_error  operation_canceled or timed_out (deadline_scope) when the wait was ended,
  ///         errc::would_deadlock when the caller is who should write it
  /// \switch yes, unless ready
  std::add_lvalue_reference_t<const T> get() const {
    wait();
    return state_->result().peek();
  }

  /// \switch yes, unless ready
  void wait() const {
    if (!ready_or_throw()) detail::require_signalled(state_->wait({.reason = what}), what);
  }
  template <class Rep, class Period>
  std::future_status wait_for(const std::chrono::duration<Rep, Period>& d) const {
    if (ready_or_throw()) return std::future_status::ready;
    return wait_until(detail::deadline_after(d));
  }
  template <class Clock, class Duration>
  std::future_status wait_until(const std::chrono::time_point<Clock, Duration>& t) const {
    if (ready_or_throw()) return std::future_status::ready;
    const bool in_time = detail::attempt_until(t, [this](detail::time_point d) {
      return detail::signalled_in_time(state_->wait({.deadline = d, .reason = what}), what);
    });
    return in_time ? std::future_status::ready : std::future_status::timeout;
  }

  /// As future::then, any number of times; f gets a copy of this future. Continuations run in the order in
  /// which they were attached. A stop request for what it returns does not reach this future's
  /// producer, as others may want its result.
  template <class F>
  future<detail::then_result<F, shared_future>> then(F&& f) const {
    shared_future self = *this;
    if (ready_or_throw()) return detail::continue_now(self, std::forward<F>(f));
    return detail::continue_later(detail::resume_context(), self, std::forward<F>(f));
  }
  template <class F>
  future<detail::then_result<F, shared_future>> then(synchronization_context& where, F&& f) const {
    shared_future self = *this;
    if (ready_or_throw() && detail::this_flow().sync == &where)
      return detail::continue_now(self, std::forward<F>(f));
    return detail::continue_later(&where, self, std::forward<F>(f));
  }
  template <class F>
  future<detail::then_result<F, shared_future>> then(configure_await how, F&& f) const {
    shared_future self = *this;
    if (ready_or_throw()) return detail::continue_now(self, std::forward<F>(f));
    return detail::continue_later(detail::resume_context(how), self, std::forward<F>(f));
  }

  /// As future::request_stop: for all who share it.
  bool request_stop() const { return !ready_or_throw() && state_->request_stop(); }

 private:
  friend struct detail::future_access;
  static constexpr const char* what = "shared_future::wait";

  bool ready_or_throw() const {
    if (state_ == nullptr) [[unlikely]]
      detail::throw_no_result(detail::slot_kind::empty);
    return state_->is_set();
  }

  detail::shared_state<T>* state_ = nullptr;
};

template <class T>
shared_future<T> future<T>::share() {
  return shared_future<T>(std::move(*this));
}

namespace detail {

template <class T>
bool future_access::is_ready(const shared_future<T>& f) noexcept {
  return f.is_ready();
}
template <class T>
bool future_access::on_ready(shared_future<T>& f, continuation& c, shared_node& node) {
  return !f.ready_or_throw() && f.state_->attach(node, c);
}
template <class T>
bool future_access::withdraw(shared_future<T>& f, shared_node& node) noexcept {
  return f.state_ != nullptr && f.state_->detach(node);
}
template <class T>
const result_slot<T>& future_access::result(const shared_future<T>& f) noexcept {
  return f.state_->result();
}
template <class T>
future_state_base* future_access::state(const shared_future<T>& f, source_use use) noexcept {
  return use == source_use::look ? f.state_->source_state()
                                 : nullptr;  // others may want its result
}
template <class T>
void future_access::require_valid(const shared_future<T>& f) {
  static_cast<void>(f.ready_or_throw());
}

}  // namespace detail
}  // namespace tendril
