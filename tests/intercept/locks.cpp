// SPDX-License-Identifier: Apache-2.0
//
// libc's other locks on fibers: read-write locks, semaphores, pthread_once. As those of mutexes (mutexes.cpp).
#include "intercept/locking.hpp"

#include <tendril/detail/sanitizers.hpp>

#include <pthread.h>
#include <semaphore.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <shared_mutex>
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

TEST_SUITE("rwlocks") {
  TEST_CASE("read-write locks exclude fibers and threads") {
    for (const unsigned workers : {1U, 2U, 3U}) {
      pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
      excludes(
          workers, [&] { pthread_rwlock_wrlock(&rw); }, [&] { pthread_rwlock_unlock(&rw); });
    }
  }

  TEST_CASE("readers share, writers do not, and deadlines pass") {
    intercepted(
        [] {
          pthread_rwlock_t l = PTHREAD_RWLOCK_INITIALIZER;
          std::string seen;
          int readers = 0, most = 0;
          pthread_rwlock_wrlock(&l);
          std::vector<fiber> all;
          for (int i = 0; i != 3; ++i)
            all.emplace_back([&] {
              pthread_rwlock_rdlock(&l);
              most = std::max(most, ++readers);
              while (most != 3) this_fiber::yield();
              --readers;
              pthread_rwlock_unlock(&l);
            });
          all.emplace_back([&] {
            pthread_rwlock_wrlock(&l);
            if (readers != 0) seen += "shared ";
            pthread_rwlock_unlock(&l);
          });
          this_fiber::yield();
          pthread_rwlock_unlock(&l);
          for (fiber& f : all) f.join();
          seen += std::to_string(most);
          pthread_rwlock_rdlock(&l);
          timespec at = after(CLOCK_REALTIME, 2ms);
          seen += spaced(pthread_rwlock_timedwrlock(&l, &at));
          at = after(CLOCK_MONOTONIC, 2ms);
          seen += spaced(pthread_rwlock_clockwrlock(&l, CLOCK_MONOTONIC, &at));
          seen += spaced(pthread_rwlock_timedrdlock(&l, &at));
          at.tv_nsec = -1;
          seen += spaced(pthread_rwlock_timedwrlock(&l, &at));
          pthread_rwlock_unlock(&l);
          pthread_rwlock_unlock(&l);
          return seen;
        },
        "3 ETIMEDOUT ETIMEDOUT 0 EINVAL");
  }

  TEST_CASE("std::shared_mutex on fibers") {
    intercepted(
        [] {
          std::shared_mutex m;
          std::string seen;
          m.lock();
          fiber reader([&] {
            const std::shared_lock hold(m);
            seen += "b";
          });
          fiber writer([&] {
            m.lock();
            seen += "c";
            m.unlock();
          });
          this_fiber::yield();
          seen += "a";
          m.unlock();
          reader.join();
          writer.join();
          std::sort(seen.begin() + 1, seen.end());
          return seen;
        },
        "abc");
  }
}

TEST_SUITE("semaphores") {
  TEST_CASE("semaphores exclude fibers and threads") {
    for (const unsigned workers : {1U, 2U, 3U}) {
      sem_t s;
      sem_init(&s, 0, 1);
      excludes(
          workers, [&] { sem_wait(&s); }, [&] { sem_post(&s); });
      sem_destroy(&s);
    }
  }

  TEST_CASE("semaphores, their deadlines and errors") {
    intercepted(
        [] {
          sem_t s;
          sem_init(&s, 0, 0);
          std::string seen;
          fiber waiter([&] {
            sem_wait(&s);
            seen += "woken ";
          });
          this_fiber::yield();
          sem_post(&s);
          waiter.join();
          const auto code = [](int result) {
            const int error = errno;
            return result == 0 ? std::string("0") : error_name(error);
          };
          timespec at = after(CLOCK_REALTIME, 2ms);
          seen += code(sem_timedwait(&s, &at)) + " ";
          at = after(CLOCK_MONOTONIC, 2ms);
          seen += code(sem_clockwait(&s, CLOCK_MONOTONIC, &at)) + " ";
          at.tv_nsec = 1'000'000'000;
          seen += code(sem_timedwait(&s, &at)) + " ";
          sem_post(&s);
          seen += code(sem_timedwait(&s, &at));  // free: nobody looks at the time
          sem_destroy(&s);
          return seen;
        },
        "woken ETIMEDOUT ETIMEDOUT EINVAL 0");
  }

  // Posted by a thread, a moment after the fiber has begun to wait: before it looks, while it gets in line, or later.
  TEST_CASE("a semaphore that is posted while a fiber gets in line for it") {
    sem_t posted;
    sem_init(&posted, 0, 0);
    const unsigned rounds = TENDRIL_TSAN ? 5'000 : 100'000;
    std::atomic<unsigned> asked{0};
    std::thread poster([&] {
      for (unsigned i = 1; i <= rounds; ++i) {
        for (unsigned tries = 0; asked < i; ++tries)
          if (tries % 1024 == 1023) std::this_thread::yield();
        sem_post(&posted);
      }
    });
    unsigned lost = 0;
    run_on_own_stack(runtime_options{.workers = 1, .max_spare_threads = 0}, [&] {
      // The limit is for code that is wrong.
      for (unsigned i = 1; i <= rounds; ++i) {
        timespec end{};
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_sec += 20;
        asked = i;
        for (unsigned spin = i % 4096; spin != 0; --spin) asm volatile("" : : : "memory");
        if (sem_clockwait(&posted, CLOCK_MONOTONIC, &end) == 0) continue;
        ++lost;
        asked = rounds;
        break;
      }
    });
    poster.join();
    sem_destroy(&posted);
    CHECK(lost == 0);
  }
}

TEST_SUITE("once") {
  TEST_CASE("once: others wait until the routine has returned, though it waits itself") {
    intercepted(
        [] {
          static pthread_once_t once;
          static int runs, done;
          once = PTHREAD_ONCE_INIT;
          runs = done = 0;
          int early = 0;
          std::vector<fiber> all;
          for (int i = 0; i != 5; ++i)
            all.emplace_back([&] {
              pthread_once(&once, [] {
                ++runs;
                usleep(2000);
                ++done;
              });
              if (done != 1) ++early;
            });
          for (fiber& f : all) f.join();
          return std::to_string(runs * 10 + early);
        },
        "10");
  }
}
