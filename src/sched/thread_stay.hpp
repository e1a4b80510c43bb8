// SPDX-License-Identifier: Apache-2.0
//
// A fiber that stays on its OS thread: it parks as any fiber does, and its worker goes on with others, but it
// resumes on the thread that it parked on. For waits below foreign code, which may hold the address of errno or
// of another thread-local, or have changed the thread's signal mask.
//
//     enter_stay()          park                       unpark                          leave_stay()
//    -------------> stays -------> parked -----------------------------------> stays -------------->
//                                     the thread has a worker: its queue of
//                                     those that run there only
//                                     it has none: the thread's list, and the
//                                     thread asks for a worker
//
// The difference to a pin (thread_pin.hpp): a pinned fiber cannot be switched away from, and its waits block the
// thread.
//
// A worker leaves its thread when a fiber blocks that (worker_thread.hpp). Those that stay on the thread do not go
// with it. When the thread is in the scheduler context again and some of them are runnable, it asks the crew for a
// worker, and the next worker that comes to its scheduler context with nothing to do, or to housekeeping, is
// *handed on* to it; the thread that had it is a spare from then on.
//
// Invariants
//  1. A fiber that stays runs on its record's thread only. While it is queued it is in the pinned queue of the
//     worker that this thread holds, or on the way there: in the thread's list (crew.hpp), or in the inbox of a
//     worker that the thread held when it was woken. Who takes it out of an inbox, and a thread that takes a worker
//     over, send on what stays elsewhere.
//  2. The thread's list, and whom it works for, change under the crew's lock. So who finds that the thread has no
//     worker and adds to the list is seen by the thread before it rests, or finds it resting and asks for it.
//  3. A thread does not end while a fiber stays on it.
//  4. A fiber that has lost its worker moves off as others do, but its thread asks for another one for it.
//
// A fiber that stays waits for its thread for as long as another one blocks it. Its affinity to a worker counts
// again when it does not stay any more. On threads that are not the runtime's (guest.hpp) a hot fiber that stays is
// pinned: they have no worker to go on with others.
//
// What a fiber that does not stay pays: nothing. The marks are a value of waiter::affinity, which wake-ups look at
// anyway, and flag::stays, which departures look at beside slot_wanted.
//
// Rejected: running them without a worker when the thread is free (they could not wait for events before they had
// one, and a runtime of one worker would run two fibers at a time for as long as they like); a list of threads with a
// request for one worker each (that worker may compute for long, while others are idle).
#pragma once

#include "sched/worker_thread.hpp"

namespace tendril::detail {

/// The calling fiber stays on its thread until as many calls of leave_stay(). On a plain thread: nothing. Never
/// switches. A fiber that ends meanwhile stays to the end.
///
/// \cost  a read-modify-write the first time; no allocation once warm
void enter_stay() noexcept;
/// By the same fiber.
void leave_stay() noexcept;

/// For a scope.
class thread_stay {
 public:
  thread_stay() noexcept { enter_stay(); }
  ~thread_stay() { leave_stay(); }
  thread_stay(const thread_stay&) = delete;
  thread_stay& operator=(const thread_stay&) = delete;
};

}  // namespace tendril::detail
