// SPDX-License-Identifier: Apache-2.0
//
// libc's mutexes and condition variables on fibers. Runtimes of one worker that no other thread may replace hang where
// a lock blocks; those of several show exclusion, with native threads beside the fibers.
#include "intercept/locking.hpp"
#include "intercept/waiting.hpp"

#include <tendril/detail/sanitizers.hpp>
#include <tendril/semaphore.hpp>

#include <pthread.h>
#include <semaphore.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using namespace tendril;
using namespace std::chrono_literals;
using test::after;
using test::error_name;
using test::excludes;
using test::intercepted;
using test::run_on_own_stack;
using test::spaced;
using test::thread_number;
using test::watchdog;

namespace {

/// What gives EPERM: ThreadSanitizer reports it, as it should.
template <class F>
int misuse([[maybe_unused]] F f) {
#if TENDRIL_TSAN
  return EPERM;
#else
  return f();
#endif
}

struct typed_mutex {
  pthread_mutex_t m;
  explicit typed_mutex(int type) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, type);
    pthread_mutex_init(&m, &a);
    pthread_mutexattr_destroy(&a);
  }
  ~typed_mutex() { pthread_mutex_destroy(&m); }
  typed_mutex(const typed_mutex&) = delete;
  typed_mutex& operator=(const typed_mutex&) = delete;
};

}  // namespace

