// SPDX-License-Identifier: Apache-2.0
//
// Futexes by syscall(): each operation's results and errors. On one worker that no other thread may replace a wait that
// blocks hangs.
#include "intercept/deadline.hpp"
#include "intercept/waiting.hpp"

#include <tendril/cancelable_calls.hpp>

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <climits>
#include <thread>
#include <vector>

using namespace tendril;
using namespace std::chrono_literals;
using test::after;
using test::intercepted;
using test::said;
using test::until_asleep;
using test::watchdog;

namespace {

using word = std::atomic<std::uint32_t>;
constexpr int as_private = FUTEX_PRIVATE_FLAG;

long futex(word* w, int operation, std::uint32_t value, const timespec* time = nullptr,
           void* second = nullptr, std::uint32_t value3 = 0) {
  return ::syscall(SYS_futex, w, operation, value, time, second, value3);
}
/// libc's own, which no fiber is found by.
long kernels_futex(word* w, int operation, std::uint32_t value) {
  return test::behind_the_front<long(long, ...)>("syscall")(SYS_futex, w, operation, value, nullptr,
                                                            nullptr, 0);
}
/// The fourth argument as a number.
const timespec* number(long n) { return reinterpret_cast<const timespec*>(n); }

/// Words that are in no stack: other fibers use them.
struct words {
  word first{0}, second{0};
};
words& fresh() {
  static words w;
  w.first = 0;
  w.second = 0;
  return w;
}

/// Fibers that wait for a word by a raw call and note what it returned.
class waiters {
 public:
  waiters(int count, word& w, std::uint32_t bits, int flags = as_private) {
    for (int i = 0; i != count; ++i)
      fibers_.emplace_back([&w, bits, flags, this] {
        ++begun_;
        const long n = futex(&w, FUTEX_WAIT_BITSET | flags, 0, nullptr, nullptr, bits);
        if (n == 0) ++woken_;
        ++ended_;
      });
    while (begun_ != count) this_fiber::yield();
  }
  ~waiters() {
    for (fiber& f : fibers_) f.join();
  }
  waiters(const waiters&) = delete;
  waiters& operator=(const waiters&) = delete;
  /// When at least that many have run on. And if more of them could, they have.
  std::string count(int expected) const {
    while (ended_ < expected) this_fiber::yield();
    for (int i = 0; i != 20; ++i) this_fiber::yield();
    return std::to_string(woken_) + '/' + std::to_string(ended_);
  }

 private:
  int begun_ = 0, woken_ = 0, ended_ = 0;
  std::vector<fiber> fibers_;
};

}  // namespace

