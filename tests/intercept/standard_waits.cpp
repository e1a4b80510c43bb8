// SPDX-License-Identifier: Apache-2.0
//
// What C++20's library waits by: atomics, latches, barriers, counting semaphores, guards of local statics. They come to
// the kernel by syscall().
#include "intercept/waiting.hpp"
#include "support/stress.hpp"

#include <tendril/condition_variable.hpp>
#include <tendril/detail/sanitizers.hpp>
#include <tendril/mutex.hpp>

#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <chrono>
#include <latch>
#include <memory>
#include <semaphore>
#include <stop_token>
#include <thread>
#include <vector>

using namespace tendril;
using namespace std::chrono_literals;
using test::intercepted;
using test::watchdog;

namespace {

/// Fibers on a runtime and threads beside them do the same, with their numbers.
template <class Work>
void fibers_and_threads(unsigned workers, int fibers, int threads, Work work) {
  CAPTURE(workers);
  runtime rt({.workers = workers, .on_blocked_worker = [](std::string_view) {}});
  const watchdog dog("fibers and threads", &rt, 200s);
  std::vector<std::thread> others;
  for (int t = 0; t != threads; ++t) others.emplace_back([&work, n = fibers + t] { work(n); });
  std::vector<fiber> all;
  for (int f = 0; f != fibers; ++f)
    all.push_back(rt.run([&work, f] { return fiber([&work, f] { work(f); }); }));
  for (fiber& f : all) f.join();
  for (std::thread& t : others) t.join();
  rt.drain();
}

#if !TENDRIL_TSAN  // whose guards are its own, and wait by instructions
struct slow_to_make {
  slow_to_make() { usleep(2000); }
};
std::atomic<int> made{0};
int use_static() {
  static const slow_to_make one = [] {
    ++made;
    return slow_to_make();
  }();
  static_cast<void>(&one);
  return made;
}
#endif

/// The thread, and those that it starts, run on one processor.
class on_one_processor {
 public:
  on_one_processor() {
    ::sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (unsigned i = 0; CPU_COUNT(&one) == 0; ++i)
      if (CPU_ISSET(i, &before_)) CPU_SET(i, &one);
    ::sched_setaffinity(0, sizeof one, &one);
  }
  ~on_one_processor() { ::sched_setaffinity(0, sizeof before_, &before_); }
  on_one_processor(const on_one_processor&) = delete;
  on_one_processor& operator=(const on_one_processor&) = delete;

 private:
  cpu_set_t before_{};
};

}  // namespace

