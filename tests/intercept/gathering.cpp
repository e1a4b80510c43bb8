// SPDX-License-Identifier: Apache-2.0
//
// Barriers, the ends of threads, and C11's names for locks. On one worker that no other thread may replace: whatever
// blocked it would hang.
#include "intercept/deadline.hpp"
#include "intercept/waiting.hpp"

#include <tendril/detail/sanitizers.hpp>

#include <pthread.h>
#include <threads.h>
#include <time.h>

#include <atomic>
#include <thread>
#include <vector>

using namespace tendril;
using test::intercepted;

namespace {

std::string name_of(int error) { return error == 0 ? "0" : std::strerror(error); }

timespec soon(clockid_t which) { return test::after(which, std::chrono::milliseconds(2)); }

/// A thread that ends when it is told to, with an address of its own as its result.
class told_thread {
 public:
  told_thread() {
    pthread_create(
        &thread_, nullptr,
        [](void* self) -> void* {
          test::read_text(static_cast<told_thread*>(self)->through_.out());
          return self;
        },
        this);
  }
  pthread_t number() const noexcept { return thread_; }
  void end() { test::write_text(through_.in(), "e"); }

 private:
  test::pipe_pair through_;
  pthread_t thread_{};
};

}  // namespace

TEST_SUITE("gathering") {
  TEST_CASE("the end of a thread that another fiber ends") {
    intercepted(
        [] {
          std::string seen;
          told_thread one;
          fiber joins([&] {
            errno = EXDEV;
            void* result = nullptr;
            seen += name_of(pthread_join(one.number(), &result));
            seen += result == &one ? " its result" : " ?";
            seen += errno == EXDEV ? "" : " errno changed";
          });
          fiber ends([&] {
            this_fiber::yield();
            seen += "told ";
            one.end();
          });
          joins.join();
          ends.join();
          return seen;
        },
        "told 0 its result");
  }

  TEST_CASE("that has ended, that does not end in time, that is the caller's own") {
    intercepted(
        [] {
          std::string seen;
          told_thread one;
          timespec at = soon(CLOCK_REALTIME);
          seen += name_of(pthread_timedjoin_np(one.number(), nullptr, &at)) + ", ";
          at = soon(CLOCK_MONOTONIC);
          seen += name_of(pthread_clockjoin_np(one.number(), nullptr, CLOCK_MONOTONIC, &at)) + ", ";
          one.end();
          seen += name_of(pthread_timedjoin_np(one.number(), nullptr, nullptr)) + ", ";
          std::thread other([] {});
          other.join();
          // ThreadSanitizer forgets a thread for which this is tried.
          return seen + name_of(TENDRIL_TSAN ? EDEADLK : pthread_join(pthread_self(), nullptr));
        },
        "Connection timed out, Connection timed out, 0, Resource deadlock avoided");
  }

  TEST_CASE("fibers and a thread meet at a barrier, again and again") {
    intercepted(
        [] {
          constexpr int fibers = 3, rounds = 20;
          pthread_barrier_t barrier;
          pthread_barrier_init(&barrier, nullptr, fibers + 1);
          std::atomic<int> serial{0};
          std::atomic<int> arrived{0};
          std::atomic<bool> early{false};
          const auto meet = [&] {
            for (int i = 1; i <= rounds; ++i) {
              ++arrived;
              const int result = pthread_barrier_wait(&barrier);
              if (arrived < i * (fibers + 1)) early = true;
              if (result == PTHREAD_BARRIER_SERIAL_THREAD) ++serial;
            }
          };
          std::vector<fiber> all;
          for (int i = 0; i != fibers; ++i) all.emplace_back(meet);
          std::thread native(meet);
          for (fiber& f : all) f.join();
          native.join();
          pthread_barrier_destroy(&barrier);
          return std::to_string(serial) + (early ? " early" : "");
        },
        "20");
  }
}

TEST_SUITE("c11") {
  TEST_CASE("mutexes park, and have C11's codes") {
    intercepted(
        [] {
          std::string seen;
          mtx_t m;
          mtx_init(&m, mtx_timed);
          bool held = false, tried = false;
          fiber holds([&] {
            mtx_lock(&m);
            held = true;
            while (!tried) this_fiber::yield();
            test::until_in_line(1);
            seen += "held ";
            mtx_unlock(&m);
          });
          fiber waits([&] {
            while (!held) this_fiber::yield();
            seen += mtx_trylock(&m) == thrd_busy ? "busy " : "? ";
            const timespec at = soon(CLOCK_REALTIME);
            seen += mtx_timedlock(&m, &at) == thrd_timedout ? "timed out " : "? ";
            tried = true;
            seen += mtx_lock(&m) == thrd_success ? "locked" : "?";
            mtx_unlock(&m);
          });
          holds.join();
          waits.join();
          mtx_destroy(&m);
          return seen;
        },
        "busy timed out held locked");
  }

  TEST_CASE("conditions, once, sleeping") {
    intercepted(
        [] {
          std::string seen;
          mtx_t m;
          cnd_t c;
          mtx_init(&m, mtx_plain);
          cnd_init(&c);
          bool ready = false, timed_out = false;
          fiber waits([&] {
            mtx_lock(&m);
            const timespec at = soon(CLOCK_REALTIME);
            seen += cnd_timedwait(&c, &m, &at) == thrd_timedout ? "timed out " : "? ";
            timed_out = true;
            while (!ready) cnd_wait(&c, &m);
            mtx_unlock(&m);
            seen += "signalled ";
          });
          fiber signals([&] {
            const timespec time{0, 1'000'000};
            if (thrd_sleep(&time, nullptr) != 0) seen += "? ";
            const timespec bad{0, -1};
            if (thrd_sleep(&bad, nullptr) >= -1) seen += "? ";
            while (!timed_out) thrd_yield();
            mtx_lock(&m);
            ready = true;
            mtx_unlock(&m);
            cnd_signal(&c);
            cnd_broadcast(&c);
          });
          waits.join();
          signals.join();
          cnd_destroy(&c);
          mtx_destroy(&m);
          static std::atomic<int> runs;
          runs = 0;
          once_flag once = ONCE_FLAG_INIT;
          std::vector<fiber> all;
          for (int i = 0; i != 3; ++i)
            all.emplace_back([&] {
              call_once(&once, [] {
                usleep(1'000);
                ++runs;
              });
              if (runs == 0) seen += "early ";
            });
          for (fiber& f : all) f.join();
          return seen + std::to_string(runs);
        },
        "timed out signalled 1");
  }

#if !TENDRIL_TSAN  // which does not know of threads that C made
  TEST_CASE("the end of a thread") {
    intercepted(
        [] {
          test::pipe_pair through;
          thrd_t thread;
          int result = 0;
          thrd_create(
              &thread,
              [](void* from) {
                test::read_text(static_cast<test::pipe_pair*>(from)->out());
                return 7;
              },
              &through);
          fiber joins([&] {
            if (thrd_join(thread, &result) != thrd_success) result = -1;
          });
          fiber ends([&] {
            this_fiber::yield();
            test::write_text(through.in(), "e");
          });
          joins.join();
          ends.join();
          return std::to_string(result);
        },
        "7");
  }
#endif
}
