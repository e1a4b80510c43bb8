// SPDX-License-Identifier: Apache-2.0
//
// Handlers of signals. A call that is parked on a fiber is on no thread that a signal could interrupt, so the runtime has
// to be told of each signal that was handled: for the program's handler the kernel is given one of ours, which calls
// it and then tells.
//
//   sigaction(SIGTERM, {stop, SA_RESTART})   the kernel has: on_signal, SA_RESTART | SA_SIGINFO
//                                            the table has: stop, whether it restarts, whether it takes a siginfo_t
//
// All else (mask, SA_ONSTACK, SA_RESETHAND, ...) is the kernel's as the program asked for it, and what it says of the
// former action is translated: no program sees on_signal.
//
// A handler may be installed in a handler, by several threads, before any constructor: an entry is one atomic word, no lock
// is held. Two threads that install different handlers of one signal at the same time may get the mask of the one with the
// handler of the other.
//
// Not for signals that tell of the thread's own mistakes (SIGSEGV...): their handlers do not interrupt calls, and some look at
// the stack that they are on.
//
// A handler may be left by siglongjmp(). Then nothing is told: the call that it interrupted is left as well. The thread
// counts as being in a handler from then on, which costs sem_post() a detour.
#include "platform/linux/intercept/front.hpp"

#include <csignal>
#include <cstdint>

using namespace tendril::platform;
using namespace tendril::platform::front;

namespace tendril::platform::front {

__thread unsigned handlers_running __attribute__((tls_model("initial-exec"))) = 0;
std::uint64_t handled_signals = 0;

}  // namespace tendril::platform::front

namespace {

using plain_handler = void (*)(int);
using full_handler = void (*)(int, siginfo_t*, void*);

constexpr int signal_count = 65;  // the kernel's

// An entry: the handler's address, and two bits.
constexpr std::uint64_t takes_info = 1;
constexpr std::uint64_t restarts = 2;
constexpr unsigned address_shift = 2;
std::uint64_t handlers[signal_count];

/// Whose BSD-style handlers do not restart calls: siginterrupt(3).
std::uint64_t interrupting = 0;

constexpr std::uint64_t bit_of(int signal) noexcept { return std::uint64_t{1} << (signal - 1); }

bool is_wrapped(int signal) noexcept {
  if (signal <= 0 || signal >= signal_count) return false;
  constexpr std::uint64_t own_mistakes = bit_of(SIGSEGV) | bit_of(SIGBUS) | bit_of(SIGFPE) |
                                         bit_of(SIGILL) | bit_of(SIGTRAP) | bit_of(SIGSYS);
  return (bit_of(signal) & own_mistakes) == 0;
}

std::uint64_t entry_of(const struct sigaction& action) noexcept {
  return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(action.sa_sigaction))
             << address_shift |
         ((action.sa_flags & SA_SIGINFO) != 0 ? takes_info : 0) |
         ((action.sa_flags & SA_RESTART) != 0 ? restarts : 0);
}

void on_signal(int signal, siginfo_t* info, void* context) {
  const std::uint64_t entry = __atomic_load_n(&handlers[signal], __ATOMIC_ACQUIRE);
  const int code = info->si_code;
  const auto address = static_cast<std::uintptr_t>(entry >> address_shift);
  ++handlers_running;
  if ((entry & takes_info) != 0) reinterpret_cast<full_handler>(address)(signal, info, context);
  else reinterpret_cast<plain_handler>(address)(signal);
  --handlers_running;
  if (const intercept_hooks* const h = hooks_here()) h->handled(code, (entry & restarts) != 0);
}

/// What the kernel said, as the program had it.
void translate(struct sigaction& former, std::uint64_t entry) noexcept {
  if ((former.sa_flags & SA_SIGINFO) == 0 || former.sa_sigaction != &on_signal) return;
  former.sa_sigaction =
      reinterpret_cast<full_handler>(static_cast<std::uintptr_t>(entry >> address_shift));
  if ((entry & takes_info) == 0) former.sa_flags &= ~SA_SIGINFO;
}

