// SPDX-License-Identifier: Apache-2.0
//
// A system call that one of our threads makes for somebody else (aside.hpp), and that is to be given up: with EINTR, as the
// kernel gives up the call of a thread to which a handler without SA_RESTART has returned. So it is done just so:
// the thread is sent a signal whose handler does nothing.
//
//   waiting ----- begin() -----> inside ----- end() -----> over
//                                   break_now() sends
//
// Invariants
//  1. A signal is sent only while the thread is inside, in the lock of the call. So the thread's next call is not hit by
//     what was meant for this one: what is pending when it has left it takes.
//  2. Whether the call was given up is what the kernel says, and nobody else. It has taken a lock, a message or a child,
//     or it says EINTR and has taken nothing.
//  3. A signal that comes when the thread is inside but not in the kernel yet, or not there any more, does nothing. So
//     who wants the call to end sends again until it has.
//
// The signal. Any number is one that the program might have use for; so none is taken by programs that have no handlers (of
// which no call is ever interrupted), and else the first from SIGRTMAX - 4 downwards whose action is the default one. The
// threads of such calls have it blocked but for the time of the call. Whoever gives it a handler later has it:
// calls that have begun by then are not given up any more, others use the next one.
//
// Rejected: a number of glibc's own (its handlers restart calls, and may be installed at any time); sharing a number with
// the program (with SA_RESTART in its action nothing is given up); waiting in short slices (what has a time limit in the
// kernel, but locks on files and FIFOs have none).
#pragma once

#include <pthread.h>

#include <tendril/detail/waiting.hpp>

namespace tendril::detail {

class broken_call {
 public:
  /// On the thread that is about to make the call, all signals being blocked.
  void begin() noexcept;
  /// The same, afterwards. Leaves errno as it is.
  void end() noexcept;
  /// Any other thread, while this exists. False: it cannot be given up, and there is no use in trying again.
  bool break_now() noexcept;

 private:
  enum class stage { waiting, inside, over };

  tiny_lock lock_;
  stage stage_ = stage::waiting;
  bool hit_ = false;
  int signal_ = 0;  ///< none
  pthread_t thread_{};
};

/// The library goes: gives the signal back, if no call can be hit any more.
void give_back_signal() noexcept;

}  // namespace tendril::detail
