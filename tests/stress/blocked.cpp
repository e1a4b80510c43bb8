// SPDX-License-Identifier: Apache-2.0
//
// Workers that are taken away at any moment. A thread claims them as fast as it can, whether anybody is
// blocked or not, so that claims meet fibers as they enter the runtime, switch, wake, spawn, end, sleep and
// do I/O. Every case counts its work; a worker with two holders, or a fiber lost between threads, hangs,
// crashes or miscounts (and is a race to ThreadSanitizer).
#include "support/own_stack.hpp"
#include "support/stress.hpp"
#include "support/with_pollers.hpp"
#include "support/with_workers.hpp"

#include "sched/scheduler.hpp"
#include "sched/thread_pin.hpp"
#include "sched/thread_stay.hpp"

#include <tendril/channel.hpp>
#include <tendril/mutex.hpp>
#include <tendril/net.hpp>
#include <tendril/semaphore.hpp>

#include <doctest/doctest.h>

#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using tendril::fiber;
using tendril::runtime;
using tendril::runtime_options;
using tendril::test::rounds;
using tendril::test::run_on_own_stack;
using tendril::test::stack_of_its_own;
using tendril::test::stress_seed;
using tendril::test::watchdog;
namespace detail = tendril::detail;
namespace this_fiber = tendril::this_fiber;

/// Takes workers away from their threads until it goes.
class robber {
 public:
  robber(runtime& rt, std::uint64_t seed) {
    detail::scheduler* s = nullptr;
    rt.run([&] { s = detail::current_scheduler(); });
    thread_ = std::thread([this, s, seed] {
      std::minstd_rand random(static_cast<unsigned>(seed));
      while (!done_) {
        for (unsigned i = 0; i != s->worker_count(); ++i) {
          detail::blocked_fiber who;
          if (s->threads().take_over(s->worker_at(i), who) == detail::crew::hand_over::done) {
            ++robberies;
            if (who.id == 0) std::abort();
          }
        }
        if (random() % 4 == 0)
          std::this_thread::sleep_for(std::chrono::microseconds(random() % 100));
      }
    });
  }
  ~robber() {
    done_ = true;
    thread_.join();
  }
  robber(const robber&) = delete;
  robber& operator=(const robber&) = delete;

  std::atomic<std::uint64_t> robberies{0};

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

runtime_options options(unsigned workers) {
  return {.workers = workers,
          .max_spare_threads = 4,
          .spare_thread_idle = 2ms,
          .on_blocked_worker = [](std::string_view) {}};
}

template <class Body>
void with_robber(const char* name, Body body) {
  const std::uint64_t seed = stress_seed(name);
  for (const unsigned workers : {1U, 2U, 3U}) {
    CAPTURE(workers);
    runtime rt(options(workers));
    const watchdog dog(name, &rt, std::chrono::seconds(300));
    std::uint64_t robberies = 0;
    {
      robber r(rt, seed);
      body(rt, seed);
      rt.drain();
      robberies = r.robberies;
    }
    std::printf("  %u workers: taken away %llu times\n", workers,
                static_cast<unsigned long long>(robberies));
    CHECK(rt.stats().workers_handed_over >= robberies);
    CHECK(rt.stats().fibers_alive() == 0);
  }
}

[[gnu::noinline]] long thread_number() { return ::syscall(SYS_gettid); }

/// A few instructions to some microseconds in the fiber's own code.
void compute(std::minstd_rand& random) {
  for (unsigned i = random() % 2000; i != 0; --i) asm volatile("" : : : "memory");
}

}  // namespace

