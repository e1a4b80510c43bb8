// SPDX-License-Identifier: Apache-2.0
//
// Fibers and runtimes that begin and end at the same time as others start, join, detach, stop and
// steal them. Every fiber is counted in and out.
#include "sched/registry.hpp"
#include "sched/worker_thread.hpp"
#include "support/own_stack.hpp"
#include "support/stress.hpp"
#include "support/with_workers.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using tendril::fiber;
using tendril::runtime;
using tendril::test::rounds;
using tendril::test::run_on_own_stack;
using tendril::test::stack_of_its_own;
using tendril::test::stress_seed;
using tendril::test::watchdog;
using tendril::test::with_workers;
namespace this_fiber = tendril::this_fiber;

// ThreadSanitizer knows at most 8,128 threads and fibers at once, and needs 0.4 ms for each.
constexpr std::uint64_t most_alive = TENDRIL_TSAN ? 1000 : 10'000;

}  // namespace

TEST_SUITE("stress.sched.lifetime") {
  TEST_CASE("threads and fibers spawn at once, past the capacity of every queue") {
    with_workers([](runtime& rt) {
      constexpr std::uint64_t threads = 4;
      const std::uint64_t each =
          std::min(rounds(TENDRIL_TSAN ? 12'000 : 40'000, 80), most_alive * 4) / threads;
      std::atomic<std::uint64_t> ran{0};
      std::vector<std::thread> outside;
      for (std::uint64_t t = 0; t != threads; ++t)
        outside.emplace_back([&] {
          for (std::uint64_t i = 0; i != each; ++i) {
            while (rt.stats().fibers_alive() > most_alive / 2) std::this_thread::yield();
            rt.spawn([&] {
              tendril::spawn([&] { ++ran; });
              this_fiber::yield();
              ++ran;
            });
          }
        });
      for (std::thread& t : outside) t.join();
      rt.drain();
      CHECK(ran == 2 * threads * each);
    });
  }

  TEST_CASE("more runnable fibers than a ring holds, all yielding") {
    with_workers([](runtime& rt) {
      // A ring holds 2,048: the remainder goes through the queue that all share. A small scale keeps
      // the yields and leaves the overflow to the others.
      const std::uint64_t fibers =
          TENDRIL_TSAN ? std::min<std::uint64_t>(2100, rounds(21'000, 200)) : 5000;
      const std::uint64_t yields = rounds(30, 2);
      std::atomic<std::uint64_t> done{0};
      for (std::uint64_t i = 0; i != fibers; ++i)
        rt.spawn([&] {
          for (std::uint64_t n = 0; n != yields; ++n) this_fiber::yield();
          ++done;
        });
      rt.drain();
      CHECK(done == fibers);
    });
  }

  TEST_CASE("one worker makes work in bursts, the others steal it") {
    runtime rt({.workers = 4});
    const watchdog dog("steal storm", &rt);
    const std::uint64_t bursts = rounds(500, 4);
    std::atomic<std::uint64_t> done{0};
    run_on_own_stack(rt, [&] {
      for (std::uint64_t b = 0; b != bursts; ++b) {
        std::vector<fiber> all;
        for (int i = 0; i != 64; ++i)
          all.emplace_back([&] {
            for (int n = 0; n != 3; ++n) this_fiber::yield();
            ++done;
          });
        for (fiber& f : all) f.join();
      }
    });
    CHECK(done == bursts * 64);
  }

  TEST_CASE("join, detach, destroy and stop race with the end") {
    const std::uint64_t seed = stress_seed("ends");
    for (const unsigned workers : {1U, 2U, 4U}) {
      std::atomic<std::uint64_t> unhandled{0};
      std::uint64_t rethrown = 0, dropped = 0, thrown = 0, detached_throwers = 0;
      {
        std::atomic<std::uint64_t> throws{0};
        runtime rt(
            {.workers = workers,
             .on_unhandled_exception = [&](std::string_view, std::exception_ptr) { ++unhandled; }});
        const watchdog dog("ends", &rt);
        run_on_own_stack(rt, [&] {
          std::minstd_rand random(static_cast<unsigned>(seed));
          for (std::uint64_t i = 0, n = rounds(20'000, 60); i != n; ++i) {
            const bool fails = random() % 2 == 0;
            fiber f([&, fails, yields = random() % 3] {
              for (auto y = yields; y != 0; --y) this_fiber::yield();
              if (!fails) return;
              ++throws;
              throw std::runtime_error("x");
            });
            for (auto y = random() % 4; y != 0; --y) this_fiber::yield();
            switch (random() % 4) {
              case 0:
                try {
                  f.join();
                } catch (const std::runtime_error&) {
                  ++rethrown;
                }
                break;
              case 1:
                if (fails) ++detached_throwers;
                f.detach();
                break;
              case 2:
                f.request_stop();
                if (fails) ++dropped;
                break;
              default:
                if (fails) ++dropped;
                f = fiber();
                break;
            }
          }
        });
        rt.drain();
        thrown = throws;
      }
      CHECK(thrown == rethrown + dropped + detached_throwers);
      CHECK(unhandled == detached_throwers);
    }
  }

  TEST_CASE("stop requests through handles, sources and the runtime race with the end") {
    with_workers([](runtime& rt) {
      std::atomic<std::uint64_t> ended{0};
      const std::uint64_t total = rounds(3'000, 10);
      run_on_own_stack(rt, [&] {
        for (std::uint64_t i = 0; i != total; ++i) {
          fiber f(stack_of_its_own(), [&](std::stop_token t) {
            std::atomic<int> called{0};
            const std::stop_callback note(t, [&] { ++called; });
            for (int n = 0; n != 3 && !t.stop_requested(); ++n) this_fiber::yield();
            ++ended;
          });
          std::stop_source source = f.get_stop_source();
          fiber by_source([source]() mutable { source.request_stop(); });
          f.request_stop();
          if (i % 2 == 0) this_fiber::yield();
          f.join();
          by_source.join();
          source.request_stop();
        }
      });
      CHECK(ended == total);
    });
  }

  TEST_CASE("fibers are listed while they come and go") {
    with_workers([](runtime& rt) {
      std::atomic<bool> done{false};
      std::atomic<int> wrong{0};
      tendril::detail::scheduler* const of =
          rt.run([] { return tendril::detail::current_scheduler(); });
      std::thread lister([&] {
        while (!done) {
          const std::string all = tendril::detail::list_fibers(*of);
          // Each line is one fiber's, with a whole name.
          for (std::size_t at = all.find('\''); at != std::string::npos; at = all.find('\'', at)) {
            const std::size_t end = all.find('\'', at + 1);
            const std::string name = all.substr(at + 1, end - at - 1);
            if (!name.empty() && name != "coming" && name != "going") ++wrong;
            at = end + 1;
          }
        }
      });
      run_on_own_stack(rt, [&] {
        for (std::uint64_t i = 0, n = rounds(3'000, 20); i != n; ++i) {
          fiber a({.name = i % 2 == 0 ? "coming" : "going"}, [] { this_fiber::yield(); });
          fiber b([] { this_fiber::sleep_for(std::chrono::nanoseconds(1)); });
          if (i % 3 == 0) this_fiber::yield();
        }
      });
      done = true;
      lister.join();
      CHECK(wrong == 0);
    });
  }

  TEST_CASE("runtimes come and go, with work pending at their end, under both policies") {
    const std::uint64_t seed = stress_seed("runtimes");
    std::minstd_rand random(static_cast<unsigned>(seed));
    const watchdog dog("runtimes", nullptr);
    std::uint64_t started = 0;
    std::atomic<std::uint64_t> ended{0};
    for (std::uint64_t i = 0, n = rounds(300, 8); i != n; ++i) {
      runtime rt({.workers = 1 + static_cast<unsigned>(random() % 3),
                  .on_exit = random() % 2 == 0 ? tendril::exit_policy::stop
                                               : tendril::exit_policy::drain});
      for (auto k = random() % 20; k != 0; --k) {
        ++started;
        rt.spawn([&, d = std::chrono::microseconds(random() % 300)] {
          try {
            this_fiber::yield();
            this_fiber::sleep_for(d);
          } catch (const std::system_error&) {
          }
          ++ended;
        });
      }
      if (random() % 4 == 0) rt.request_stop();
    }
    CHECK(ended == started);
  }

  TEST_CASE("two runtimes run each other's fibers while others come and go") {
    runtime a({.workers = 2}), b({.workers = 2});
    const watchdog dog("crossing", &a);
    const std::uint64_t total = rounds(2'000, 40);
    std::atomic<std::uint64_t> hops{0};
    for (int i = 0; i != 8; ++i)
      (i % 2 == 0 ? a : b).spawn([&, i] {
        runtime& other = i % 2 == 0 ? b : a;
        for (std::uint64_t n = 0; n != total / 8 + 1; ++n) hops += other.run([] { return 1U; });
      });
    a.drain();
    b.drain();
    CHECK(hops == 8 * (total / 8 + 1));
  }
}