TEST_SUITE("mutexes") {
  TEST_CASE("a mutex that is held over a wait does not stop the worker") {
    intercepted(
        [] {
          static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
          std::string seen;
          fiber one([&] {
            pthread_mutex_lock(&m);
            seen += "a";
            usleep(2000);
            seen += "b";
            pthread_mutex_unlock(&m);
          });
          fiber two([&] {
            this_fiber::yield();
            seen += pthread_mutex_trylock(&m) == EBUSY ? "busy" : "free";
            pthread_mutex_lock(&m);
            seen += "c";
            pthread_mutex_unlock(&m);
          });
          one.join();
          two.join();
          return seen;
        },
        "abusybc");
  }

  TEST_CASE("mutexes exclude fibers and threads") {
    for (const unsigned workers : {1U, 2U, 3U}) {
      pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER;
      excludes(
          workers, [&] { pthread_mutex_lock(&plain); }, [&] { pthread_mutex_unlock(&plain); });
      std::mutex standard;
      excludes(
          workers, [&] { standard.lock(); }, [&] { standard.unlock(); });
      typed_mutex checking(PTHREAD_MUTEX_ERRORCHECK);
      excludes(
          workers, [&] { pthread_mutex_lock(&checking.m); },
          [&] { pthread_mutex_unlock(&checking.m); });
      typed_mutex recursive(PTHREAD_MUTEX_RECURSIVE);
      excludes(
          workers,
          [&] {
            pthread_mutex_lock(&recursive.m);
            pthread_mutex_lock(&recursive.m);
          },
          [&] {
            pthread_mutex_unlock(&recursive.m);
            pthread_mutex_unlock(&recursive.m);
          });
    }
  }

  TEST_CASE("the owner of a recursive or error-checking mutex is a fiber") {
    intercepted(
        [] {
          typed_mutex recursive(PTHREAD_MUTEX_RECURSIVE), checking(PTHREAD_MUTEX_ERRORCHECK);
          binary_semaphore held(0), tried(0);
          std::string owner, other;
          fiber holder([&] {
            pthread_mutex_lock(&recursive.m);
            owner += error_name(pthread_mutex_trylock(&recursive.m)) + " ";
            owner += error_name(pthread_mutex_lock(&recursive.m)) + " ";
            pthread_mutex_lock(&checking.m);
            owner += error_name(pthread_mutex_lock(&checking.m)) + " ";
            owner += error_name(pthread_mutex_trylock(&checking.m)) + " ";
            held.release();
            tried.acquire();
            for (int i = 0; i != 3; ++i) pthread_mutex_unlock(&recursive.m);
            owner += error_name(misuse([&] { return pthread_mutex_unlock(&recursive.m); })) + " ";
            pthread_mutex_unlock(&checking.m);
            owner += error_name(misuse([&] { return pthread_mutex_unlock(&checking.m); })) + "; ";
          });
          fiber stranger([&] {
            held.acquire();
            other += error_name(pthread_mutex_trylock(&recursive.m)) + " ";
            other += error_name(pthread_mutex_unlock(&recursive.m)) + " ";
            other += error_name(pthread_mutex_trylock(&checking.m)) + " ";
            other += error_name(pthread_mutex_unlock(&checking.m)) + " ";
            const timespec soon = after(CLOCK_REALTIME, 1ms);
            other += error_name(pthread_mutex_timedlock(&checking.m, &soon)) + " ";
            int outside = 0;
            std::thread([&] { outside = pthread_mutex_trylock(&recursive.m); }).join();
            other += error_name(outside) + " ";
            tried.release();
            other += error_name(pthread_mutex_lock(&checking.m)) + " ";
            other += error_name(pthread_mutex_unlock(&checking.m));
          });
          holder.join();
          stranger.join();
          return owner + other;
        },
        "0 0 EDEADLK EBUSY EPERM EPERM; EBUSY EPERM EBUSY EPERM ETIMEDOUT EBUSY 0 0");
  }

  TEST_CASE("deadlines of mutexes, by either clock, and those that are none") {
    intercepted(
        [] {
          pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
          binary_semaphore held(0), tried(0);
          std::string seen;
          fiber holder([&] {
            pthread_mutex_lock(&m);
            held.release();
            tried.acquire();
            pthread_mutex_unlock(&m);
          });
          fiber other([&] {
            held.acquire();
            const auto begin = std::chrono::steady_clock::now();
            timespec at = after(CLOCK_REALTIME, 5ms);
            seen += error_name(pthread_mutex_timedlock(&m, &at)) + " ";
            at = after(CLOCK_MONOTONIC, 5ms);
            seen += error_name(pthread_mutex_clocklock(&m, CLOCK_MONOTONIC, &at)) + " ";
            const bool long_enough = std::chrono::steady_clock::now() - begin >= 10ms;
            at = {0, 0};
            seen += error_name(pthread_mutex_timedlock(&m, &at)) + " ";
            at = {0, 1'000'000'000};
            seen += error_name(pthread_mutex_timedlock(&m, &at)) + " ";
            seen += error_name(pthread_mutex_clocklock(&m, CLOCK_PROCESS_CPUTIME_ID, &at)) + " ";
            tried.release();
            at = after(CLOCK_REALTIME, std::chrono::hours(1000000));
            seen += error_name(pthread_mutex_timedlock(&m, &at)) + " ";
            seen += error_name(pthread_mutex_unlock(&m));
            if (!long_enough) seen += " early";
          });
          holder.join();
          other.join();
          return seen;
        },
        "ETIMEDOUT ETIMEDOUT ETIMEDOUT EINVAL EINVAL 0 0");
  }

  TEST_CASE("an intercepted wait resumes on its thread, whoever unlocks") {
    runtime rt({.workers = 3});
    const watchdog dog("threads", &rt);
    const int rounds = static_cast<int>(test::rounds(2000));
    pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
    std::atomic<int> strayed{0};
    std::vector<fiber> all;
    for (int f = 0; f != 12; ++f)
      all.push_back(rt.run([&] {
        return fiber([&] {
          for (int i = 0; i != rounds; ++i) {
            const long before = thread_number();
            pthread_mutex_lock(&m);
            if (thread_number() != before) ++strayed;
            this_fiber::yield();
            pthread_mutex_unlock(&m);
          }
        });
      }));
    for (fiber& f : all) f.join();
    CHECK(strayed == 0);
  }

  TEST_CASE("what cannot park gives the worker away") {
    runtime rt({.workers = 1, .on_blocked_worker = [](std::string_view) {}});
    const watchdog dog("given away", &rt);
    int strayed = 0;
    run_on_own_stack(rt, [&] {
      // A robust mutex, held by a thread until the fiber waits for it.
      pthread_mutexattr_t a;
      pthread_mutexattr_init(&a);
      pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
      pthread_mutex_t robust;
      pthread_mutex_init(&robust, &a);
      pthread_mutexattr_destroy(&a);
      std::atomic<bool> held{false};
      std::atomic<pid_t> waiting{0};
      std::thread holder([&] {
        pthread_mutex_lock(&robust);
        held = true;
        test::until_asleep(waiting);
        pthread_mutex_unlock(&robust);
      });
      while (!held) std::this_thread::yield();
      fiber locks([&] {
        const long before = thread_number();
        waiting = static_cast<pid_t>(before);
        pthread_mutex_lock(&robust);
        pthread_mutex_unlock(&robust);
        if (thread_number() != before) ++strayed;
      });
      locks.join();
      holder.join();
      pthread_mutex_destroy(&robust);
    });
    CHECK(strayed == 0);
  }
}

TEST_SUITE("conditions") {
  TEST_CASE("condition variables between fibers, and their deadlines") {
    intercepted(
        [] {
          pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
          pthread_cond_t c = PTHREAD_COND_INITIALIZER;
          std::string seen;
          int turn = 0;
          std::vector<fiber> all;
          for (int i = 0; i != 3; ++i)
            all.emplace_back([&, i] {
              for (int round = 0; round != 3; ++round) {
                pthread_mutex_lock(&m);
                while (turn % 3 != i) pthread_cond_wait(&c, &m);
                seen += std::to_string(i);
                ++turn;
                pthread_cond_broadcast(&c);
                pthread_mutex_unlock(&m);
              }
            });
          for (fiber& f : all) f.join();
          pthread_mutex_lock(&m);
          timespec at = after(CLOCK_REALTIME, 2ms);
          seen += spaced(pthread_cond_timedwait(&c, &m, &at));
          at = after(CLOCK_MONOTONIC, 2ms);
          seen += spaced(pthread_cond_clockwait(&c, &m, CLOCK_MONOTONIC, &at));
          at.tv_nsec = -1;
          seen += spaced(pthread_cond_timedwait(&c, &m, &at));
          pthread_mutex_unlock(&m);
          pthread_condattr_t a;
          pthread_condattr_init(&a);
          pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
          pthread_cond_t monotonic;
          pthread_cond_init(&monotonic, &a);
          pthread_condattr_destroy(&a);
          const auto begin = std::chrono::steady_clock::now();
          at = after(CLOCK_MONOTONIC, 5ms);
          pthread_mutex_lock(&m);
          seen += spaced(pthread_cond_timedwait(&monotonic, &m, &at));
          pthread_mutex_unlock(&m);
          if (std::chrono::steady_clock::now() - begin < 5ms) seen += " early";
          pthread_cond_destroy(&monotonic);
          typed_mutex checking(PTHREAD_MUTEX_ERRORCHECK);
          seen += spaced(misuse([&] { return pthread_cond_wait(&c, &checking.m); }));
          return seen;
        },
        "012012012 ETIMEDOUT ETIMEDOUT EINVAL ETIMEDOUT EPERM");
  }

  TEST_CASE("a queue between fibers and threads, by the standard's mutex and condition variable") {
    for (const unsigned workers : {1U, 2U}) {
      CAPTURE(workers);
      runtime rt({.workers = workers, .on_blocked_worker = [](std::string_view) {}});
      const watchdog dog("a queue", &rt, std::chrono::seconds(200));
      const int rounds = static_cast<int>(test::rounds(3000));
      std::mutex m;
      std::condition_variable to_fibers, to_threads;
      int for_fibers = 0, for_threads = 0, taken_by_fibers = 0, taken_by_threads = 0;
      std::atomic<int> late{0};
      const auto take = [&](std::condition_variable& c, int& from, int& taken) {
        std::unique_lock hold(m);
        // Now and then with a limit that passes: what was signalled must not be lost by it.
        while (from == 0)
          if (!c.wait_for(hold, 200us, [&] { return from != 0; })) ++late;
        --from;
        ++taken;
      };
      const auto put = [&](std::condition_variable& c, int& to) {
        const std::scoped_lock hold(m);
        ++to;
        c.notify_one();
      };
      std::vector<std::thread> threads;
      for (int t = 0; t != 2; ++t)
        threads.emplace_back([&] {
          for (int i = 0; i != rounds; ++i) {
            put(to_fibers, for_fibers);
            take(to_threads, for_threads, taken_by_threads);
          }
        });
      std::vector<fiber> fibers;
      for (int f = 0; f != 2; ++f)
        fibers.push_back(rt.run([&] {
          return fiber([&] {
            for (int i = 0; i != rounds; ++i) {
              take(to_fibers, for_fibers, taken_by_fibers);
              put(to_threads, for_threads);
            }
          });
        }));
      for (std::thread& t : threads) t.join();
      for (fiber& f : fibers) f.join();
      CHECK(taken_by_fibers == 2 * rounds);
      CHECK(taken_by_threads == 2 * rounds);
    }
  }

  // The release is told to nobody, and the first of two fibers has been in line, and looked in vain, before.
  TEST_CASE("a thread that waits for a condition lets go of a mutex that fibers are in line for") {
    runtime rt({.workers = 1, .on_blocked_worker = [](std::string_view) {}});
    const watchdog dog("a silent release", &rt);
    std::mutex m;
    std::condition_variable c;
    std::unique_lock hold(m);
    c.wait_for(hold, 0ns);  // from now on fibers know that m is released like that
    int through = 0;
    std::vector<fiber> fibers;
    for (int f = 0; f != 2; ++f)
      fibers.push_back(rt.run([&] {
        return fiber([&] {
          const std::scoped_lock here(m);
          ++through;
          c.notify_one();
        });
      }));
    // One fiber stands in line, then the other, then one has looked again.
    const auto parks = [&] { return rt.stats().switches; };
    const auto begin = parks();
    while (parks() < begin + 10) std::this_thread::sleep_for(1ms);
    c.wait(hold, [&] { return through == 2; });
    hold.unlock();
    for (fiber& f : fibers) f.join();
    CHECK(through == 2);
  }

  TEST_CASE("fibers and threads wait without a limit for each other's signals") {
    for (const unsigned workers : {1U, 2U}) {
      CAPTURE(workers);
      runtime rt({.workers = workers, .on_blocked_worker = [](std::string_view) {}});
      const watchdog dog("signals", &rt, std::chrono::seconds(200));
      const int rounds = static_cast<int>(test::rounds(5000));
      pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;
      pthread_cond_t c = PTHREAD_COND_INITIALIZER;
      sem_t there, back;
      sem_init(&there, 0, 0);
      sem_init(&back, 0, 0);
      int turn = 0, wrong = 0;
      const auto play = [&](int mine) {
        for (int i = 0; i != rounds; ++i) {
          pthread_mutex_lock(&m);
          while (turn != mine) pthread_cond_wait(&c, &m);
          turn = 1 - mine;
          pthread_mutex_unlock(&m);
          pthread_cond_signal(&c);  // not under the mutex
        }
      };
      std::thread one([&] {
        play(0);
        for (int i = 0; i != rounds; ++i) {
          sem_post(&there);
          sem_wait(&back);
        }
      });
      fiber other = rt.run([&] {
        return fiber([&] {
          play(1);
          for (int i = 0; i != rounds; ++i) {
            if (sem_wait(&there) != 0) ++wrong;
            sem_post(&back);
          }
        });
      });
      one.join();
      other.join();
      CHECK(wrong == 0);
    }
  }
}
