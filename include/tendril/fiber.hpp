// SPDX-License-Identifier: Apache-2.0
//
// Fibers: starting, joining, naming, stopping; the calling fiber's own affairs.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/closure.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/stack.hpp>

#include <chrono>
#include <compare>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <stop_token>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace tendril {

class runtime;

struct fiber_options {
  stack_options stack = {};    ///< as it is: the runtime's
  std::string_view name = {};  ///< shown in dumps and messages; copied, at most 31 bytes kept
  /// Index of the only worker to run on; -1: any. A worker, not an OS thread: when a fiber blocks its worker's
  /// thread, the worker goes on on another.
  int affinity = -1;
};

/// Identifies a fiber while the process lives; default: no fiber.
class fiber_id {
 public:
  constexpr fiber_id() noexcept = default;
  constexpr explicit fiber_id(std::uint64_t value) noexcept : value_(value) {}
  constexpr std::uint64_t value() const noexcept { return value_; }
  friend constexpr auto operator<=>(fiber_id, fiber_id) noexcept = default;

 private:
  std::uint64_t value_ = 0;
};

TENDRIL_API std::ostream& operator<<(std::ostream&, fiber_id);

namespace detail {
TENDRIL_API void apply_options(fiber_core*, const fiber_options&);
TENDRIL_API void release_handle(fiber_core*) noexcept;
TENDRIL_API void detach_core(fiber_core*);
TENDRIL_API void join_core(fiber_core*, bool cancelable);
TENDRIL_API void rethrow_from(fiber_core*);
TENDRIL_API bool request_stop(fiber_core*) noexcept;
TENDRIL_API std::stop_source stop_source_of(fiber_core*);
TENDRIL_API fiber_id id_of(const fiber_core*) noexcept;
}  // namespace detail

/// A running function with a stack of its own: the interface of std::jthread.
///
/// Destroying a joinable fiber requests it to stop and joins it. An exception that leaves the
/// function is rethrown by join(); the destructor drops it.
///
/// \threads  a handle is used by one fiber or thread at a time; request_stop from any
/// \source   [thread.jthread.class]
class [[nodiscard]] fiber {
 public:
  using id = fiber_id;

  fiber() noexcept = default;

  /// Starts f(args...) on the current runtime; f receives a std::stop_token first if it takes one.
  ///
  /// \throws std::system_error  errc::no_runtime, errc::runtime_stopping
  template <class F, class... Args>
  requires(!std::is_same_v<std::remove_cvref_t<F>, fiber> &&
           !std::is_same_v<std::remove_cvref_t<F>, fiber_options>) explicit fiber(F&& f,
                                                                                  Args&&... args) {
    start(nullptr, std::forward<F>(f), std::forward<Args>(args)...);
  }

  /// \throws std::system_error  errc::invalid_option naming the option and its value
  template <class F, class... Args>
  explicit fiber(const fiber_options& options, F&& f, Args&&... args) {
    start(&options, std::forward<F>(f), std::forward<Args>(args)...);
  }

  ~fiber() {
    if (joinable()) stop_and_join();
  }
  fiber(fiber&& other) noexcept : core_(std::exchange(other.core_, nullptr)) {}
  fiber& operator=(fiber&& other) noexcept {
    if (this != &other) {
      if (joinable()) stop_and_join();
      core_ = std::exchange(other.core_, nullptr);
    }
    return *this;
  }

  bool joinable() const noexcept { return core_ != nullptr; }
  id get_id() const noexcept { return core_ != nullptr ? detail::id_of(core_) : id(); }

  /// Waits for the fiber's end and rethrows what left its function.
  ///
  /// \throws std::system_error  invalid_argument when not joinable; errc::would_deadlock when a fiber
  ///         joins itself; operation_canceled or timed_out when this wait was ended, the fiber then
  ///         stays joinable
  /// \switch yes, unless it has ended
  void join() {
    detail::join_core(core_, true);
    detail::fiber_core* core = std::exchange(core_, nullptr);
    detail::rethrow_from(core);
  }

  /// Lets the fiber run on by itself; an exception that leaves it goes to the runtime's handler.
  ///
  /// \throws std::system_error  invalid_argument when not joinable
  void detach() {
    detail::detach_core(core_);
    core_ = nullptr;
  }

  /// Asks the fiber to stop: its stop token is triggered and every cancellable wait, the present one
  /// and later ones, ends with operation_canceled. True for the first request.
  bool request_stop() noexcept { return core_ != nullptr && detail::request_stop(core_); }
  std::stop_source get_stop_source() const {
    return core_ != nullptr ? detail::stop_source_of(core_) : std::stop_source(std::nostopstate);
  }
  std::stop_token get_stop_token() const {
    return core_ != nullptr ? detail::stop_source_of(core_).get_token() : std::stop_token();
  }

