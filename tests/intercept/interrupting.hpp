// SPDX-License-Identifier: Apache-2.0
//
// Calls on fibers, and signals to their threads while they are parked.
#pragma once

#include "intercept/handling.hpp"
#include "intercept/waiting.hpp"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <functional>
#include <string>

namespace tendril::test {

inline std::string count() { return ", handled " + std::to_string(handled.load()); }

/// A call on a fiber, and a signal to its thread when it has parked.
inline std::string signalled(const std::function<std::string()>& call, int signal = SIGUSR1) {
  std::string seen = both(call, [=] { pthread_kill(pthread_self(), signal); });
  return seen + count();
}

inline constexpr const char* interrupted_once = "Interrupted system call, handled 1";

inline void check_interrupted(const std::function<std::string()>& call, int flags) {
  const handler_of usr1(SIGUSR1, flags);
  intercepted(
      [&] {
        handled = 0;
        return signalled(call);
      },
      interrupted_once);
}

/// Interrupted without SA_RESTART; with it, it goes on until somebody `ends` it.
inline void check_restarted(const std::function<std::string()>& call,
                            const std::function<void()>& ends, const std::string& goes_on) {
  check_interrupted(call, 0);
  const handler_of usr1(SIGUSR1, SA_RESTART);
  intercepted(
      [&] {
        handled = 0;
        std::string seen;
        fiber waiting([&] { seen = call(); });
        fiber other([&] {
          this_fiber::yield();
          pthread_kill(pthread_self(), SIGUSR1);
          // What the handler has left to be done is done before this.
          const timespec some{0, 5'000'000};
          while (nanosleep(&some, nullptr) != 0) {
          }
          seen += "going on, ";
          ends();
        });
        other.join();
        waiting.join();
        return seen + count();
      },
      goes_on + ", handled 1");
}

/// Calls that are interrupted even by a handler with SA_RESTART.
inline void check_always(const std::function<std::string()>& call) {
  check_interrupted(call, 0);
  check_interrupted(call, SA_RESTART);
}

}  // namespace tendril::test
