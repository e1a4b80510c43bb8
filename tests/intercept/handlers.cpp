// SPDX-License-Identifier: Apache-2.0
//
// Calls in handlers of signals that interrupt a fiber. On the thread's stack for signals they are libc's: the thread
// waits, and no other fiber runs on it, since the next signal would be handled at the same place. On the fiber's own
// stack they are the fiber's calls.
#include "intercept/handling.hpp"
#include "intercept/waiting.hpp"

#include <tendril/detail/sanitizers.hpp>

#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/syscall.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

using namespace tendril;
using test::handler_of;
using test::intercepted;

#if !TENDRIL_TSAN  // which calls handlers when it likes, on another stack

namespace {

std::atomic<int> wanted{-1};     // what the handler reads from
std::atomic<char> got{0};        // and what it has read
std::atomic<pid_t> handling{0};  // the thread it runs on
std::atomic<bool> overtaken{false};

void read_one(int) {
  const int before = errno;
  handling = static_cast<pid_t>(syscall(SYS_gettid));
  char byte = 0;
  got = read(wanted, &byte, 1) == 1 ? byte : '?';
  errno = before;
}

/// A fiber is interrupted by the handler, which has nothing to read until it, or the scheduler, sleeps. Another
/// fiber is ready to run meanwhile.
std::string interrupted() {
  test::pipe_pair through;
  wanted = through.out();
  handling = 0;
  got = 0;
  overtaken = false;
  std::thread writer([&] {
    test::until_asleep(handling);
    test::write_text(through.in(), "x");
  });
  fiber other([] { overtaken = got == 0; });
  pthread_kill(pthread_self(), SIGUSR1);
  const std::string seen =
      std::string(got == 'x' ? "read" : "?") + (overtaken ? ", overtaken" : "");
  other.join();
  writer.join();
  return seen;
}

// ---- posting

std::atomic<int> posted_by{0};  // handlers

/// Posted by the handler, and by everybody.
struct libcs_semaphore {
  static inline sem_t answers;
  static void begin() { sem_init(&answers, 0, 0); }
  static void end() { sem_destroy(&answers); }
  static void post() {
    if (sem_post(&answers) != 0) abort();
  }
  static void wait() { sem_wait(&answers); }
  static int value() {
    int left = 0;
    sem_getvalue(&answers, &left);
    return left;
  }
};

/// The same of a futex.
struct semaphore_of_futex {
  static inline std::atomic<std::uint32_t> answers;
  static void begin() { answers = 0; }
  static void end() {}
  static void post() {
    ++answers;
    if (syscall(SYS_futex, &answers, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1) < 0) abort();
  }
  static void wait() {
    for (std::uint32_t n = answers; n == 0 || !answers.compare_exchange_weak(n, n - 1);) {
      if (n == 0) syscall(SYS_futex, &answers, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, nullptr);
      n = answers;
    }
  }
  static int value() { return static_cast<int>(answers.load()); }
};

template <class Semaphore>
void post_one(int) {
  const int before = errno;
  Semaphore::post();
  ++posted_by;
  errno = before;
}

/// A handler that posts interrupts a worker and a thread in the middle of posting the same semaphore, while fibers wait for it:
/// in the lock of their line it would wait for ever. In the end nobody posts but the handler.
template <class Semaphore>
void post_in_handlers() {
  const handler_of installed(SIGUSR1, SA_RESTART, &post_one<Semaphore>);
  constexpr int signals = 400;
  constexpr int waiters = 4;
  for (const unsigned workers : {1U, 2U}) {
    CAPTURE(workers);
    Semaphore::begin();
    posted_by = 0;
    std::atomic<bool> over{false};
    std::atomic<int> ended{0};
    std::atomic<int> known{0};
    std::atomic<pthread_t> threads[2]{};
    runtime rt({.workers = workers});
    const test::watchdog dog("posting from a handler", &rt, std::chrono::seconds(100));
    std::thread native([&] {
      threads[1] = pthread_self();
      ++known;
      while (!over) {
        Semaphore::post();
        while (Semaphore::value() >= 8 && !over) {
        }
      }
      while (ended != waiters) std::this_thread::yield();
    });
    std::thread sender([&] {
      while (known != 2) std::this_thread::yield();
      for (unsigned turn = 0; ended != waiters; ++turn) {
        const int sent = posted_by;
        pthread_kill(threads[turn % 2], SIGUSR1);
        while (posted_by == sent && ended != waiters) std::this_thread::yield();
        if (sent >= signals) over = true;
      }
    });
    test::run_on_own_stack(rt, [&] {
      threads[0] = pthread_self();
      ++known;
      std::vector<fiber> all;
      for (int i = 0; i != waiters; ++i)
        all.emplace_back([&] {
          while (!over) Semaphore::wait();
          ++ended;
        });
      while (!over) {
        Semaphore::post();
        this_fiber::yield();
      }
      for (fiber& one : all) one.join();
    });
    sender.join();
    native.join();
    CHECK(posted_by > signals);
    Semaphore::end();
  }
}

}  // namespace

TEST_SUITE("handlers") {
  TEST_CASE("posting a semaphore from a handler, whatever it interrupts") {
    post_in_handlers<libcs_semaphore>();
  }

  TEST_CASE("waking a futex from a handler, whatever it interrupts") {
    post_in_handlers<semaphore_of_futex>();
  }

  TEST_CASE("on the stack for signals the thread waits") {
    const handler_of installed(SIGUSR1, SA_ONSTACK, &read_one);
    intercepted([] { return interrupted(); }, "read");
  }

  TEST_CASE("on its own stack the fiber parks") {
    const handler_of installed(SIGUSR1, 0, &read_one);
    intercepted([] { return interrupted(); }, "read, overtaken");
  }
}

#endif
