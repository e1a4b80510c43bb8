// SPDX-License-Identifier: Apache-2.0
//
// Waiting for signals that the program has blocked.
#include "intercept/waiting.hpp"

#include <tendril/cancelable_calls.hpp>

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <vector>

using namespace tendril;
using test::both;
using test::intercepted;
using test::no_descriptors;
using test::said;
using test::wait_for_something;

namespace {

int first_signal() noexcept { return SIGRTMIN + 5; }
int second_signal() noexcept { return SIGRTMIN + 6; }

sigset_t both_signals() noexcept {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, first_signal());
  sigaddset(&set, second_signal());
  return set;
}

/// As a program does that waits for them: in every thread, so before there is any other.
[[maybe_unused]] const bool blocked = [] {
  const sigset_t set = both_signals();
  return pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0;
}();

std::string received(int n) {
  return n == first_signal() ? "first" : n == second_signal() ? "second" : said(n);
}

}  // namespace

TEST_SUITE("signals") {
  TEST_CASE("sent while a fiber waits, or before") {
    intercepted(
        [] {
          const sigset_t set = both_signals();
          std::string seen = both(
              [&] {
                errno = EXDEV;
                int got = 0;
                const int error = sigwait(&set, &got);
                return std::to_string(error) + received(got) + (errno == EXDEV ? "" : " errno");
              },
              [] { kill(getpid(), second_signal()); });
          seen += ", ";
          seen += both(
              [&] {
                siginfo_t about{};
                std::string result = received(sigwaitinfo(&set, &about));
                result += about.si_code == SI_QUEUE ? " queued " : " ? ";
                return result + std::to_string(about.si_value.sival_int);
              },
              [] { sigqueue(getpid(), first_signal(), {.sival_int = 7}); });
          kill(getpid(), first_signal());
          const timespec long_time{1'000'000, 0};
          seen.append(", ").append(received(sigtimedwait(&set, nullptr, &long_time)));
          return seen;
        },
        "0second, first queued 7, first");
  }

  TEST_CASE("sent to the thread alone") {
    intercepted(
        [] {
          const sigset_t set = both_signals();
          return both([&] { return received(sigwaitinfo(&set, nullptr)); },
                      [] { raise(first_signal()); });
        },
        "first");
  }

  TEST_CASE("that do not come in time") {
    intercepted(
        [] {
          const sigset_t set = both_signals();
          const timespec none{0, 0};
          const timespec some{0, 3'000'000};
          const timespec bad{0, -1};
          std::string seen = said(sigtimedwait(&set, nullptr, &none));
          seen.append(", ").append(said(sigtimedwait(&set, nullptr, &some)));
          return seen + ", " + said(sigtimedwait(&set, nullptr, &bad));
        },
        "Resource temporarily unavailable, Resource temporarily unavailable, Invalid argument");
  }

  TEST_CASE("each is received by one") {
    intercepted(
        [] {
          constexpr int count = 8;
          const sigset_t set = both_signals();
          int sum = 0;
          std::vector<fiber> waiters;
          for (int i = 0; i != count; ++i)
            waiters.emplace_back([&] {
              siginfo_t about{};
              if (sigwaitinfo(&set, &about) == first_signal()) sum += about.si_value.sival_int;
            });
          this_fiber::yield();
          for (int i = 0; i != count; ++i)
            sigqueue(getpid(), first_signal(), {.sival_int = 1 << i});
          for (fiber& one : waiters) one.join();
          const timespec none{0, 0};
          return std::to_string(sum) + " " + said(sigtimedwait(&set, nullptr, &none));
        },
        "255 Resource temporarily unavailable");
  }

  TEST_CASE("without descriptors") {
    intercepted(
        [] {
          wait_for_something();
          const sigset_t set = both_signals();
          const no_descriptors left;
          return both([&] { return received(sigwaitinfo(&set, nullptr)); },
                      [] { kill(getpid(), first_signal()); });
        },
        "first");
  }

  TEST_CASE("a request to stop ends the wait where it is asked for") {
    intercepted(
        [] {
          const sigset_t set = both_signals();
          std::string seen;
          fiber waiter([&] {
            const cancelable_calls scope;
            int got = 0;
            seen = std::strerror(sigwait(&set, &got));
          });
          this_fiber::yield();
          waiter.request_stop();
          waiter.join();
          return seen;
        },
        "Operation canceled");
  }
}
