// SPDX-License-Identifier: Apache-2.0
//
// Handlers of signals that count, and signals for them.
#pragma once

#include <tendril/fiber.hpp>

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>

namespace tendril::test {

inline std::atomic<int> handled{0};
inline std::atomic<int> last_code{0};
inline std::atomic<bool> had_context{false};

inline void plain(int) { ++handled; }
inline void full(int, siginfo_t* about, void* context) {
  last_code = about->si_code;
  had_context = context != nullptr;
  ++handled;
}

/// For a scope. Flags 0: calls are interrupted.
class handler_of {
 public:
  handler_of(int signal, int flags, void (*handler)(int) = &plain) : signal_(signal) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    if ((flags & SA_SIGINFO) != 0) action.sa_sigaction = &full;
    sigaction(signal, &action, &before_);
    handled = 0;
  }
  ~handler_of() { sigaction(signal_, &before_, nullptr); }
  handler_of(const handler_of&) = delete;
  handler_of& operator=(const handler_of&) = delete;

 private:
  int signal_;
  struct sigaction before_ {};
};

/// On a fiber: makes the call. From when it has parked until it has returned there are signals to the process, for the kernel
/// may give one to a thread that is none of the runtime's.
inline std::string signalled_till_it_returns(const std::function<std::string()>& call) {
  static std::atomic<bool> returned;
  returned = false;
  fiber sender([] {
    while (!returned) {
      kill(getpid(), SIGUSR1);
      this_fiber::sleep_for(std::chrono::milliseconds(3));
    }
  });
  std::string seen = call();
  returned = true;
  sender.join();
  return seen;
}

}  // namespace tendril::test
