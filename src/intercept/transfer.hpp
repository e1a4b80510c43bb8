// SPDX-License-Identifier: Apache-2.0
//
// One call on one descriptor: the kernel's version that does not block first, parking when it would.
//
// As operation (io/operation.hpp) does it for sockets that are Tendril's own, and by the same tokens, with
// these differences:
//  1. The number is entered for each system call, not for the whole operation: nobody is inside while parked,
//     so that close() need wait for calls in progress only, and not until whoever was parked has run again.
//  2. Neither a stop request nor an enclosing deadline ends it, unless the program has asked for that: the code that
//     called knows nothing of them (cancel.hpp).
//  3. On a file that the program has made non-blocking the call is libc's own. It takes no token: the
//     program may have just sent itself what it now looks for, and no event has told us so yet.
//  4. Who has parked goes on on the same thread: the code that called may hold addresses of thread-locals.
//  5. A signal's handler interrupts it as docs/interception.md says.
#pragma once

#include <cerrno>
#include <climits>
#include <optional>
#include <type_traits>

#include "intercept/calls.hpp"
#include "intercept/cancel.hpp"
#include "intercept/file_facts.hpp"
#include "intercept/install.hpp"
#include "intercept/interruptions.hpp"
#include "io/operation.hpp"
#include "sched/thread_stay.hpp"

namespace tendril::detail {

/// What park_until_done() returns when there is no waiting: the descriptor cannot be watched, or this is another
/// process. Libc's own call is all there is; it blocks the thread, which loses its worker if that takes long.
inline constexpr long cannot_wait = LONG_MIN;

/// Whether calls on the number park at all. False: the plain call.
inline bool can_wait_on(int fd, file_use& use) noexcept {
  return (recall_file(fd, use) || look_at_file(fd, use) == 0) && !use.nonblocking &&
         use.what != file_class::unparked;
}

/// The same for calls on sockets.
inline bool can_wait_on_socket(int fd, file_use& use) noexcept {
  return can_wait_on(fd, use) && use.what == file_class::socket;
}

/// Repeats a system call that a signal has interrupted: it was delivered to the thread.
template <class Call>
long uninterrupted(Call&& call) {
  long n;
  do {
    n = call();
  } while (n == -EINTR);
  return n;
}

/// What a read came to. See the short-read rule in descriptor.hpp.
inline attempt one_read(long n, std::size_t bytes, int flags = 0) noexcept {
  return {n, n > 0 && static_cast<std::size_t>(n) < bytes && (flags & MSG_PEEK) == 0};
}

/// Until all is moved, an error or EAGAIN. An error after a part is left for the next call to find. `bytes`, or what
/// it returns, is asked after some() has succeeded: the kernel has seen the arguments then, and found them good.
template <class Bytes, class Some>
attempt all_of(std::size_t& done, Bytes&& bytes, Some&& some) {
  for (;;) {
    const long n = uninterrupted([&] { return some(done); });
    if (n == -EAGAIN) return {n};
    if (n < 0) return {done != 0 ? static_cast<long>(done) : n};
    done += static_cast<std::size_t>(n);
    if (n == 0) return {static_cast<long>(done)};
    if constexpr (std::is_invocable_v<Bytes>) {
      if (done >= bytes()) return {static_cast<long>(done)};
    } else {
      if (done >= bytes) return {static_cast<long>(done)};
    }
  }
}

/// The end of a transfer that may have been given up in the middle: what was done before it failed counts. False:
/// nothing was, and it can only be made plainly.
inline bool end_transfer(long& result, std::size_t done) noexcept {
  if (result < 0 && done != 0) result = static_cast<long>(done);
  return result != cannot_wait;
}

/// What is always ready never waits: now and then others on the worker get their turn.
inline void let_others_run() {
  const thread_stay stay;
  this_fiber::yield();
}

/// Repeats now(use) until it says something else than EAGAIN: an attempt. Returns its value, or an errno
/// negated; EAGAIN: the time is over. `use`: no regular file. `deadline`: time_point{}: the socket's timeout; with one
/// a call is not restarted after a handler, otherwise `breaks` says so.
///
/// \switch yes, when it has to wait
template <class Now>
long park_until_done(file_use& use, direction way, const char* reason, Now&& now,
                     time_point deadline = {},
                     interruptible breaks = interruptible::unless_restarted) {
  descriptor& entry = *use.entry;
  bool holds_token = false;
  // Sends mostly succeed, so the first one is made without a token, see operation::run().
  bool unguarded = way == direction::write;
  std::optional<thread_stay> stay;
  std::optional<interruptible_call> call;
  for (;;) {
    if (unguarded || holds_token || entry.take_token(way)) {
      if (!entry.enter(use.generation)) return -EBADF;
      const attempt a = now(use);
      if (a.value != -EAGAIN) {
        if (!unguarded && !(a.partial && entry.may_have_drained())) entry.give_token(way);
        if (stay) entry.restart_share();
        const bool used_up = !stay && entry.used_up_share();
        entry.leave(use.generation);
        if (used_up) let_others_run();
        return a.value;
      }
      entry.leave(use.generation);
      holds_token = false;
      if (unguarded) {
        unguarded = false;
        continue;
      }
    }
    const bool woken = stay.has_value();
    if (!woken) {
      if (in_other_process()) return cannot_wait;
      stay.emplace();
      if (deadline == time_point{}) {
        const auto limit = timeout_of(use, way);
        deadline = no_deadline;
        if (limit.count() > 0) {
          deadline = deadline_after(limit);
          breaks = interruptible::always;
        }
      }
      call.emplace(breaks);
    }
    const std::error_code ec =
        entry.wait(use.generation, way, foreign_wait(deadline, reason, call->call()), woken);
    if (ec == std::errc::interrupted) return -EINTR;
    if (ec == std::errc::timed_out) return clock::now() >= deadline ? -EAGAIN : -ETIMEDOUT;
    if (ec == std::errc::operation_canceled) return -ECANCELED;
    if (ec == std::errc::bad_file_descriptor) return -EBADF;
    if (ec) return cannot_wait;
    holds_token = true;
  }
}

}  // namespace tendril::detail