TEST_SUITE("standard_waits") {
  // Who requests the stop has unparked the fiber, and is overtaken by it: the fiber takes its callback back while that
  // runs, and the library makes it wait for the end.
  TEST_CASE("a fiber's wait is ended by a thread that gets no further meanwhile") {
    const on_one_processor here;
    runtime rt({.workers = 1, .max_spare_threads = 0});
    const watchdog dog("stopped", &rt);
    mutex m;
    condition_variable_any c;
    int ready = 0, seen = 0, stopped = 0;
    constexpr int rounds = 20;
    for (int i = 0; i != rounds; ++i) {
      std::stop_source stop;
      std::atomic<bool> waits{false};
      const auto wait = [&] {
        std::unique_lock hold(m);
        waits = true;
        const bool found = c.wait(hold, stop.get_token(), [&] { return ready > i; });
        ++(found ? seen : stopped);
      };
      fiber ends = rt.run([&] { return fiber(wait); });
      while (!waits) std::this_thread::yield();
      { const std::scoped_lock parked(m); }
      std::thread([&] {
        // Whoever becomes ready goes first.
        const sched_param none{};
        ::sched_setscheduler(0, SCHED_IDLE, &none);
        stop.request_stop();
      }).join();
      ends.join();
      // Whoever waits next is found.
      stop = std::stop_source();
      waits = false;
      fiber goes_on = rt.run([&] { return fiber(wait); });
      while (!waits) std::this_thread::yield();
      {
        const std::scoped_lock hold(m);
        ++ready;
      }
      c.notify_one();
      goes_on.join();
    }
    CHECK(stopped == rounds);
    CHECK(seen == rounds);
  }

  TEST_CASE("a fiber that waits for an atomic lets the one run that changes it") {
    intercepted(
        [] {
          // Of the kernel's size, and of one for which the library has a word of its own.
          const auto number = std::make_unique<std::atomic<int>>(0);
          const auto large = std::make_unique<std::atomic<std::uint64_t>>(0);
          std::string seen;
          fiber waits([&] {
            number->wait(0);
            seen += std::to_string(number->load());
            large->wait(0);
            seen += std::to_string(large->load());
          });
          test::until_in_line(1);
          number->store(7);
          number->notify_one();
          while (seen.empty()) this_fiber::yield();
          test::until_in_line(1);
          large->store(8);
          large->notify_all();
          waits.join();
          return seen;
        },
        "78");
  }

#if !TENDRIL_TSAN
  TEST_CASE("a local static that another fiber makes is waited for") {
    intercepted(
        [] {
          std::vector<fiber> all;
          int wrong = 0;
          for (int i = 0; i != 10; ++i) all.emplace_back([&] { wrong += use_static() != 1; });
          for (fiber& f : all) f.join();
          return std::to_string(wrong);
        },
        "0");
  }
#endif

  TEST_CASE("latches and barriers of more fibers than workers") {
    intercepted(
        [] {
          constexpr int count = 20, rounds = 50;
          const auto gate = std::make_unique<std::latch>(count);
          const auto step = [total = std::make_shared<int>(0)]() noexcept { ++*total; };
          const auto line = std::make_unique<std::barrier<decltype(step)>>(count, step);
          std::vector<int> passed(count);
          std::vector<fiber> all;
          int wrong = 0;
          for (int i = 0; i != count; ++i)
            all.emplace_back([&, i] {
              gate->arrive_and_wait();
              for (int r = 0; r != rounds; ++r) {
                ++passed[static_cast<std::size_t>(i)];
                line->arrive_and_wait();
                for (const int n : passed) wrong += n < r + 1 || n > r + 2;
              }
            });
          for (fiber& f : all) f.join();
          return std::to_string(wrong) + ' ' + std::to_string(passed[0]);
        },
        "0 50");
  }

  TEST_CASE("a semaphore's time is over, or it is released") {
    intercepted(
        [] {
          const auto s = std::make_unique<std::counting_semaphore<10>>(0);
          std::string seen(s->try_acquire_for(3ms) ? "acquired" : "timed out");
          fiber acquires([&] { seen += s->try_acquire_for(100s) ? ", acquired" : ", timed out"; });
          fiber waits([&] {
            s->acquire();
            seen += ", acquired";
          });
          test::until_in_line(2);
          s->release(2);
          acquires.join();
          waits.join();
          return seen;
        },
        "timed out, acquired, acquired");
  }

  TEST_CASE("fibers and threads hand a turn round") {
    for (const unsigned workers : {1U, 2U}) {
      constexpr int fibers = 6, threads = 3, all = fibers + threads;
      const int rounds = static_cast<int>(test::rounds(300));
      std::atomic<int> turn{0};
      fibers_and_threads(workers, fibers, threads, [&](int me) {
        for (int r = 0; r != rounds; ++r) {
          for (int t = turn.load(); t % all != me; t = turn.load()) turn.wait(t);
          ++turn;
          turn.notify_all();
        }
      });
      CHECK(turn == all * rounds);
    }
  }

  TEST_CASE("fibers and threads meet at a barrier") {
    for (const unsigned workers : {1U, 2U}) {
      constexpr int fibers = 6, threads = 2;
      const int rounds = static_cast<int>(test::rounds(500));
      std::barrier line(fibers + threads);
      std::atomic<int> passed{0}, wrong{0};
      fibers_and_threads(workers, fibers, threads, [&](int) {
        for (int r = 0; r != rounds; ++r) {
          ++passed;
          line.arrive_and_wait();
          if (passed < (fibers + threads) * (r + 1)) ++wrong;
        }
      });
      CHECK(passed == (fibers + threads) * rounds);
      CHECK(wrong == 0);
    }
  }

  TEST_CASE("fibers and threads share a semaphore's permits") {
    for (const unsigned workers : {1U, 2U}) {
      constexpr int fibers = 8, threads = 2, permits = 3;
      const int rounds = static_cast<int>(test::rounds(1000));
      std::counting_semaphore<permits> s(permits);
      std::atomic<int> inside{0}, wrong{0}, done{0};
      fibers_and_threads(workers, fibers, threads, [&](int me) {
        for (int r = 0; r != rounds; ++r) {
          if (r % 3 != 0) s.acquire();
          else if (!s.try_acquire_for(50us)) continue;
          if (++inside > permits) ++wrong;
          if (r % 8 == 0) std::this_thread::yield();
          if (r % 64 == me) usleep(10);
          --inside;
          ++done;
          s.release();
        }
      });
      CHECK(wrong == 0);
      CHECK(done >= (fibers + threads) * rounds * 2 / 3 - (fibers + threads));
    }
  }
}
