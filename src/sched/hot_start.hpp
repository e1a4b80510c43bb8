// SPDX-License-Identifier: Apache-2.0
//
// A hot start: a fiber that begins as a call. It runs at once, on the thread of whoever starts it, on a stack
// of its own. If it ends without having been switched away from, the whole was a function call that
// used another stack. At its first suspension it leaves its *host*, the caller, which goes on as if the
// call had returned; from then on it is an ordinary fiber of its runtime.
//
//     start_hot                   park, yield, move off: leave_host()            unpark
//    -----------> hot on its host --------------------------------> parked or --------> an ordinary
//                  |    ^                                            runnable            fiber
//          returns |    | the next start
//                  v    |
//                 shell, kept by the thread
//
// A *shell* is all that a fiber has and a call does not: core, stack, frame. A thread keeps those of calls
// that have ended (worker_thread::shells), so that starting one takes no memory, no lock and no mark on
// the hold of the worker: the worker plays no part in it. Tasklets' shells are kept beside those of the default
// class, each with a slot that is exclusively its own (slots.hpp) until its fiber leaves its host.
//
// Invariants
//  1. A hot fiber is the current fiber of its thread (worker_thread::current), with pins = hot, and
//     fiber_core::host leads to the hot_call on the stack below it: its caller's context, saved in the
//     layout of an ordinary switch. Hosts nest; none of them can run before what it hosts has left or ended,
//     and so none leaves the thread.
//  2. The host's side finishes the departure: it lets the caller make the future's shared state
//     (hot_ops::suspended), counts the fiber as spawned, and only then commits (park word, or a queue).
//     Before that nobody else can run the fiber. As everywhere, the commit comes after the context is
//     saved; here it is the host that has arrived.
//  3. Between start and departure t.current changes without an enter() of the hold. The monitor, which
//     reads it while a claim is open, sees a host, a hot fiber or a shell: each has a frame, because
//     shells are given back, and departures committed, only inside the hold, which waits for the claim.
//  4. Until its first suspension the fiber is not counted (runtime_stats, drain): it is its caller's call.
//     A request to stop the runtime reaches it, as its flags say that it is alive. Its id is made when
//     somebody asks for it.
//
// What a fiber has of its own, a hot one has: id, name, stop requests, shields, fiber locals, the state of
// exceptions. It inherits what a child inherits, the ambient deadline and values; and what a called
// function does: floating-point control words and errno, which it leaves to the caller as a function does.
// The values are lent (detail/flow.hpp): counting a reference up and down takes as long as the rest of the call.
// At the departure the host, who has not touched its own meanwhile, takes a reference for the fiber's whole life.
//
// A pinned fiber can host: what it starts is not pinned, and leaves at its first wait. A hot fiber that is pinned
// itself (a callback of a native call in it) blocks its thread as any pinned fiber, its hosts below it. If a hot
// fiber blocks its thread and the worker goes to a spare, the thread is orphaned with all its hosts on it;
// each moves off at its own next switch, the hot one to its host first.
//
// Where there is no current fiber of the wanted runtime (plain threads, another runtime's fiber, a callback in
// the scheduler context) the thread is its guest meanwhile: guest.hpp.
//
// Who may call what: start_hot() anybody; leave_host() the hot fiber; free_shells() the thread itself, or
// whoever knows that it will not start anything any more.
//
// Rejected: spawning, and running the new fiber before the spawner by two ordinary switches (25 ns for a call
// that never waits, and plain threads have no worker to switch on); copying the frames of a started call
// away from the caller's stack (pointers into it).
#pragma once

#include "context/context.hpp"
#include "sched/worker_thread.hpp"

#include <tendril/detail/hot_start.hpp>

#include <cstdint>

namespace tendril::detail {

enum class hot_departure : std::uint8_t { park, yield, move };

/// On the host's stack, while it hosts.
struct hot_call {
  context ctx;  ///< the caller's
  fiber_core* caller =
      nullptr;  ///< the thread's fiber at the time, perhaps another runtime's; or null
  bool caller_is_hot = false;
  hot_departure how;  ///< from the departure on
};

/// The calling fiber, hot and not pinned, leaves its host. Returns, as an ordinary fiber on a worker, when it
/// has been scheduled again; not inside.
void leave_host(worker_thread& t, hot_departure how) noexcept;

/// Calls the body as a hot fiber of t's runtime, where t is the calling thread. `outside`: what the fiber
/// inherits from and whose stack the caller stands on, if t.current is not the caller.
struct hot_outside {
  wait_block* block;
  const context* stack;
  worker_thread* thread;  ///< whose the thread is for the caller; null: nobody's
};
bool run_hot(worker_thread& t, const hot_outside* outside, hot_body& body,
             const hot_options* options);

/// Gives back the shells of a thread. `here`: a worker of the same runtime that the caller is inside of, or null.
void free_shells(worker_thread& t, worker* here) noexcept;
/// Those that keep slots, which have run out; here: the caller is inside.
void free_tasklet_shells(worker_thread& t, worker& here) noexcept;

}  // namespace tendril::detail