TEST_SUITE("stress.blocked") {
  TEST_CASE("yields, wake-ups, spawns, joins and sleeps while workers are taken away") {
    with_robber("robbed: switching", [](runtime& rt, std::uint64_t seed) {
      constexpr int fibers = 8;
      const auto total = static_cast<int>(rounds(20'000));
      std::array<int, fibers> done{};
      int under_mutex = 0;
      std::atomic<int> children{0};
      run_on_own_stack(rt, [&] {
        tendril::mutex m;
        tendril::channel<int> c(2);
        std::vector<fiber> all;
        for (int n = 0; n != fibers; ++n)
          all.emplace_back([&, n] {
            std::minstd_rand random(static_cast<unsigned>(seed) + static_cast<unsigned>(n));
            for (int i = 0; i != total; ++i) {
              compute(random);
              switch (random() % 6) {
                case 0:
                  this_fiber::yield();
                  break;
                case 1: {
                  m.lock();
                  ++under_mutex;
                  compute(random);
                  m.unlock();
                  break;
                }
                case 2: {
                  fiber child([&] {
                    ++children;
                    this_fiber::yield();
                  });
                  compute(random);
                  child.join();
                  break;
                }
                case 3:
                  this_fiber::sleep_for(std::chrono::microseconds(random() % 100));
                  break;
                case 4:
                  if (n % 2 == 0) {
                    c.send(i);
                    break;
                  }
                  (void)c.try_receive();
                  break;
                default:
                  tendril::spawn([&] { ++children; });
                  break;
              }
              ++done[static_cast<std::size_t>(n)];
              while (c.try_receive()) {
              }
            }
          });
        for (fiber& f : all) f.join();
      });
      rt.drain();
      for (const int d : done) CHECK(d == total);
    });
  }

  TEST_CASE("fibers that stay on their threads while workers are taken away") {
    with_robber("robbed: staying", [](runtime& rt, std::uint64_t seed) {
      constexpr int fibers = 9;
      const auto total = static_cast<int>(rounds(10'000));
      std::array<int, fibers> done{};
      std::atomic<int> strayed{0};
      std::uint64_t handed_on = 0;
      std::array<tendril::counting_semaphore<>, 3> turns{tendril::counting_semaphore<>(0),
                                                         tendril::counting_semaphore<>(0),
                                                         tendril::counting_semaphore<>(0)};
      std::atomic<int> waiting{0};
      // Wakes from outside of the runtime, when it was seen waiting; half of them reach nobody.
      std::atomic<bool> over{false};
      std::thread outside([&] {
        while (!over)
          if (waiting != 0) turns[0].release();
          else std::this_thread::yield();
      });
      run_on_own_stack(rt, [&] {
        std::vector<fiber> all;
        for (int n = 0; n != fibers; ++n)
          all.emplace_back([&, n] {
            std::minstd_rand random(static_cast<unsigned>(seed) + static_cast<unsigned>(n));
            for (int i = 0; i != total; ++i) {
              compute(random);
              const bool stays = n % 3 != 2;
              if (stays) detail::enter_stay();
              const long before = stays ? thread_number() : 0;
              switch (random() % 6) {
                case 0:
                  this_fiber::yield();
                  break;
                case 1:
                  this_fiber::sleep_for(std::chrono::microseconds(random() % 100));
                  break;
                case 2:  // gives the worker away
                  detail::pin_thread();
                  (void)turns[1].try_acquire_for(std::chrono::microseconds(random() % 20));
                  detail::unpin_thread();
                  break;
                case 3:
                  ++waiting;
                  turns[0].acquire();
                  --waiting;
                  break;
                case 4:
                  turns[1].release();
                  (void)turns[2].try_acquire_for(20us);
                  break;
                default:
                  turns[2].release();
                  (void)turns[1].try_acquire_for(20us);
                  break;
              }
              if (stays) {
                if (thread_number() != before) ++strayed;
                detail::leave_stay();
              }
              ++done[static_cast<std::size_t>(n)];
            }
          });
        for (fiber& f : all) f.join();
        handed_on = detail::current_scheduler()->threads().handed_on();
      });
      over = true;
      outside.join();
      std::printf("  handed on %llu times\n", static_cast<unsigned long long>(handed_on));
      for (const int d : done) CHECK(d == total);
      CHECK(strayed == 0);
    });
  }

  TEST_CASE("bound and pinned fibers while workers are taken away") {
    with_robber("robbed: pinned", [](runtime& rt, std::uint64_t seed) {
      const auto total = static_cast<int>(rounds(10'000));
      std::atomic<int> handed{0};
      std::atomic<bool> astray{false};
      const auto workers = static_cast<int>(rt.workers());
      run_on_own_stack(rt, [&] {
        tendril::channel<int> c(0);
        fiber producer({.affinity = 0}, [&] {
          std::minstd_rand random(static_cast<unsigned>(seed));
          for (int i = 0; i != total; ++i) {
            compute(random);
            c.send(i);
            const int index = this_fiber::worker_index();
            if (index != 0 && index != -1) astray = true;
          }
          c.close();
        });
        fiber consumer({.affinity = workers - 1}, [&] {
          std::minstd_rand random(static_cast<unsigned>(seed) + 1);
          for (;;) {
            detail::pin_thread();
            compute(random);
            const auto got = c.receive();
            detail::unpin_thread();
            if (!got) break;
            ++handed;
          }
        });
        producer.join();
        consumer.join();
      });
      CHECK(handed == total);
      CHECK_FALSE(astray);
    });
  }

  TEST_CASE("I/O while workers are taken away") {
    for (const tendril::poller_kind kind :
         {tendril::poller_kind::native, tendril::poller_kind::portable}) {
      const std::uint64_t seed = stress_seed("robbed: I/O");
      const auto total = static_cast<int>(rounds(5'000));
      runtime_options o = options(2);
      o.poller = kind;
      runtime rt(o);
      const watchdog dog("robbed: I/O", &rt, std::chrono::seconds(300));
      std::atomic<int> echoed{0};
      {
        const robber r(rt, seed);
        run_on_own_stack(rt, [&] {
          std::vector<fiber> all;
          for (unsigned n = 0; n != 4; ++n)
            all.emplace_back(stack_of_its_own(), [&, n] {
              std::minstd_rand random(static_cast<unsigned>(seed) + n);
              for (int i = 0; i != total / 50; ++i) {
                auto both = tendril::test::make_tcp_pair();
                fiber server([&] {
                  char text[8];
                  while (const auto got = both.server.read_some(tendril::buffer(text)))
                    both.server.write_all(tendril::buffer(text, got));
                });
                for (int k = 0; k != 50; ++k) {
                  char text[8] = "ping";
                  both.client.write_all(tendril::buffer(text, 4));
                  compute(random);
                  both.client.read_exactly(tendril::buffer(text, 4));
                  ++echoed;
                }
                both.client.close();
                server.join();
              }
            });
          for (fiber& f : all) f.join();
        });
        rt.drain();
        std::printf("  taken away %llu times\n",
                    static_cast<unsigned long long>(r.robberies.load()));
      }
      CHECK(echoed == 4 * (total / 50) * 50);
    }
  }

  TEST_CASE("blocks that end at the moment at which the monitor looks") {
    const std::uint64_t seed = stress_seed("block ends");
    constexpr unsigned blockers = 6;
    const auto total = static_cast<int>(rounds(100));
    runtime rt({.workers = 2, .on_blocked_worker = [](std::string_view) {}});
    const watchdog dog("block ends", &rt, std::chrono::seconds(300));
    std::array<int, blockers> done{};
    std::atomic<int> idle_work{0};
    std::atomic<bool> closing{false};
    run_on_own_stack(rt, [&] {
      std::vector<fiber> all;
      for (unsigned n = 0; n != blockers; ++n)
        all.emplace_back([&, n] {
          std::minstd_rand random(static_cast<unsigned>(seed) + n);
          for (int i = 0; i != total; ++i) {
            // Around the monitor's period, and the kernel's scheduling noise on top.
            ::usleep(static_cast<useconds_t>(8'000 + random() % 6'000));
            ++done[n];
            if (random() % 2 == 0) this_fiber::yield();
          }
        });
      fiber other([&] {
        while (!closing) {
          ++idle_work;
          this_fiber::sleep_for(1ms);
        }
      });
      for (fiber& f : all) f.join();
      closing = true;
      other.join();
    });
    for (const int d : done) CHECK(d == total);
    std::printf("  handed over %llu times\n",
                static_cast<unsigned long long>(rt.stats().workers_handed_over));
  }
}
