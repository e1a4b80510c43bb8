// SPDX-License-Identifier: Apache-2.0
//
// What the scheduler ends the process for, and what it says before: an exception that nobody takes, a
// deadlock under deadlock_policy::abort, a broken contract. And the reports that end nothing.
#include "support/forked.hpp"
#include "support/own_stack.hpp"

#include <tendril/detail/waiting.hpp>
#include <tendril/fiber.hpp>
#include <tendril/io.hpp>
#include <tendril/runtime.hpp>

#include <doctest/doctest.h>

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>

namespace {

using namespace std::chrono_literals;
using namespace tendril;
using test::child_result;
using test::overheard_stderr;
using test::run_forked;
using test::run_on_own_stack;

/// Parks for good.
void wait_for_nothing(const char* reason) {
  const detail::outcome why = detail::wait_until_done([](const void*) noexcept { return false; },
                                                      nullptr, {.reason = reason});
  if (why != detail::outcome::signalled) detail::throw_outcome(why, reason);
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_SUITE("unhandled_exception") {
  TEST_CASE("of a spawned fiber terminates and names fiber and exception") {
    for (const unsigned workers : {1U, 2U}) {
      const child_result r = run_forked([&] {
        run({.workers = workers}, [] {
          spawn({.name = "careless"}, [] {
            this_fiber::yield();
            throw std::runtime_error("nobody's business");
          });
          for (;;) this_fiber::sleep_for(1h);
        });
      });
      CAPTURE(r.error_output);
      CHECK(r.signal == SIGABRT);
      CHECK(r.says("tendril: unhandled exception in fiber 'careless' (id "));
      CHECK(r.says("nobody's business"));
    }
  }

  TEST_CASE("that is no std::exception, and of a fiber that is detached after its end") {
    const child_result odd = run_forked([] {
      runtime rt({.workers = 1});
      rt.spawn([] { throw 42; });
      rt.drain();
    });
    CHECK(odd.signal == SIGABRT);
    CHECK(odd.says("an exception that is no std::exception"));
    const child_result late = run_forked([] {
      fiber f;
      {
        runtime rt({.workers = 1});
        f = fiber({.name = "late"}, [] { throw std::runtime_error("too late"); });
        rt.drain();
      }
      f.detach();  // its runtime is gone
    });
    CHECK(late.signal == SIGABRT);
    CHECK(late.says("unhandled exception in fiber 'late'"));
    CHECK(late.says("too late"));
  }

  TEST_CASE("a handler that returns lets everything go on") {
    const child_result r = run_forked([] {
      runtime rt(
          {.workers = 2, .on_unhandled_exception = [](std::string_view name, std::exception_ptr) {
             std::fprintf(stderr, "handled %s\n", std::string(name).c_str());
           }});
      rt.spawn([] {
        spawn({.name = "one"}, [] { throw 1; });
        spawn({.name = "two"}, [] { throw 2; });
      });
      rt.drain();
    });
    CHECK(r.exit_code == 0);
    CHECK(r.says("handled one"));
    CHECK(r.says("handled two"));
  }
}

TEST_SUITE("deadlock") {
  TEST_CASE("abort: lists each fiber with what it waits for, then dies") {
    for (const unsigned workers : {1U, 2U}) {
      const child_result r = run_forked([&] {
        run({.workers = workers, .on_deadlock = deadlock_policy::abort, .deadlock_grace = 20ms},
            [] {
              spawn({.name = "left"}, [] { wait_for_nothing("the right one"); });
              spawn({.name = "right"}, [] { wait_for_nothing("the left one"); });
              wait_for_nothing("Godot");
            });
      });
      CAPTURE(r.error_output);
      CHECK(r.signal == SIGABRT);
      CHECK(r.says("nothing inside this runtime can wake these fibers"));
      CHECK(r.says("'left': parked in the right one"));
      CHECK(r.says("'right': parked in the left one"));
      CHECK(r.says("parked in Godot"));
    }
  }

  TEST_CASE("stop: ends the fibers and the run") {
    const child_result r = run_forked([] {
      try {
        run({.workers = 2, .on_deadlock = deadlock_policy::stop, .deadlock_grace = 20ms}, [] {
          fiber other({.name = "other"}, [] { wait_for_nothing("the end"); });
          other.join();
        });
      } catch (const std::system_error& e) {
        if (e.code() == std::errc::operation_canceled) std::fprintf(stderr, "ended by the stop\n");
      }
    });
    CAPTURE(r.error_output);
    CHECK(r.exit_code == 0);
    CHECK(r.says("'other': parked in the end"));
    CHECK(r.says("ended by the stop"));
  }

  TEST_CASE("report: says it once and goes on; a thread outside may still wake the fiber") {
    const child_result r = run_forked([] {
      overheard_stderr said;
      runtime rt({.workers = 1, .deadlock_grace = 20ms});
      std::atomic<detail::waiter*> who{nullptr};
      std::atomic<bool> done{false};
      rt.spawn([&] {
        who = detail::current_waiter();
        detail::wait_until_done(
            [](const void* a) noexcept { return static_cast<const std::atomic<bool>*>(a)->load(); },
            &done, {.reason = "a thread"});
        std::fprintf(stderr, "woken\n");
      });
      said.wait_for("nothing inside this runtime");
      rt.drain_for(200ms);  // long enough for a second report, if there were one
      done = true;
      detail::unpark(who);
      rt.drain();
    });
    CAPTURE(r.error_output);
    CHECK(r.exit_code == 0);
    CHECK(count(r.error_output, "nothing inside this runtime") == 1);
    CHECK(r.says("parked in a thread"));
    CHECK(r.says("woken"));
  }

  TEST_CASE("is not reported while a timer is pending, nor while a fiber computes") {
    const child_result r = run_forked([] {
      run_on_own_stack(
          runtime_options{
              .workers = 2, .on_deadlock = deadlock_policy::abort, .deadlock_grace = 20ms},
          [] {
            fiber sleeper([] { this_fiber::sleep_for(300ms); });
            fiber waiting([&] { sleeper.join(); });
            waiting.join();
            const auto end = std::chrono::steady_clock::now() + 200ms;
            fiber idle([] { this_fiber::sleep_for(1ms); });
            while (std::chrono::steady_clock::now() < end) std::this_thread::yield();
          });
    });
    CAPTURE(r.error_output);
    CHECK(r.exit_code == 0);
    CHECK_FALSE(r.says("nothing inside"));
  }

  TEST_CASE("is not reported while the system may still wake somebody") {
    // Each waits without a deadline, ten times the grace and more, and has nobody inside to wake it.
    struct pending {
      const char* what;
      void (*wait)(int fd, std::atomic<bool>& begun);
      void (*end)(int fd);
    };
    const pending all[] = {
        {"a read",
         [](int fd, std::atomic<bool>& begun) {
           begun = true;
           char c = 0;
           read_some(fd, buffer(&c, 1));
         },
         [](int fd) {
           if (::write(fd, "x", 1) != 1) std::_Exit(3);
         }},
        {"readiness",
         [](int fd, std::atomic<bool>& begun) {
           begun = true;
           wait_readable(fd);
         },
         [](int fd) {
           if (::write(fd, "x", 1) != 1) std::_Exit(3);
         }},
        {"pool work",
         [](int fd, std::atomic<bool>& begun) {
           begun = true;
           blocking([fd] {
             char c = 0;
             if (::read(fd, &c, 1) != 1) std::_Exit(3);
           });
         },
         [](int fd) {
           if (::write(fd, "x", 1) != 1) std::_Exit(3);
         }},
        {"a signal",
         [](int, std::atomic<bool>& begun) {
           signal_set set({SIGUSR1});
           begun = true;
           set.wait();
         },
         [](int) { ::kill(::getpid(), SIGUSR1); }},
    };
    for (const pending& one : all)
      for (const unsigned workers : {1U, 2U}) {
        CAPTURE(one.what);
        CAPTURE(workers);
        const child_result r = run_forked([&] {
          int ends[2];
          if (::pipe(ends) != 0) std::_Exit(4);
          run_on_own_stack(runtime_options{.workers = workers,
                                           .on_deadlock = deadlock_policy::abort,
                                           .deadlock_grace = 20ms},
                           [&] {
                             std::atomic<bool> begun{false};
                             std::thread outside;
                             fiber waiting([&] { one.wait(ends[0], begun); });
                             while (!begun) this_fiber::yield();
                             outside = std::thread([&] {
                               std::this_thread::sleep_for(300ms);
                               one.end(ends[1]);
                             });
                             waiting.join();
                             outside.join();
                           });
        });
        CAPTURE(r.error_output);
        CHECK(r.exit_code == 0);
        CHECK_FALSE(r.says("nothing inside"));
      }
  }
}

TEST_SUITE("contract") {
  TEST_CASE("a runtime destroyed by its own fiber says so, on which fiber") {
    const child_result r = run_forked([] {
      auto rt = std::make_unique<runtime>(runtime_options{.workers = 1});
      runtime* const raw = rt.get();
      raw->spawn([] {});
      fiber f({.name = "suicidal"}, [&] { rt.reset(); });
      f.join();
    });
    CAPTURE(r.error_output);
    CHECK(r.signal == SIGABRT);
    CHECK(r.says("tendril: check failed: a runtime cannot be destroyed by one of its own fibers"));
    CHECK(r.says("on fiber 'suicidal' (id "));
  }
}
