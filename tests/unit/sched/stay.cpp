// SPDX-License-Identifier: Apache-2.0
//
// Fibers that stay on their threads over waits, while others run there, while they are stolen from, and while the
// thread's worker goes elsewhere. Workers are taken from a thread without delay by a pinned fiber that waits on it.
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include "sched/scheduler.hpp"
#include "sched/thread_pin.hpp"
#include "sched/thread_stay.hpp"

#include <tendril/latch.hpp>
#include <tendril/mutex.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <stop_token>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using tendril::binary_semaphore;
using tendril::counting_semaphore;
using tendril::fiber;
using tendril::latch;
using tendril::runtime;
using tendril::runtime_options;
using tendril::test::run_on_own_stack;
using tendril::test::watchdog;
namespace detail = tendril::detail;
namespace this_fiber = tendril::this_fiber;

[[gnu::noinline]] long thread_number() { return ::syscall(SYS_gettid); }

runtime_options quiet(unsigned workers) {
  return {.workers = workers, .on_blocked_worker = [](std::string_view) {}};
}

/// Waits without leaving the thread, which has no worker meanwhile: others go on, on another thread.
template <class Semaphore>
void block_thread_on(Semaphore& s) {
  detail::pin_thread();
  s.acquire();
  detail::unpin_thread();
}

std::uint64_t handed_on(runtime& rt) {
  std::uint64_t n = 0;
  rt.run([&] { n = detail::current_scheduler()->threads().handed_on(); });
  return n;
}

}  // namespace

