// SPDX-License-Identifier: Apache-2.0
//
// loop_context: works of many, run one after the other by one thread. The main loop of a program whose state
// belongs to that thread, as a user interface's does.
//
//     tendril::loop_context loop({.name = "ui"});
//     std::thread ui([&] { loop.run(); });
//     loop.post([] { redraw(); });
//     ...
//     loop.stop();
//
// While run() runs, the loop is the context in force of the flow that called it, and that flow is its host: what
// a work awaits continues on the loop.
//
// The host that waits instead of awaiting holds up everything that is queued: if what it waits for is one of
// those, for ever. This is the deadlock of blocking on asynchronous code:
//
//     loop's thread -- waits in future::wait for --> a task -- continues in --> a work queued for the loop's thread
//
// The loop sees it: its host is in a wait, works are queued, and have been so for `self_wait_grace`. Then it
// reports, with the names of those concerned, or ends the wait with errc::would_deadlock. Neither does harm when
// the wait is merely long. A *fiber* that waits, also one in the loop's context, holds up nobody.
#pragma once

#include <tendril/config.hpp>
#include <tendril/synchronization_context.hpp>

#include <chrono>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace tendril {

/// What a loop does when its own thread waits while works are queued for it.
enum class self_wait_policy {
  report,  ///< tell once for each such wait, and go on waiting
  fail,  ///< tell, and end the wait with errc::would_deadlock; waits that cannot fail are only told of
  ignore,
};

struct loop_options {
  /// For reports.
  std::string name = "loop";
  self_wait_policy on_self_wait = self_wait_policy::report;
  /// How long the oldest queued work has waited for a host that waits, before that is called a deadlock. Zero:
  /// at once.
  std::chrono::nanoseconds self_wait_grace = std::chrono::seconds(1);
  /// Called with the report by the host itself, inside its wait: it must not wait, nor throw, but may do what
  /// ends the wait. Empty: print to stderr.
  std::function<void(std::string_view report)> on_report = {};
};

class TENDRIL_API loop_context final : public synchronization_context {
 public:
  explicit loop_context(loop_options options = {});
  /// Runs what is queued: a work is never lost. What works refer to must still be there.
  /// \pre  nobody runs it or posts any more
  ~loop_context() override;

  /// \throws std::bad_alloc
  /// \threads any, also its own
  /// \cost   one lock
  void post(posted_work work) override;
  /// The same for a callable. What leaves it as an exception leaves run().
  template <class F>
  requires(std::is_invocable_v<std::decay_t<F>&> &&
           !std::is_same_v<std::decay_t<F>, posted_work>) void post(F&& f);

  /// Runs works, waiting for more, until stop(). By one flow at a time.
  ///
  /// \throws what left a work posted as a callable: run() may be called again; std::system_error
  ///         errc::would_deadlock when it runs already, by this flow or another; operation_canceled or
  ///         timed_out when the wait for works was ended
  /// \switch a fiber: yes. A thread blocks.
  void run();
  /// The same until done() is true: asked at first, after every work and at every wake().
  void run_until(const std::function<bool()>& done);
  /// Runs what is queued now, without waiting. Returns the number of works.
  std::size_t run_queued();

  /// Makes the run() or run_until() in progress, or else the next, return after the work it is in.
  /// \threads any
  void stop() noexcept;
  /// Makes run_until() ask again.
  /// \threads any
  void wake() noexcept;

  /// Whether the caller is its host.
  bool hosted_here() const;
  /// Works queued now.
  std::size_t queued() const noexcept;
  std::string_view name() const noexcept;

  std::chrono::steady_clock::time_point before_host_waits(host_wait& wait) noexcept override;
  void after_host_waited() noexcept override;

 private:
  struct state;
  void fail(std::exception_ptr) noexcept;
  std::unique_ptr<state> state_;
};

template <class F>
requires(std::is_invocable_v<std::decay_t<F>&> &&
         !std::is_same_v<std::decay_t<F>, posted_work>) void loop_context::post(F&& f) {
  struct call {
    loop_context* loop;
    std::decay_t<F> f;
  };
  auto c = std::make_unique<call>(call{this, std::forward<F>(f)});
  post(posted_work{[](void* p) noexcept {
                     const std::unique_ptr<call> mine(static_cast<call*>(p));
                     try {
                       mine->f();
                     } catch (...) {
                       mine->loop->fail(std::current_exception());
                     }
                   },
                   c.get()});
  static_cast<void>(c.release());
}

}  // namespace tendril
