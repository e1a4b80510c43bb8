// SPDX-License-Identifier: Apache-2.0
//
// What handlers of signals leave to be done (the front: platform/linux/intercept/handlers.cpp). A handler may have interrupted
// anything, the runtime in the middle of its queues or of a lock, so it can wake nobody. It leaves words that are read
// and written atomically, and posts a semaphore of libc's own, for which a thread waits that does the rest: it wakes
// fibers that are in line for a semaphore which was posted or a futex which was woken, and ends calls that are to be interrupted
// (sched/interruption.hpp).
//
// That thread, the *attendant*, is started when there are a runtime and a handler, and runs with all signals blocked.
// So workers look at nothing that they did not look at before, and a worker that is busy delays nobody.
//
// Rejected: words that workers look at in their loops, and a wake-up of some worker (one that is busy would have to be
// told from one that is not, in the handler).
#pragma once

#include "sched/interruption.hpp"

namespace tendril::detail {

/// Whether any signal has had a handler.
bool any_handlers() noexcept;
/// Starts the attendant if there are handlers and it is not there. Not in a handler.
void attend_handlers() noexcept;
/// The library goes.
void dismiss_attendant() noexcept;

/// Where the front says which signals have had handlers.
extern const std::uint64_t* handled_signals;

// The front's hooks.
void handler_returned(int code, bool restarts) noexcept;
void posted_in_handler(const void* semaphore) noexcept;

/// In a handler: has the attendant wake up to `most` fibers of the parking lot's line of key whose mark has one of the
/// bits (0: whatever it is). Async-signal-safe.
void wake_later(const void* key, std::uint32_t bits, unsigned most) noexcept;
/// A wake-up by syscall(SYS_futex) in a handler: arguments and result as the function's (futex.cpp).
long futex_in_handler(long word, long operation, long value, long timeout, long word2,
                      long value3) noexcept;

/// A call that a signal may interrupt, from where it is about to park. The caller stays on its thread.
class interruptible_call : public interruptible_scope {
 public:
  explicit interruptible_call(interruptible kind) noexcept;
};

}  // namespace tendril::detail