TEST_SUITE("futex") {
  TEST_CASE("what has not to wait says why, as the kernel") {
    intercepted(
        [] {
          words& w = fresh();
          std::string seen;
          const auto say = [&seen](long n) { seen.append(said(n)).append("; "); };
          const timespec bad{0, 1'000'000'000}, negative{-1, 0};
          auto* const nothing = reinterpret_cast<word*>(8);
          auto* const crooked = reinterpret_cast<word*>(reinterpret_cast<char*>(&w.first) + 2);
          for (const int flags : {0, as_private}) {
            say(futex(&w.first, FUTEX_WAIT | flags, 1));
            say(futex(nothing, FUTEX_WAIT | flags, 0));
            say(futex(crooked, FUTEX_WAIT | flags, 0));
            say(futex(&w.first, FUTEX_WAIT | flags, 0, &bad));
            say(futex(&w.first, FUTEX_WAIT | flags, 0, &negative));
            say(futex(&w.first, FUTEX_WAIT | flags, 0, number(8)));
            say(futex(&w.first, FUTEX_WAIT_BITSET | flags, 0, nullptr, nullptr, 0));
            say(futex(&w.first, FUTEX_WAKE | flags, 1));
            say(futex(nothing, FUTEX_WAKE, 1));
            say(futex(&w.first, FUTEX_WAKE_BITSET | flags, 1, nullptr, nullptr, 0));
            seen += "\n";
          }
          say(futex(&w.first, 77, 0));
          return seen;
        },
        "Resource temporarily unavailable; Bad address; Invalid argument; Invalid argument; "
        "Invalid argument; Bad address; Invalid argument; 0; Bad address; Invalid argument; \n"
        "Resource temporarily unavailable; Bad address; Invalid argument; Invalid argument; "
        "Invalid argument; Bad address; Invalid argument; 0; Bad address; Invalid argument; \n"
        "Function not implemented; ");
  }

  TEST_CASE("times are over: relative, absolute, by both clocks") {
    intercepted(
        [] {
          words& w = fresh();
          std::string seen;
          const timespec short_time{0, 2'000'000}, none{0, 0};
          const auto say = [&](long n) { seen.append(said(n)).append("; "); };
          const auto begun = std::chrono::steady_clock::now();
          say(futex(&w.first, FUTEX_WAIT | as_private, 0, &short_time));
          const bool waited = std::chrono::steady_clock::now() - begun >= 2ms;
          say(futex(&w.first, FUTEX_WAIT, 0, &none));
          const timespec steady = after(CLOCK_MONOTONIC, 2ms);
          say(futex(&w.first, FUTEX_WAIT_BITSET | as_private, 0, &steady, nullptr, ~0U));
          const timespec past{1, 0};
          say(futex(&w.first, FUTEX_WAIT_BITSET | as_private, 0, &past, nullptr, ~0U));
          const timespec real = after(CLOCK_REALTIME, 2ms);
          say(futex(&w.first, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &real, nullptr, 1));
          return seen + (waited ? "waited" : "too short");
        },
        "Connection timed out; Connection timed out; Connection timed out; Connection timed out; "
        "Connection timed out; waited");
  }

  TEST_CASE("a time beyond all times is no limit") {
    intercepted(
        [] {
          words& w = fresh();
          return test::both(
              [&] {
                const timespec ever{LONG_MAX, 999'999'999};
                return said(futex(&w.first, FUTEX_WAIT | as_private, 0, &ever));
              },
              [&] {
                w.first = 1;
                futex(&w.first, FUTEX_WAKE | as_private, 1);
              });
        },
        "0");
  }

  TEST_CASE("as many are woken as were meant to be, first come first served, by their bits") {
    intercepted(
        [] {
          words& w = fresh();
          std::string seen;
          const auto say = [&](long n) { seen += std::to_string(n) + ' '; };
          {
            const waiters five(5, w.first, ~0U);
            say(futex(&w.first, FUTEX_WAKE | as_private, 2));
            seen += five.count(2) + "; ";
            say(futex(&w.second, FUTEX_WAKE | as_private, 9));
            say(futex(&w.first, FUTEX_WAKE, 9));               // not private: others
            say(futex(&w.first, FUTEX_WAKE | as_private, 0));  // one, as the kernel has it
            seen += five.count(3) + "; ";
            say(futex(&w.first, FUTEX_WAKE | as_private, INT_MAX));
            seen += five.count(5) + "; ";
          }
          const waiters one(2, w.first, 1), two(3, w.first, 2);
          say(futex(&w.first, FUTEX_WAKE_BITSET | as_private, INT_MAX, nullptr, nullptr, 4));
          say(futex(&w.first, FUTEX_WAKE_BITSET | as_private, 2, nullptr, nullptr, 2));
          seen += one.count(0) + ' ' + two.count(2) + "; ";
          say(futex(&w.first, FUTEX_WAKE_BITSET | as_private, INT_MAX, nullptr, nullptr, 3));
          return seen + one.count(2) + ' ' + two.count(3);
        },
        "2 2/2; 0 0 1 3/3; 2 5/5; 0 2 0/0 2/2; 3 2/2 3/3");
  }

  TEST_CASE("a thread wakes fibers, a fiber wakes threads") {
    intercepted(
        [] {
          words& w = fresh();
          const waiters two(2, w.first, ~0U);
          std::string seen;
          std::thread([&] {
            seen = std::to_string(futex(&w.first, FUTEX_WAKE | as_private, 9));
          }).join();
          seen += ' ' + two.count(2) + ' ';
          std::atomic<pid_t> id{0};
          std::thread waits([&] {
            id = static_cast<pid_t>(::syscall(SYS_gettid));
            while (w.second == 0) futex(&w.second, FUTEX_WAIT | as_private, 0);
          });
          until_asleep(id);
          w.second = 1;
          seen += std::to_string(futex(&w.second, FUTEX_WAKE | as_private, 9));
          waits.join();
          return seen;
        },
        "2 2/2 1");
  }

  TEST_CASE("fibers and threads in one line get no more wake-ups than there were, by turns") {
    intercepted(
        [] {
          words& w = fresh();
          std::atomic<int> threads_woken{0};
          std::array<std::atomic<pid_t>, 2> ids{};
          std::vector<std::thread> threads;
          for (auto& id : ids)
            threads.emplace_back([&] {
              id = static_cast<pid_t>(::syscall(SYS_gettid));
              while (futex(&w.first, FUTEX_WAIT | as_private, 0) != 0) {
              }
              ++threads_woken;
            });
          for (auto& id : ids) until_asleep(id);
          const waiters fibers(2, w.first, ~0U);
          std::string seen = std::to_string(futex(&w.first, FUTEX_WAKE | as_private, 1));
          seen += std::to_string(futex(&w.first, FUTEX_WAKE | as_private, 1));
          while (threads_woken == 0) std::this_thread::yield();
          seen += ' ' + fibers.count(1) + ' ' + std::to_string(threads_woken) + ' ';
          seen += std::to_string(futex(&w.first, FUTEX_WAKE | as_private, 7));
          for (auto& t : threads) t.join();
          return seen + ' ' + fibers.count(2) + ' ' + std::to_string(threads_woken);
        },
        "11 1/1 1 2 2/2 2");
  }

  TEST_CASE("who is moved to another word is woken, and counted") {
    intercepted(
        [] {
          words& w = fresh();
          std::string seen;
          const auto say = [&](long n) { seen.append(said(n)).append(" "); };
          const waiters five(5, w.first, ~0U);
          say(futex(&w.first, FUTEX_CMP_REQUEUE | as_private, 1, number(9), &w.second, 1));
          seen += five.count(0) + ' ';
          say(futex(&w.first, FUTEX_CMP_REQUEUE | as_private, 1, number(1), &w.second, 0));
          seen += five.count(2) + ' ';
          say(futex(&w.first, FUTEX_REQUEUE | as_private, 0, number(1), &w.second));
          seen += five.count(3) + ' ';
          say(futex(&w.first, FUTEX_REQUEUE | as_private, 1, number(INT_MAX), &w.second));
          seen += five.count(5) + ' ';
          say(futex(&w.first, FUTEX_REQUEUE | as_private, 1, number(-1), &w.second));
          return seen;
        },
        "Resource temporarily unavailable 0/0 2 2/2 1 3/3 2 5/5 Invalid argument ");
  }

  TEST_CASE("an operation on a second word wakes at both") {
    intercepted(
        [] {
          words& w = fresh();
          const waiters two(2, w.first, ~0U), three(3, w.second, ~0U);
          const auto add_five =
              static_cast<std::uint32_t>(FUTEX_OP(FUTEX_OP_ADD, 5, FUTEX_OP_CMP_EQ, 0));
          std::string seen = std::to_string(
              futex(&w.first, FUTEX_WAKE_OP | as_private, 1, number(2), &w.second, add_five));
          seen += ' ' + std::to_string(w.second) + ' ' + two.count(1) + ' ' + three.count(2) + ' ';
          w.second = 0;
          seen += std::to_string(
              futex(&w.first, FUTEX_WAKE_OP | as_private, 9, number(9), &w.second, add_five));
          return seen + ' ' + two.count(2) + ' ' + three.count(3);
        },
        "3 5 1/1 2/2 2 2/2 3/3");
  }

  TEST_CASE("a change that nobody tells of is found") {
    intercepted(
        [] {
          words& w = fresh();
          return test::both(
              [&] {
                const std::string first = said(futex(&w.first, FUTEX_WAIT | as_private, 0));
                w.second = 1;
                return first + said(futex(&w.first, FUTEX_WAIT | as_private, 1));
              },
              [&] {
                w.first = 1;
                kernels_futex(&w.first, FUTEX_WAKE | as_private, 1);
                while (w.second == 0) usleep(1000);
                w.first = 2;
              });
        },
        "00");
  }

  TEST_CASE("a wake-up without a change is none too early and none too late") {
    // It keeps its place while it looks: a wake-up between two looks finds it.
    intercepted(
        [] {
          words& w = fresh();
          const waiters one(1, w.first, ~0U);
          usleep(10'000);
          std::string seen = one.count(0);
          seen += std::to_string(futex(&w.first, FUTEX_WAKE | as_private, 1));
          return seen + one.count(1);
        },
        "0/011/1");
  }

  TEST_CASE("waits in memory that processes share are made in the kernel") {
    intercepted(
        [] {
          auto* const w = static_cast<word*>(
              mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
          std::string seen;
          const timespec short_time{0, 1'000'000};
          seen += test::elsewhere("syscall", [&] {
            seen += said(futex(w, FUTEX_WAIT, 0, &short_time)) + ' ';
            seen += test::both([&] { return said(futex(w, FUTEX_WAIT, 0)); },
                               [&] {
                                 const pid_t child = fork();
                                 if (child == 0) {
                                   while (futex(w, FUTEX_WAKE, 1) == 0) ::usleep(100);
                                   _exit(0);
                                 }
                                 waitpid(child, nullptr, 0);
                               });
          });
          munmap(w, 4096);
          return seen;
        },
        "Connection timed out 0, elsewhere 2");
  }

  TEST_CASE("locks with priorities: the thread waits, the worker does not") {
    runtime rt({.workers = 1, .on_blocked_worker = [](std::string_view) {}});
    const watchdog dog("a lock with priorities", &rt);
    const std::string seen = test::run_on_own_stack(rt, [] {
      words& w = fresh();
      std::atomic<int> stage{0};
      std::atomic<pid_t> id{0};
      std::thread owner([&] {
        id = static_cast<pid_t>(::syscall(SYS_gettid));
        futex(&w.first, FUTEX_LOCK_PI | as_private, 0);
        stage = 1;
        while (stage != 2) std::this_thread::yield();
        futex(&w.first, FUTEX_UNLOCK_PI | as_private, 0);
      });
      while (stage == 0) std::this_thread::yield();
      const std::string result = test::both(
          [&] {
            const std::string got = said(futex(&w.first, FUTEX_LOCK_PI | as_private, 0));
            futex(&w.first, FUTEX_UNLOCK_PI | as_private, 0);
            return got;
          },
          [&] { stage = 2; });
      owner.join();
      return result;
    });
    CHECK(seen == "0");
    rt.drain();
  }

  TEST_CASE("a stop request does not end it") {
    intercepted(
        [] {
          words& w = fresh();
          std::string seen;
          fiber waits([&] {
            const cancelable_calls scope;
            seen += said(futex(&w.first, FUTEX_WAIT | as_private, 0));
          });
          this_fiber::yield();
          waits.request_stop();
          this_fiber::yield();
          seen += "goes on, ";
          futex(&w.first, FUTEX_WAKE | as_private, 1);
          waits.join();
          return seen;
        },
        "goes on, 0");
  }
}
