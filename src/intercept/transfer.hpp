// SPDX-License-Identifier: Apache-2.0
//
// One call on one descriptor: the kernel's version that does not block first, parking when it would.
//
// As operation (io/operation.hpp) does it for sockets that are Tendril's own, and by the same tokens, with
// these differences:
//  1. The number is entered for each system call, not for the whole operation: nobody is inside while parked,
//     so that close() need wait for calls in progress only, and not until whoever was parked has run again.
//  2. Neither a stop request nor an enclosing deadline ends it: the code that called knows nothing of them.
//  3. On a file that the program has made non-blocking the call is libc's own. It takes no token: the
//     program may have just sent itself what it now looks for, and no event has told us so yet.
//  4. Signals do not interrupt it. A signal is delivered to a thread; a parked call is on none.
#pragma once

#include <cerrno>
#include <climits>

#include "intercept/calls.hpp"
#include "intercept/file_facts.hpp"
#include "intercept/install.hpp"
#include "io/operation.hpp"

namespace tendril::detail {

/// What park_until_done() returns when there is no waiting: the descriptor cannot be watched, or this is another
/// process. Libc's own call is all there is; it blocks the thread, which loses its worker if that takes long.
inline constexpr long cannot_wait = LONG_MIN;

/// Repeats now(use) until it says something else than EAGAIN: an attempt. Returns its value, or an errno
/// negated; timeouts of the socket give EAGAIN. `use`: blocking, and no regular file.
///
/// \switch yes, when it has to wait
template <class Now>
long park_until_done(file_use& use, direction way, const char* reason, Now&& now) {
  descriptor& entry = *use.entry;
  bool holds_token = false;
  // Sends mostly succeed, so the first one is made without a token, see operation::run().
  bool unguarded = way == direction::write;
  time_point deadline{};
  for (bool retried = false;; retried = true) {
    if (unguarded || holds_token || entry.take_token(way)) {
      if (!entry.enter(use.generation)) return -EBADF;
      const attempt a = now(use);
      if (a.value != -EAGAIN) {
        if (!unguarded && !(a.partial && entry.may_have_drained())) entry.give_token(way);
        entry.leave(use.generation);
        return a.value;
      }
      entry.leave(use.generation);
      holds_token = false;
      if (unguarded) {
        unguarded = false;
        continue;
      }
    }
    if (deadline == time_point{}) {
      if (in_other_process()) return cannot_wait;
      const auto limit = timeout_of(use, way);
      deadline = limit.count() > 0 ? deadline_after(limit) : no_deadline;
    }
    const std::error_code ec = entry.wait(use.generation, way, deadline, retried, reason, true);
    if (ec == std::errc::timed_out) return -EAGAIN;
    if (ec == std::errc::bad_file_descriptor) return -EBADF;
    if (ec) return cannot_wait;
    holds_token = true;
  }
}

}  // namespace tendril::detail
