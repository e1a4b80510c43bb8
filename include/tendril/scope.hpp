// SPDX-License-Identifier: Apache-2.0
//
// Structured concurrency: task_scope, whose children never outlive it; deadline_scope, a deadline for
// everything inside; uncancelable_scope, a shield against both stop requests and such deadlines.
//
//     tendril::deadline_scope limit(500ms);
//     tendril::task_scope both;
//     both.spawn([&] { left = fetch(a); });
//     both.spawn([&] { right = fetch(b); });
//     both.join();  // rethrows the first failure, after the other child has ended
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/ambient.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/detail/waiting.hpp>
#include <tendril/fiber.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

namespace tendril {

/// While it lives, every cancellable wait of this fiber or thread ends with errc::timed_out when the
/// deadline passes, and so do those of the children that a task_scope starts inside. Nested scopes:
/// the earliest counts. Opened and closed by one fiber, in order.
class deadline_scope {
 public:
  template <class Clock, class Duration>
  explicit deadline_scope(const std::chrono::time_point<Clock, Duration>& t) noexcept
      : outer_(detail::ambient_deadline()) {
    const detail::time_point mine = detail::deadline_at(t);
    detail::set_ambient_deadline(mine < outer_ ? mine : outer_);
  }
  template <class Rep, class Period>
  explicit deadline_scope(const std::chrono::duration<Rep, Period>& d) noexcept
      : deadline_scope(detail::deadline_after(d)) {}
  ~deadline_scope() { detail::set_ambient_deadline(outer_); }
  deadline_scope(const deadline_scope&) = delete;
  deadline_scope& operator=(const deadline_scope&) = delete;

  /// The deadline in force for the caller; time_point::max() = none.
  static std::chrono::steady_clock::time_point current() noexcept {
    return detail::ambient_deadline();
  }

 private:
  const detail::time_point outer_;
};

/// While it lives, waits of this fiber or thread end neither by fiber::request_stop nor by a
/// deadline_scope; their own deadlines and stop tokens count. For what must be finished once begun.
class uncancelable_scope {
 public:
  uncancelable_scope() noexcept { detail::enter_shield(); }
  ~uncancelable_scope() { detail::leave_shield(); }
  uncancelable_scope(const uncancelable_scope&) = delete;
  uncancelable_scope& operator=(const uncancelable_scope&) = delete;
};

namespace detail {

struct scope_child;

/// On the heap, as children use it while the scope's owner is parked.
class TENDRIL_API scope_core {
 public:
  scope_core() noexcept;
  ~scope_core();
  scope_core(const scope_core&) = delete;
  scope_core& operator=(const scope_core&) = delete;

  scope_child* add();
  /// The child's fiber was started; or, with an empty one, could not be.
  void started(scope_child*, fiber) noexcept;
  /// On the child: it ends, with what has left its function or null.
  void ended(scope_child*, std::exception_ptr failure) noexcept;
  void cancel() noexcept;
  bool canceled() const noexcept;
  std::size_t size() const noexcept;
  /// Waits for all children; if the wait itself is cancelled, cancels them first. Returns what ended
  /// the wait.
  outcome wait_all() noexcept;
  std::exception_ptr take_failure() noexcept;
  time_point deadline() const noexcept { return deadline_; }

 private:
  void reap() noexcept;
  void unlink(scope_child*) noexcept;
  void mark_stopped(scope_child*) noexcept;

  mutable tiny_lock lock_;
  bool canceled_ = false;
  std::size_t live_ = 0;             // added and not yet ended
  std::size_t cancelers_ = 0;        // inside cancel(): fibers must not be reaped
  scope_child* running_ = nullptr;   // doubly linked
  scope_child* stopping_ = nullptr;  // doubly linked: running, and requested to stop
  scope_child* finished_ = nullptr;  // singly linked
  std::exception_ptr failure_;
  wait_list waiters_;
  const time_point deadline_;
};

}  // namespace detail

/// Children are fibers; spawn() may also be called by the children themselves.
///
/// When a child fails, that is when an exception leaves it, the scope is cancelled: the other children
/// are requested to stop, later ones are started with that request already made. What leaves a child
/// because it was so requested (operation_canceled) is no failure.
///
/// join() waits for all children and rethrows the first failure. The destructor waits too; when it runs
/// because of an exception, or the owner's own wait is cancelled, it cancels the scope first; a failure
/// that nobody has joined is dropped. When join() itself is cancelled, the children are requested to
/// stop and waited for, and then operation_canceled or timed_out is thrown, unless a child had failed.
///
/// \switch join and the destructor: yes, while a child runs
/// \cost   spawn: one allocation besides the fiber
class task_scope {
 public:
  task_scope()
      : core_(std::make_unique<detail::scope_core>()), unwinding_(std::uncaught_exceptions()) {}
  ~task_scope() {
    if (std::uncaught_exceptions() > unwinding_) core_->cancel();
    core_->wait_all();
  }
  task_scope(const task_scope&) = delete;
  task_scope& operator=(const task_scope&) = delete;

  /// \throws std::system_error  errc::no_runtime, errc::runtime_stopping; std::bad_alloc
  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, fiber_options>) void spawn(F&& f) {
    start(fiber_options{}, std::forward<F>(f));
  }
  template <class F>
  void spawn(const fiber_options& options, F&& f) {
    start(options, std::forward<F>(f));
  }

  void join() {
    const detail::outcome ended = core_->wait_all();
    if (std::exception_ptr failure = core_->take_failure()) std::rethrow_exception(failure);
    detail::require_signalled(ended, "task_scope::join");
  }

  /// Requests all children to stop, now and later.
  void cancel() noexcept { core_->cancel(); }
  bool canceled() const noexcept { return core_->canceled(); }
  /// Children that have not ended.
  std::size_t size() const noexcept { return core_->size(); }

 private:
  template <class F>
  void start(const fiber_options& options, F&& f) {
    static_assert(std::is_invocable_v<std::decay_t<F>&>, "task_scope::spawn: f takes no arguments");
    detail::scope_core* const core = core_.get();
    detail::scope_child* const child = core->add();
    try {
      core->started(child, fiber(options, [core, child,
                                           body = std::decay_t<F>(std::forward<F>(f))]() mutable {
                      run(*core, child, std::move(body));
                    }));
    } catch (...) {
      core->started(child, fiber());
      throw;
    }
  }
  template <class F>
  static void run(detail::scope_core& core, detail::scope_child* child, F body) noexcept {
    std::exception_ptr failure;
    try {
      F local(std::move(body));  // gone before the scope learns of the end
      detail::set_ambient_deadline(core.deadline());
      local();
    } catch (...) {
      failure = std::current_exception();
    }
    core.ended(child, std::move(failure));
  }

  std::unique_ptr<detail::scope_core> core_;
  const int unwinding_;
};

}  // namespace tendril
