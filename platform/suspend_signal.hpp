// SPDX-License-Identifier: Apache-2.0
//
// Contract: being told where threads stand that somebody else stops by a signal, as garbage collectors do.
//
// The handler that is in force is wrapped: it goes on being called. On the caller's threads that happens on the
// alternate signal stack, if they have one, so that a thread can be stopped on a fiber's stack whose free part is
// smaller than a signal's frame. On other threads it is called where it would be without us: below what was interrupted.
#pragma once

namespace tendril::platform {

struct interruption {
  /// Of the code that was interrupted; what leaf functions have below it included.
  const void* stack_pointer;
  /// The interrupted registers lie below, and above what the wrapped handler uses.
  const void* saved_end;
};

/// At the signal, in the handler, before the wrapped one runs; and with null when that has returned. False: not a
/// thread of the caller's.
using suspend_callback = bool (*)(const interruption*) noexcept;

/// Once in a process. False when the system refuses, or nobody handles that signal.
bool wrap_suspend_signal(int signal, suspend_callback callback) noexcept;

/// A scope in which the calling thread is not stopped by that signal: who wants to stop it waits until the end.
class suspend_signal_held {
 public:
  suspend_signal_held() noexcept;
  ~suspend_signal_held();
  suspend_signal_held(const suspend_signal_held&) = delete;
  suspend_signal_held& operator=(const suspend_signal_held&) = delete;

 private:
  bool was_held_ = false;
};

}  // namespace tendril::platform