/// `flags`: of the action. `masked`: the signal itself, too, is blocked in the handler.
plain_handler install(int signal, plain_handler handler, int flags, bool masked) noexcept {
  struct sigaction action;
  struct sigaction former;
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigemptyset(&action.sa_mask);
  if (handler == SIG_ERR || (masked && sigaddset(&action.sa_mask, signal) != 0)) {
    errno = EINVAL;
    return SIG_ERR;
  }
  return front_sigaction(signal, &action, &former) == 0 ? former.sa_handler : SIG_ERR;
}

}  // namespace

extern "C" int front_sigaction(int signal, const struct sigaction* action,
                               struct sigaction* former) {
  if (!is_wrapped(signal)) return real.sigaction(signal, action, former);
  struct sigaction given;
  const struct sigaction* passed = action;
  const bool wrapped = action != nullptr && (action->sa_flags & sa_of_the_runtime) == 0 &&
                       action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN;
  std::uint64_t entry = 0;
  if (action != nullptr) {
    given = *action;
    given.sa_flags &= ~sa_of_the_runtime;
    passed = &given;
  }
  if (wrapped) {
    given.sa_flags |= SA_SIGINFO;
    given.sa_sigaction = &on_signal;
    entry = __atomic_exchange_n(&handlers[signal], entry_of(*action), __ATOMIC_ACQ_REL);
  } else {
    entry = __atomic_load_n(&handlers[signal], __ATOMIC_ACQUIRE);
  }
  const int result = real.sigaction(signal, passed, former);
  if (result != 0) {
    if (wrapped) __atomic_store_n(&handlers[signal], entry, __ATOMIC_RELEASE);
    return result;
  }
  if (former != nullptr) translate(*former, entry);
  if (wrapped) {
    __atomic_fetch_or(&handled_signals, bit_of(signal), __ATOMIC_RELEASE);
    if (const intercept_hooks* const h = hooks_here(); h != nullptr && handlers_running == 0)
      h->handler_installed();
  }
  return result;
}

extern "C" __sighandler_t front_signal(int signal, __sighandler_t handler) {
  const bool breaks = signal > 0 && signal < signal_count &&
                      (__atomic_load_n(&interrupting, __ATOMIC_RELAXED) & bit_of(signal)) != 0;
  return install(signal, handler, breaks ? 0 : SA_RESTART, true);
}

extern "C" __sighandler_t front___sysv_signal(int signal, __sighandler_t handler) {
  return install(signal, handler, static_cast<int>(SA_RESETHAND | SA_NODEFER), false);
}

extern "C" __sighandler_t front_bsd_signal(int signal, __sighandler_t handler) {
  return front_signal(signal, handler);
}
extern "C" __sighandler_t front_ssignal(int signal, __sighandler_t handler) {
  return front_signal(signal, handler);
}
extern "C" __sighandler_t front_sysv_signal(int signal, __sighandler_t handler) {
  return front___sysv_signal(signal, handler);
}

extern "C" __sighandler_t front_sigset(int signal, __sighandler_t handler) {
  sigset_t one;
  sigset_t before;
  sigemptyset(&one);
  if (sigaddset(&one, signal) != 0) return SIG_ERR;
  plain_handler former;
  if (handler == SIG_HOLD) {
    struct sigaction now;
    if (pthread_sigmask(SIG_BLOCK, &one, &before) != 0 ||
        front_sigaction(signal, nullptr, &now) != 0)
      return SIG_ERR;
    former = now.sa_handler;
  } else {
    former = install(signal, handler, 0, false);
    if (former == SIG_ERR || pthread_sigmask(SIG_UNBLOCK, &one, &before) != 0) return SIG_ERR;
  }
  return sigismember(&before, signal) == 1 ? SIG_HOLD : former;
}

extern "C" int front_siginterrupt(int signal, int interrupts) {
  struct sigaction action;
  if (front_sigaction(signal, nullptr, &action) != 0) return -1;
  if (interrupts != 0) {
    __atomic_fetch_or(&interrupting, bit_of(signal), __ATOMIC_RELAXED);
    action.sa_flags &= ~SA_RESTART;
  } else {
    __atomic_fetch_and(&interrupting, ~bit_of(signal), __ATOMIC_RELAXED);
    action.sa_flags |= SA_RESTART;
  }
  return front_sigaction(signal, &action, nullptr);
}
