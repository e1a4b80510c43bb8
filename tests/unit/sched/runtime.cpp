// SPDX-License-Identifier: Apache-2.0
//
// The runtime: what run returns, what options it refuses, several of them, their end.
#include "support/with_workers.hpp"

#include <tendril/error.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

namespace {

using tendril::errc;
using tendril::fiber;
using tendril::runtime;
using tendril::runtime_options;
using tendril::test::with_workers;
namespace this_fiber = tendril::this_fiber;

std::string refusal(runtime_options o) {
  try {
    runtime rt(std::move(o));
  } catch (const std::system_error& e) {
    return e.code() == errc::invalid_option ? e.what() : "another error";
  }
  return "accepted";
}

}  // namespace

TEST_SUITE("runtime.run") {
  TEST_CASE("returns values, references, move-only objects and nothing") {
    with_workers([](runtime& rt) {
      int target = 5;
      CHECK(rt.run([] { return 42; }) == 42);
      CHECK(&rt.run([&]() -> int& { return target; }) == &target);
      CHECK(*rt.run([] { return std::make_unique<int>(3); }) == 3);
      static_assert(std::is_void_v<decltype(rt.run([] {}))>);
      rt.run([&] { target = 6; });
      CHECK(target == 6);
      CHECK(rt.run([p = std::make_unique<int>(8)] { return *p; }) == 8);
    });
    CHECK(tendril::run([] { return std::string("free function"); }) == "free function");
    CHECK(tendril::run({.workers = 1}, [] { return runtime::current()->workers(); }) == 1);
  }

  TEST_CASE("throws what the function threw") {
    with_workers([](runtime& rt) {
      CHECK_THROWS_AS(rt.run([] { throw std::out_of_range("x"); }), std::out_of_range);
      CHECK_THROWS_AS(rt.run([]() -> int { throw 3; }), int);
    });
  }

  TEST_CASE("may be nested, and cross runtimes") {
    with_workers([](runtime& rt) {
      CHECK(rt.run([&] { return rt.run([&] { return rt.run([] { return 3; }) + 2; }) + 1; }) == 6);
      runtime other({.workers = 1});
      runtime* inner = nullptr;
      runtime* after = nullptr;
      const bool same = rt.run([&] {
        inner = other.run([] { return runtime::current(); });
        after = runtime::current();
        return tendril::run({.workers = 1}, [&] { return runtime::current() != &rt; });
      });
      CHECK(same);
      CHECK(inner == &other);
      CHECK(after == &rt);
    });
  }
}

