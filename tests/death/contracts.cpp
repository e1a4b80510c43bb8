// SPDX-License-Identifier: Apache-2.0
//
// Preconditions of the primitives that std leaves undefined and Tendril looks at: each broken one ends
// the process and says which, and where.
#include "support/forked.hpp"
#include "support/own_stack.hpp"

#include <tendril/barrier.hpp>
#include <tendril/channel.hpp>
#include <tendril/condition_variable.hpp>
#include <tendril/fiber.hpp>
#include <tendril/latch.hpp>
#include <tendril/mutex.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/shared_mutex.hpp>
#include <tendril/task.hpp>

#include <doctest/doctest.h>

#include <coroutine>
#include <csignal>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace {

using namespace tendril;
using test::child_result;
using test::run_forked;
using test::run_on_own_stack;

struct broken {
  const char* says;
  void (*body)();
};

// Through a volatile, or the compiler sees what is wrong and says so itself.
std::ptrdiff_t opaque(std::ptrdiff_t n) {
  volatile std::ptrdiff_t hidden = n;
  return hidden;
}

/// Starts t and is destroyed while it waits.
struct gives_up {
  struct promise_type {
    gives_up get_return_object() {
      return {std::coroutine_handle<promise_type>::from_promise(*this)};
    }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept {}
  };
  std::coroutine_handle<promise_type> handle;
};

const broken contracts[] = {
    {"a task was destroyed that has been started and has not ended",
     [] {
       promise<void> never;
       const auto waits = [](future<void> f) -> task<> { co_await std::move(f); };
       const auto other = [](task<> t) -> gives_up { co_await std::move(t); };
       other(waits(never.get_future())).handle.destroy();
     }},
    {"mutex::unlock: not locked",
     [] {
       mutex m;
       m.unlock();
     }},
    {"mutex::unlock: not locked",
     [] {
       mutex m;
       m.lock();
       m.unlock();
       m.unlock();
     }},
    {"recursive_mutex::unlock: not held by the caller",
     [] {
       recursive_mutex m;
       m.lock();
       m.unlock();
       m.unlock();
     }},
    {"shared_mutex::unlock: not locked",
     [] {
       shared_mutex m;
       m.lock_shared();
       m.unlock();
     }},
    {"shared_mutex::unlock_shared: not locked",
     [] {
       shared_mutex m;
       m.lock();
       m.unlock_shared();
     }},
    {"condition_variable::wait: the lock is not held",
     [] {
       mutex m;
       condition_variable c;
       std::unique_lock lock(m, std::defer_lock);
       c.wait(lock);
     }},
    {"counting_semaphore::release: more permits than max()",
     [] {
       binary_semaphore s(1);
       s.release();
     }},
    {"counting_semaphore::release: more permits than max()",
     [] {
       counting_semaphore<5> s(2);
       s.release(opaque(-1));
     }},
    {"latch::count_down: below zero",
     [] {
       latch gate(1);
       gate.count_down(2);
     }},
    {"latch::count_down: below zero",
     [] {
       latch gate(0);
       gate.arrive_and_wait();
     }},
    {"latch: negative count", [] { latch gate(opaque(-1)); }},
    {"barrier: negative count", [] { barrier<> b(opaque(-1)); }},
    {"barrier::arrive: more arrivals than expected",
     [] {
       barrier<> b(2);
       static_cast<void>(b.arrive(3));
     }},
};

}  // namespace

TEST_SUITE("contracts") {
  TEST_CASE("a broken one aborts and is named, on a plain thread") {
    for (const broken& one : contracts) {
      CAPTURE(one.says);
      const child_result r = run_forked(one.body);
      CAPTURE(r.error_output);
      CHECK(r.signal == SIGABRT);
      CHECK(r.says((std::string("tendril: ") + one.says + " (on a plain thread)").c_str()));
    }
  }

  TEST_CASE("on a fiber the message names it and its worker") {
    for (const broken& one : contracts) {
      CAPTURE(one.says);
      const child_result r = run_forked(
          [&] { run({.workers = 1}, [&] { fiber({.name = "careless"}, one.body).join(); }); });
      CAPTURE(r.error_output);
      CHECK(r.signal == SIGABRT);
      CHECK(r.says(one.says));
      CHECK(r.says("\"careless\", worker 0)"));
    }
  }

  TEST_CASE("a recursive mutex is not another's to unlock") {
    const child_result r = run_forked([] {
      run_on_own_stack(runtime_options{.workers = 1}, [] {
        recursive_mutex m;
        m.lock();
        fiber([&] { m.unlock(); }).join();
      });
    });
    CAPTURE(r.error_output);
    CHECK(r.signal == SIGABRT);
    CHECK(r.says("recursive_mutex::unlock: not held by the caller"));
  }

  TEST_CASE("a channel destroyed under a receiver, and under a sender") {
    for (const bool sending : {false, true}) {
      CAPTURE(sending);
      const child_result r = run_forked([&] {
        run_on_own_stack(runtime_options{.workers = 1}, [&] {
          auto c = std::make_unique<channel<int>>();
          bool begun = false;
          fiber waiting([&, raw = c.get()] {
            begun = true;
            if (sending) raw->send(1);
            else raw->receive();
          });
          while (!begun) this_fiber::yield();  // one worker: who has begun has parked
          c.reset();
        });
      });
      CAPTURE(r.error_output);
      CHECK(r.signal == SIGABRT);
      CHECK(r.says("channel: destroyed while somebody waits on it"));
    }
  }

  TEST_CASE("within the contract nothing is said") {
    const child_result r = run_forked([] {
      counting_semaphore<5> s(2);
      s.release(3);
      latch gate(2);
      gate.count_down(0);
      gate.count_down(2);
      barrier<> b(2);
      static_cast<void>(b.arrive(2));
      mutex m;
      m.lock();
      run({.workers = 1}, [&] { fiber([&] { m.unlock(); }).join(); });  // a mutex has no owner
    });
    CHECK(r.exit_code == 0);
    CHECK(r.error_output.empty());
  }
}