TEST_SUITE("stay") {
  TEST_CASE("thousands of waits end on the thread where they began, among thieves") {
    tendril::test::with_workers({1, 2, 4}, [](runtime& rt) {
      constexpr int fibers = 40, rounds = 250;
      std::atomic<int> strayed{0}, done{0};
      run_on_own_stack(rt, [&] {
        std::vector<fiber> all;
        std::vector<std::unique_ptr<counting_semaphore<>>> turns;
        for (int i = 0; i != fibers; ++i)
          turns.push_back(std::make_unique<counting_semaphore<>>(0));
        for (int i = 0; i != fibers; ++i)
          all.emplace_back([&, i] {
            for (int r = 0; r != rounds; ++r) {
              {
                const detail::thread_stay here;
                const long before = thread_number();
                turns[static_cast<std::size_t>((i + 1) % fibers)]->release();
                turns[static_cast<std::size_t>(i)]->acquire();
                if (thread_number() != before) ++strayed;
                if (r % 16 == 0) this_fiber::sleep_for(10us);
                if (thread_number() != before) ++strayed;
                this_fiber::yield();
                if (thread_number() != before) ++strayed;
              }
              this_fiber::yield();  // here it may be stolen
            }
            ++done;
          });
        for (fiber& f : all) f.join();
      });
      CHECK(strayed == 0);
      CHECK(done == fibers);
    });
  }

  TEST_CASE("the worker goes on with others while it waits") {
    runtime rt(quiet(1));
    const watchdog dog("others run", &rt);
    long here = 0, other = 0;
    run_on_own_stack(rt, [&] {
      binary_semaphore s(0);
      fiber f([&] {
        other = thread_number();
        s.release();
      });
      const detail::thread_stay stay;
      here = thread_number();
      s.acquire();
      f.join();
    });
    CHECK(here == other);
    CHECK(rt.stats().pinned_parks == 0);
    CHECK(rt.stats().workers_handed_over == 0);
  }

  TEST_CASE(
      "woken while another fiber blocks its thread, it waits for that, and gets a worker there") {
    for (const unsigned workers : {1U, 2U}) {
      CAPTURE(workers);
      runtime rt(quiet(workers));
      const watchdog dog("the thread comes back", &rt);
      long before = 0, after = 0, waker = 0;
      bool early = false;
      run_on_own_stack(rt, [&] {
        binary_semaphore wake(0), unblock(0), parked(0);
        fiber stays([&] {
          const detail::thread_stay stay;
          before = thread_number();
          fiber blocker([&] {  // with one worker: on the same thread
            detail::pin_thread();
            parked.release();
            unblock.acquire();
            detail::unpin_thread();
          });
          wake.acquire();
          after = thread_number();
          blocker.join();
        });
        parked.acquire();
        waker = thread_number();
        wake.release();
        for (int i = 0; i != 100; ++i) this_fiber::yield();
        early = waker != before && after != 0 && workers == 1;
        unblock.release();
        stays.join();
      });
      CHECK(before == after);
      CHECK_FALSE(early);
      if (workers == 1) {
        CHECK(waker != before);
        CHECK(handed_on(rt) >= 1);
      }
    }
  }

  TEST_CASE("threads that hold a worker in turn, each with fibers that stay") {
    runtime rt(quiet(1));
    const watchdog dog("in turn", &rt);
    constexpr int pairs = 3, rounds = 200;
    std::atomic<int> strayed{0}, done{0};
    run_on_own_stack(rt, [&] {
      std::vector<fiber> all;
      for (int p = 0; p != pairs; ++p) {
        binary_semaphore lost(0), start(0), parked(0);
        // One that blocks the thread, and behind it one that has begun to stay there.
        fiber stays([&] {
          const detail::thread_stay stay;
          const long before = thread_number();
          parked.release();
          start.acquire();
          for (int r = 0; r != rounds; ++r) {
            if (r % 2 == 0) this_fiber::yield();
            else this_fiber::sleep_for(1us);
            if (thread_number() != before) ++strayed;
          }
          ++done;
        });
        parked.acquire();
        fiber blocks([&] { block_thread_on(lost); });
        this_fiber::yield();
        lost.release();
        blocks.join();
        start.release();
        all.push_back(std::move(stays));
        all.back().join();
      }
    });
    CHECK(strayed == 0);
    CHECK(done == pairs);
  }

  TEST_CASE("several at a time, woken by a plain thread, while the worker changes threads") {
    for (const unsigned workers : {1U, 2U, 3U}) {
      CAPTURE(workers);
      runtime rt(quiet(workers));
      const watchdog dog("woken by a thread", &rt);
      constexpr int stayers = 6, rounds = 300;
      std::atomic<int> strayed{0}, ended{0};
      std::vector<std::unique_ptr<counting_semaphore<>>> turns;
      for (int i = 0; i != stayers; ++i) turns.push_back(std::make_unique<counting_semaphore<>>(0));
      std::vector<fiber> all;
      for (int i = 0; i != stayers; ++i)
        all.push_back(rt.run([&, i] {
          return fiber([&, i] {
            for (int r = 0; r != rounds; ++r) {
              const detail::thread_stay stay;
              const long before = thread_number();
              turns[static_cast<std::size_t>(i)]->acquire();
              if (thread_number() != before) ++strayed;
            }
            ++ended;
          });
        }));
      std::atomic<bool> stop{false};
      counting_semaphore<> go(0);
      all.push_back(rt.run([&] {
        return fiber([&] {
          while (!stop) {
            block_thread_on(go);
            this_fiber::yield();
          }
        });
      }));
      for (int r = 0; r != rounds; ++r) {
        for (auto& t : turns) t->release();
        go.release();
      }
      while (ended != stayers) {
        go.release();
        std::this_thread::yield();
      }
      stop = true;
      go.release();
      for (fiber& f : all) f.join();
      CHECK(strayed == 0);
    }
  }

  TEST_CASE("deadlines and stop requests end its waits, on its thread") {
    runtime rt(quiet(1));
    const watchdog dog("given up", &rt);
    bool timed_out = false, canceled = false;
    int strayed = 0;
    run_on_own_stack(rt, [&] {
      binary_semaphore never(0), unblock(0), parked(0), second(0);
      fiber waits([&] {
        const detail::thread_stay stay;
        const long before = thread_number();
        parked.release();
        timed_out = !never.try_acquire_for(1ms);
        if (thread_number() != before) ++strayed;
        second.release();
        try {
          never.acquire();
        } catch (const std::system_error& e) {
          canceled = e.code() == std::errc::operation_canceled;
        }
        if (thread_number() != before) ++strayed;
      });
      parked.acquire();
      fiber blocks([&] { block_thread_on(unblock); });
      this_fiber::yield();
      this_fiber::sleep_for(3ms);  // its deadline passes while its thread is blocked
      unblock.release();
      second.acquire();
      blocks.join();
      fiber blocks_again([&] { block_thread_on(unblock); });
      this_fiber::yield();
      waits.request_stop();
      this_fiber::yield();
      unblock.release();
      waits.join();
      blocks_again.join();
    });
    CHECK(timed_out);
    CHECK(canceled);
    CHECK(strayed == 0);
  }

  TEST_CASE("an idle spare that fibers stay on does not end") {
    runtime rt(
        {.workers = 1, .spare_thread_idle = 1ms, .on_blocked_worker = [](std::string_view) {}});
    const watchdog dog("idle spare", &rt);
    long before = 0, after = 0;
    run_on_own_stack(rt, [&] {
      binary_semaphore wake(0), unblock(0), parked(0);
      fiber stays([&] {
        const detail::thread_stay stay;
        before = thread_number();
        parked.release();
        wake.acquire();
        after = thread_number();
      });
      parked.acquire();
      fiber blocks([&] { block_thread_on(unblock); });
      this_fiber::yield();
      unblock.release();
      blocks.join();
      this_fiber::sleep_for(20ms);  // spares that nobody needs have ended
      wake.release();
      stays.join();
    });
    CHECK(before == after);
  }

  TEST_CASE("its affinity counts again from its next switch on") {
    runtime rt(quiet(2));
    const watchdog dog("affinity", &rt);
    std::atomic<int> wrong{0}, strayed{0};
    for (int round = 0; round != 50; ++round)
      run_on_own_stack(rt, [&] {
        binary_semaphore wake(0), unblock(0), ready(0);
        std::atomic<bool> over{false};
        fiber busy({.affinity = 0}, [&] {  // whom a yield there is in favour of
          while (!over) this_fiber::yield();
        });
        fiber stays({.affinity = 1}, [&] {
          {
            const detail::thread_stay stay;
            const long before = thread_number();
            ready.release();
            wake.acquire();
            if (thread_number() != before) ++strayed;
          }
          while (this_fiber::worker_index() != 1) this_fiber::yield();
          for (int i = 0; i != 10; ++i) {
            this_fiber::yield();
            const int index = this_fiber::worker_index();
            if (index != 1 && index != -1) ++wrong;
          }
        });
        ready.acquire();
        fiber blocks({.affinity = 1}, [&] { block_thread_on(unblock); });
        this_fiber::yield();
        wake.release();
        unblock.release();
        stays.join();
        blocks.join();
        over = true;
        busy.join();
      });
    CHECK(wrong == 0);
    CHECK(strayed == 0);
  }

  TEST_CASE("a thread that has lost its worker gets one for the fiber that would have moved off") {
    for (const unsigned workers : {1U, 2U}) {
      CAPTURE(workers);
      runtime rt(quiet(workers));
      const watchdog dog("move off", &rt);
      long before = 0, after = 0;
      int index = -2;
      run_on_own_stack(rt, [&] {
        binary_semaphore unblock(0);
        fiber f([&] {
          const detail::thread_stay stay;
          before = thread_number();
          block_thread_on(unblock);  // moves off here
          after = thread_number();
          index = this_fiber::worker_index();
        });
        this_fiber::yield();
        unblock.release();
        f.join();
      });
      CHECK(before == after);
      CHECK(index >= 0);
    }
  }

  TEST_CASE("stays are counted, and a pinned wait inside of one changes nothing") {
    runtime rt(quiet(2));
    const watchdog dog("nested", &rt);
    int strayed = 0;
    run_on_own_stack(rt, [&] {
      detail::enter_stay();
      const long before = thread_number();
      detail::enter_stay();
      this_fiber::sleep_for(1us);
      detail::leave_stay();
      for (int i = 0; i != 100; ++i) {
        this_fiber::yield();
        if (thread_number() != before) ++strayed;
      }
      binary_semaphore s(0);
      fiber other([&] { s.release(); });
      block_thread_on(s);
      if (thread_number() != before) ++strayed;
      other.join();
      if (thread_number() != before) ++strayed;
      detail::leave_stay();
    });
    CHECK(strayed == 0);
  }

  TEST_CASE("a hot fiber leaves its host and stays on the host's thread") {
    for (const unsigned workers : {1U, 2U}) {
      CAPTURE(workers);
      runtime rt(quiet(workers));
      const watchdog dog("hot", &rt);
      std::atomic<int> strayed{0};
      for (int round = 0; round != 50; ++round)
        run_on_own_stack(rt, [&] {
          binary_semaphore wake(0), unblock(0);
          auto called = tendril::thunk([&] {
            const detail::thread_stay stay;
            const long before = thread_number();
            wake.acquire();
            if (thread_number() != before) ++strayed;
            this_fiber::yield();
            if (thread_number() != before) ++strayed;
          });
          auto result = called();
          fiber blocks([&] { block_thread_on(unblock); });
          this_fiber::yield();
          wake.release();
          unblock.release();
          result.get();
          blocks.join();
        });
      CHECK(strayed == 0);
    }
  }

  TEST_CASE("a hot fiber on a plain thread waits in place") {
    runtime rt(quiet(1));
    const watchdog dog("guest", &rt);
    binary_semaphore wake(0);
    long before = 0, after = 0, at_end = 0;
    auto called = tendril::thunk([&] {
      {
        const detail::thread_stay stay;
        before = thread_number();
        wake.acquire();
        after = thread_number();
      }
      this_fiber::yield();
      at_end = thread_number();
    });
    std::thread waker([&] { wake.release(); });
    called().get();
    waker.join();
    CHECK(before == thread_number());
    CHECK(after == before);
    CHECK(at_end != before);
  }

  TEST_CASE("a fiber may end while it stays") {
    runtime rt(quiet(2));
    const watchdog dog("ends", &rt);
    std::atomic<int> strayed{0};
    for (int round = 0; round != 20; ++round)
      run_on_own_stack(rt, [&] {
        fiber f([&] {
          detail::enter_stay();
          const long before = thread_number();
          this_fiber::yield();
          if (thread_number() != before) ++strayed;
        });
        f.join();
        tendril::thunk([] { detail::enter_stay(); })().get();
        tendril::thunk([&] {
          const long before = thread_number();
          const detail::thread_stay stay;
          this_fiber::yield();
          if (thread_number() != before) ++strayed;
        })()
            .get();
      });
    CHECK(strayed == 0);
  }

  TEST_CASE(
      "others on the same worker are not kept waiting by those that stay, nor the other way "
      "round") {
    runtime rt(quiet(1));
    const watchdog dog("fair", &rt);
    int stayed = 0, stayed_at_end = 0;
    constexpr int rounds = 1000;
    run_on_own_stack(rt, [&] {
      bool stop = false;
      fiber stays([&] {
        const detail::thread_stay stay;
        while (!stop) {
          ++stayed;
          this_fiber::yield();
        }
      });
      std::vector<fiber> others;
      for (int i = 0; i != 3; ++i)
        others.emplace_back([&] {
          for (int r = 0; r != rounds; ++r) this_fiber::yield();
        });
      for (fiber& f : others) f.join();
      stayed_at_end = stayed;
      stop = true;
      stays.join();
    });
    CHECK(stayed_at_end > rounds);  // 3,000 turns of the others
    CHECK(stayed_at_end < 10 * rounds);
  }
}
