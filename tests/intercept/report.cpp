// SPDX-License-Identifier: Apache-2.0
//
// The coverage report: what is counted as what, and what is said of a call that nobody intercepts.
#include "intercept/intercepted.hpp"

#include <tendril/intercept.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstring>

using namespace tendril;
using test::intercepted;

namespace {

interception::call_counts count_of(const char* symbol) {
  for (const auto& one : interception::counts())
    if (std::strcmp(one.symbol, symbol) == 0) return one;
  return {};
}

/// What was added to the counts of a symbol by f, as "in place/parked/elsewhere/blocked".
template <class F>
std::string counted(const char* symbol, F f) {
  const auto before = count_of(symbol);
  f();
  const auto after = count_of(symbol);
  return std::to_string(after.in_place - before.in_place) + '/' +
         std::to_string(after.parked - before.parked) + '/' +
         std::to_string(after.elsewhere - before.elsewhere) + '/' +
         std::to_string(after.blocked - before.blocked);
}

struct counting {
  counting() { interception::count_calls(true); }
  ~counting() { interception::count_calls(false); }
};

}  // namespace

TEST_SUITE("report") {
  TEST_CASE("calls are counted by what became of them") {
    intercepted(
        [] {
          const counting on;
          std::string seen = counted("read", [] {
            test::pipe_pair ends;
            test::write_text(ends.in(), "x");
            test::read_text(ends.out());
            fiber reader([&] { test::read_text(ends.out()); });
            fiber writer([&] {
              this_fiber::yield();
              test::write_text(ends.in(), "x");
            });
            reader.join();
            writer.join();
          });
          seen += counted("fsync", [] { fsync(-1); });
          return seen;
        },
        "1/1/0/00/0/1/0");
  }

  TEST_CASE("counting stops") {
    intercepted([] { return counted("read", [] { test::read_text(-1); }); }, "0/0/0/0");
  }

  TEST_CASE("the text has what was counted") {
    {
      const counting on;
      intercepted([] { return test::read_text(-1); }, "Bad file descriptor");
    }
    const std::string text = interception::report();
    CHECK(interception::is_installed());
    CHECK(text.find("\n  read ") != std::string::npos);
    CHECK(text.find("in place") != std::string::npos);
  }

  TEST_CASE("a call that blocks a worker is found, with where it was made and how long it took") {
    // What no front sees. The other fiber ends it, so there must be a second thread.
    runtime rt({.workers = 1, .on_blocked_worker = [](std::string_view) {}});
    const test::watchdog dog("a blocked call", &rt);
    const auto found = [] {
      for (const auto& place : interception::blocked_places())
        if (place.system_call == SYS_read && place.call.find("syscall") != std::string::npos)
          return place.times >= 1 && place.longest >= std::chrono::milliseconds(5) &&
                 place.total >= place.longest && !place.trace.empty();
      return false;
    };
    // Again, if the worker was taken from the reader's thread before that had got as far as the call, as a busy
    // machine may have it. Never found: the watchdog ends the test.
    do {
      test::run_on_own_stack(rt, [] {
        test::pipe_pair ends;
        // With the whole stack in one place: for the trace.
        fiber reader(test::stack_of_its_own(), [&] {
          char c = 0;
          test::behind_the_front<long(long, ...)>("syscall")(SYS_read, ends.out(), &c, 1);
        });
        fiber writer([&] {
          this_fiber::yield();
          // Runs on another thread only after the block has been found.
          test::write_text(ends.in(), "x");
        });
        reader.join();
        writer.join();
      });
    } while (!found());
    CHECK(interception::report().find("syscall") != std::string::npos);
    rt.drain();
  }
}
