// SPDX-License-Identifier: Apache-2.0
//
// Synchronization contexts: where what follows a wait runs. A user interface's loop, a throttle, a strand, a
// counter in a test.
//
//     tendril::use_context here(&loop);               // for this flow, until the end of the scope
//     socket.read_some(buffer);                       // the fiber's resumption goes by way of the loop
//     f.then(show);                                   // runs on the loop
//     f.then(tendril::configure_await(false), log);   // runs on whoever completes f
//
// A *continuation* (future::then, a task that awaits) is posted as it is and runs where the context runs its
// works. A *fiber* has its own stack and runs on its runtime's workers whoever resumes it: what is posted is
// its unparking. So the context decides when the fiber goes on, counts it and delays it, but a fiber in the
// context of a loop is not on the loop's thread. That is also why a fiber that waits inside a loop's context
// holds up nobody.
//
// Waits for a mutex go by way of nothing, either: the lock, handed to who waits in the context's queue, would be
// missed by the work that has to run before it. A wait that is over before it parks does not, too. Without a context a wait tests one bit of a
// word that it reads anyhow.
//
// A flow that *runs* a context's works (the thread in loop_context::run) is its *host*. The host's own waits end
// in place, since their end, queued behind the work that waits, would never come; and the context is asked
// before the host waits, because what is queued for it waits meanwhile: loop_context reports or refuses.
//
// Children do not inherit their parent's context: nothing of a fiber needs a particular thread.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/flow.hpp>
#include <tendril/detail/waiting.hpp>

#include <chrono>
#include <cstddef>

namespace tendril {

/// A callable of two words that is posted to a synchronization context: fits any queue, owns nothing.
struct posted_work {
  void (*run)(void* argument) noexcept;
  void* argument;
  void operator()() const noexcept { run(argument); }
};

/// A wait of a context's host, which holds up what is queued for it.
struct host_wait {
  const char* reason;                           ///< the operation, as in fiber dumps
  std::chrono::steady_clock::time_point since;  ///< when it began
  bool refusable;        ///< whether it can end with an error; not the waits of destructors
  bool refused = false;  ///< set by the context: the wait ends with errc::would_deadlock
};

/// Where the continuations of a flow of control run. The context that is in force when somebody waits gets
/// what follows the wait.
///
/// \threads post from any
class TENDRIL_API synchronization_context {
 public:
  synchronization_context() noexcept = default;
  synchronization_context(const synchronization_context&) = delete;
  synchronization_context& operator=(const synchronization_context&) = delete;
  virtual ~synchronization_context();

  /// Queues work, which runs later, exactly once, never inside post: where, when and how many at a time is the
  /// context's affair. A context that cannot take the resumption of a fiber ends the process, as the fiber
  /// could never go on.
  ///
  /// \throws std::bad_alloc
  virtual void post(posted_work work) = 0;

  /// The host, unlike anybody else, is about to block or park in a wait; called again each time it is woken
  /// without reason. Returns when to be asked again at the latest.
  virtual std::chrono::steady_clock::time_point before_host_waits(host_wait& wait) noexcept;
  /// That wait is over.
  virtual void after_host_waited() noexcept;

  /// The calling flow's; null: none.
  static synchronization_context* current();

  /// For implementations: while it lives, the calling flow is the context's host, and it is in force.
  class hosting;
};

namespace detail {

struct flow_contexts {
  synchronization_context* sync;
  synchronization_context* host;
  bool off;
};
/// Changes the calling flow's and returns what they were.
TENDRIL_API flow_contexts set_contexts(flow_contexts now);
TENDRIL_API flow_contexts get_contexts();

inline posted_work to_work(continuation& c) noexcept {
  return {[](void* p) noexcept {
            auto* const self = static_cast<continuation*>(p);
            self->run(self);
          },
          &c};
}

}  // namespace detail

/// An argument of awaiting operations: whether what follows goes by way of the context in force.
struct configure_await {
  explicit constexpr configure_await(bool continue_on_context) noexcept
      : on_context(continue_on_context) {}
  bool on_context;
};

namespace detail {

/// Where a continuation that the calling flow attaches now is to run; null: on whoever completes.
TENDRIL_API synchronization_context* resume_context(configure_await how = configure_await(true));

/// Puts what a scope changed back.
class context_scope {
 public:
  context_scope(const context_scope&) = delete;
  context_scope& operator=(const context_scope&) = delete;
  static void* operator new(std::size_t) = delete;

 protected:
  explicit context_scope(flow_contexts now) : outer_(set_contexts(now)) {}
  ~context_scope() { set_contexts(outer_); }

 private:
  const flow_contexts outer_;
};

}  // namespace detail

/// While it lives, c is the context of the calling flow; null: none. Scopes nest, in one flow.
/// \pre  c outlives the scope and what is posted in it
class use_context : detail::context_scope {
 public:
  explicit use_context(synchronization_context* c)
      : context_scope({c, detail::get_contexts().host, false}) {}
};

/// configure_await for all waits and continuations of a scope. configure_await_scope(true) inside one that is
/// false puts the context in force again.
class configure_await_scope : detail::context_scope {
 public:
  explicit configure_await_scope(bool continue_on_context)
      : configure_await_scope(configure_await(continue_on_context)) {}
  explicit configure_await_scope(configure_await how)
      : configure_await_scope(detail::get_contexts(), how) {}

 private:
  configure_await_scope(detail::flow_contexts now, configure_await how)
      : context_scope({now.sync, now.host, !how.on_context}) {}
};

class synchronization_context::hosting : detail::context_scope {
 public:
  explicit hosting(synchronization_context& c) : context_scope({&c, &c, false}) {}
};

}  // namespace tendril
