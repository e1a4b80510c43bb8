// SPDX-License-Identifier: Apache-2.0
//
// libc's ways to sleep, on fibers.
#include "intercept/locking.hpp"

#include <tendril/cancelable_calls.hpp>

#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

using namespace tendril;
using namespace std::chrono_literals;
using test::after;
using test::error_name;
using test::intercepted;

TEST_SUITE("sleeping") {
  TEST_CASE("sleeping fibers leave the worker to others, for long enough") {
    intercepted(
        [] {
          std::string seen;
          const auto begin = std::chrono::steady_clock::now();
          std::vector<fiber> all;
          for (int i = 0; i != 20; ++i)
            all.emplace_back([&, i] {
              const timespec time{0, 20'000'000};
              if (i % 4 == 0) usleep(20'000);
              else if (i % 4 == 1) nanosleep(&time, nullptr);
              else if (i % 4 == 2) clock_nanosleep(CLOCK_REALTIME, 0, &time, nullptr);
              else {
                const timespec at = after(CLOCK_MONOTONIC, 20ms);
                clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr);
              }
              if (std::chrono::steady_clock::now() - begin < 20ms) seen += "early ";
            });
          int turns = 0;
          fiber bystander([&] {
            while (turns != 10) {
              ++turns;
              sched_yield();
            }
          });
          bystander.join();
          if (std::chrono::steady_clock::now() - begin >= 20ms) seen += "busy ";
          for (fiber& f : all) f.join();
          timespec wrong{0, 1'000'000'000};
          errno = 0;
          if (nanosleep(&wrong, nullptr) == -1 && errno == EINVAL) seen += "EINVAL ";
          wrong = {-1, 0};
          seen += error_name(clock_nanosleep(CLOCK_MONOTONIC, 0, &wrong, nullptr)) + " ";
          wrong = {0, 0};
          seen += error_name(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wrong, nullptr));
          return seen.substr(seen.find("EINVAL") == seen.npos ? 0 : seen.find("EINVAL")) +
                 (seen.find("early") != seen.npos ? " early" : "");
        },
        "EINVAL EINVAL 0");
  }

  TEST_CASE("sleep is ended by a stop request only where the program asked for it") {
    intercepted(
        [] {
          std::string seen;
          const auto sleeper = [&seen](bool cancelable) {
            fiber f([&seen, cancelable] {
              std::optional<cancelable_calls> here;
              if (cancelable) here.emplace();
              const timespec hour{cancelable ? 3600 : 0, 2'000'000};
              timespec left{};
              errno = 0;
              const int result = nanosleep(&hour, &left);
              seen += result == -1 && errno == ECANCELED && left.tv_sec > 3000 ? "ended " : "";
              seen += result == 0 ? "slept " : "";
            });
            this_fiber::yield();
            f.request_stop();
            f.join();
          };
          sleeper(true);
          sleeper(false);
          return seen;
        },
        "ended slept ");
  }
}