TEST_SUITE("runtime") {
  TEST_CASE("options out of range are refused with their name and value") {
    CHECK(refusal({.workers = 65}).find("workers is 65") != std::string::npos);
    const std::string too_large = refusal({.workers = 1, .stack = {.bytes = std::size_t{1} << 30}});
    CHECK(too_large.find(std::to_string(std::size_t{1} << 30)) != std::string::npos);
  }

  TEST_CASE("starting a fiber without a runtime is refused") {
    CHECK(runtime::current() == nullptr);
    std::error_code code;
    try {
      tendril::spawn([] {});
    } catch (const std::system_error& e) {
      code = e.code();
    }
    CHECK(code == errc::no_runtime);
  }

  TEST_CASE("threads outside start fibers on the newest runtime, or on the one they name") {
    runtime first({.workers = 1});
    std::atomic<runtime*> by_default{nullptr}, by_name{nullptr};
    {
      runtime second({.workers = 2});
      CHECK(runtime::current() == &second);
      std::thread([&] {
        tendril::spawn([&] { by_default = runtime::current(); });
        first.spawn([&] { by_name = runtime::current(); });
      }).join();
      second.drain();
      first.drain();
      CHECK(by_default == &second);
      CHECK(by_name == &first);
    }
    CHECK(runtime::current() == &first);
  }

  TEST_CASE("several runtimes work at once and wake each other's fibers") {
    runtime a({.workers = 2}), b({.workers = 1});
    std::atomic<int> done{0};
    for (int i = 0; i != 50; ++i) {
      a.spawn([&] { done += b.run([] { return 1; }); });
      b.spawn([&] { done += a.run([] { return 1; }); });
    }
    a.drain();
    b.drain();
    CHECK(done == 100);
  }

  TEST_CASE("drain waits for everything that fibers have started") {
    with_workers([](runtime& rt) {
      std::atomic<int> ended{0};
      struct tree {
        static void grow(std::atomic<int>& count, int depth) {
          if (depth != 0)
            for (int i = 0; i != 3; ++i)
              tendril::spawn([&count, depth] { grow(count, depth - 1); });
          this_fiber::yield();
          ++count;
        }
      };
      rt.spawn([&] { tree::grow(ended, 5); });
      rt.drain();
      CHECK(ended == 1 + 3 + 9 + 27 + 81 + 243);
      CHECK(rt.stats().fibers_alive() == 0);
    });
  }

  TEST_CASE("drain_for tells whether all have ended") {
    with_workers([](runtime& rt) {
      CHECK(rt.drain_for(std::chrono::nanoseconds(0)));
      std::atomic<bool> release{false};
      rt.spawn([&] {
        while (!release) this_fiber::sleep_for(std::chrono::microseconds(100));
      });
      CHECK_FALSE(rt.drain_for(std::chrono::milliseconds(5)));
      release = true;
      CHECK(rt.drain_for(std::chrono::nanoseconds::max()));
    });
  }

  TEST_CASE("a fiber cannot drain or stop its own runtime") {
    runtime rt({.workers = 1});
    int refused = 0;
    rt.run([&] {
      const auto attempt = [&](auto&& f) {
        try {
          f();
        } catch (const std::system_error& e) {
          if (e.code() == errc::would_deadlock) ++refused;
        }
      };
      attempt([&] { rt.drain(); });
      attempt([&] { rt.drain_for(std::chrono::seconds(1)); });
      attempt([&] { rt.stop(); });
    });
    CHECK(refused == 3);
  }

  TEST_CASE("stop ends sleeping, yielding and unstarted fibers") {
    with_workers([](runtime& rt) {
      std::atomic<int> canceled{0}, seen{0};
      for (int i = 0; i != 20; ++i) {
        rt.spawn([&] {
          try {
            this_fiber::sleep_for(std::chrono::hours(1));
          } catch (const std::system_error& e) {
            if (e.code() == std::errc::operation_canceled) ++canceled;
          }
        });
        rt.spawn([&] {
          while (!this_fiber::stop_requested()) this_fiber::yield();
          ++seen;
        });
      }
      rt.stop();
      CHECK(canceled == 20);
      CHECK(seen == 20);
      // What is started from now on starts with the request made.
      CHECK(rt.run([] {
        return this_fiber::stop_requested() && this_fiber::get_stop_token().stop_requested();
      }));
    });
  }

  TEST_CASE("the destructor drains, or stops, or drains for a while and then stops") {
    for (const auto policy : {tendril::exit_policy::drain, tendril::exit_policy::stop}) {
      std::atomic<int> finished{0}, stopped{0};
      {
        runtime rt({.workers = 2, .on_exit = policy});
        std::atomic<bool> started{false};
        rt.spawn([&] {
          started = true;
          try {
            this_fiber::sleep_for(policy == tendril::exit_policy::drain
                                      ? std::chrono::nanoseconds(1'000'000)
                                      : std::chrono::hours(1));
            ++finished;
          } catch (const std::system_error&) {
            ++stopped;
          }
        });
        while (!started) std::this_thread::yield();
      }
      CHECK(finished == (policy == tendril::exit_policy::drain ? 1 : 0));
      CHECK(stopped == (policy == tendril::exit_policy::drain ? 0 : 1));
    }
    std::atomic<int> stopped{0};
    {
      runtime rt({.workers = 1, .drain_timeout = std::chrono::milliseconds(2)});
      rt.spawn([&] {
        try {
          this_fiber::sleep_for(std::chrono::hours(1));
        } catch (const std::system_error&) {
          ++stopped;
        }
      });
    }
    CHECK(stopped == 1);
  }

  TEST_CASE("counters add up") {
    with_workers([](runtime& rt) {
      const auto before = rt.stats();
      rt.run([] {
        std::vector<fiber> all;
        for (int i = 0; i != 100; ++i)
          all.emplace_back([] {
            this_fiber::yield();
            this_fiber::sleep_for(std::chrono::nanoseconds(1));
          });
        for (fiber& f : all) f.join();
      });
      rt.drain();
      const auto after = rt.stats();
      CHECK(after.workers == rt.workers());
      CHECK(after.fibers_spawned - before.fibers_spawned == 101);
      CHECK(after.fibers_finished == after.fibers_spawned);
      // Each ran at least once. No more is certain: a yield with nobody else runnable, and a sleep whose
      // time is over before it begins, switch to nobody.
      CHECK(after.switches - before.switches >= 101);
      CHECK(after.timers_fired <= 100);
      CHECK(after.stacks.created + after.tasklets.slots >= 1);
    });
  }
}