  void swap(fiber& other) noexcept { std::swap(core_, other.core_); }
  friend void swap(fiber& a, fiber& b) noexcept { a.swap(b); }
  TENDRIL_API static unsigned hardware_concurrency() noexcept;

 private:
  template <class F, class... Args>
  void start(const fiber_options* options, F&& f, Args&&... args);

  void stop_and_join() noexcept {
    detail::request_stop(core_);
    detail::join_core(core_, false);
    detail::release_handle(std::exchange(core_, nullptr));
  }

  detail::fiber_core* core_ = nullptr;
};

namespace this_fiber {

/// Lets other runnable fibers run first. On a thread: std::this_thread::yield.
///
/// \switch  yes, when another fiber is runnable
/// \cost    about one switch
TENDRIL_API void yield() noexcept;

/// \throws std::system_error  operation_canceled, timed_out (deadline_scope)
/// \switch yes
TENDRIL_API void sleep_until_steady(detail::time_point deadline);

template <class Rep, class Period>
void sleep_for(const std::chrono::duration<Rep, Period>& d) {
  sleep_until_steady(detail::deadline_after(d));
}
template <class Clock, class Duration>
void sleep_until(const std::chrono::time_point<Clock, Duration>& t) {
  if constexpr (std::is_same_v<Clock, detail::clock>) {
    sleep_until_steady(detail::deadline_at(t));
  } else {
    while (Clock::now() < t) sleep_until_steady(detail::deadline_at(t));
  }
}

/// The default id on a plain thread.
TENDRIL_API fiber_id get_id() noexcept;
/// Triggered by fiber::request_stop and the runtime's stop. On a plain thread: a token without state.
TENDRIL_API std::stop_token get_stop_token();
/// Cheaper than get_stop_token().stop_requested(): one load.
TENDRIL_API bool stop_requested() noexcept;
TENDRIL_API bool is_fiber() noexcept;
/// The name given in fiber_options; empty if none, or on a plain thread.
TENDRIL_API std::string_view name() noexcept;
/// Index of the worker the fiber is running on right now. -1 on a plain thread, and while the fiber, having
/// blocked its thread for long, runs on it without a worker: until its next call that switches. Stale after
/// a switch.
TENDRIL_API int worker_index() noexcept;

}  // namespace this_fiber

template <class F, class... Args>
void fiber::start(const fiber_options* options, F&& f, Args&&... args) {
  constexpr bool takes_token =
      std::is_invocable_v<std::decay_t<F>, std::stop_token, std::decay_t<Args>...>;
  static_assert(takes_token || std::is_invocable_v<std::decay_t<F>, std::decay_t<Args>...>,
                "tendril::fiber: the callable cannot be invoked with these arguments");
  detail::fiber_core* core;
  if constexpr (sizeof...(Args) == 0 && !takes_token) {
    core = detail::make_fiber_core(
        [body = std::decay_t<F>(std::forward<F>(f))]() mutable { std::invoke(std::move(body)); });
  } else {
    core = detail::make_fiber_core(
        [body = std::decay_t<F>(std::forward<F>(f)),
         bound = std::tuple<std::decay_t<Args>...>(std::forward<Args>(args)...)]() mutable {
          std::apply(
              [&](auto&&... a) {
                if constexpr (takes_token)
                  std::invoke(std::move(body), this_fiber::get_stop_token(), std::move(a)...);
                else std::invoke(std::move(body), std::move(a)...);
              },
              std::move(bound));
        });
  }
  if (options != nullptr) {
    try {
      detail::apply_options(core, *options);
    } catch (...) {
      detail::free_unstarted_core(core);
      throw;
    }
  }
  detail::start_joinable(core, nullptr);
  core_ = core;
}

/// Starts f as a fiber that nobody joins.
///
/// An exception that leaves f goes to runtime_options::on_unhandled_exception; the end by a stop
/// request (operation_canceled after request_stop) counts as a normal end.
///
/// \throws std::system_error  errc::no_runtime, errc::runtime_stopping; std::bad_alloc
/// \switch no
/// \threads from fibers and threads
template <class F>
void spawn(F&& f) {
  detail::start_detached(detail::make_fiber_core(std::forward<F>(f)), nullptr);
}

template <class F>
void spawn(const fiber_options& options, F&& f) {
  detail::fiber_core* core = detail::make_fiber_core(std::forward<F>(f));
  try {
    detail::apply_options(core, options);
  } catch (...) {
    detail::free_unstarted_core(core);
    throw;
  }
  detail::start_detached(core, nullptr);
}

}  // namespace tendril

template <>
struct std::hash<tendril::fiber_id> {
  std::size_t operator()(tendril::fiber_id id) const noexcept {
    return std::hash<std::uint64_t>()(id.value());
  }
};
