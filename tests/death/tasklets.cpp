// SPDX-License-Identifier: Apache-2.0
//
// What breaks the contract of tasklets ends the process with a report that names both fibers and the address, as far
// as it can be seen (sched/slot_contract.hpp); and a tasklet that runs off its slot is reported as any fiber is.
#include "support/forked.hpp"
#include "support/recursion.hpp"

#include <tendril/channel.hpp>
#include <tendril/detail/sanitizers.hpp>
#include <tendril/fiber.hpp>
#include <tendril/latch.hpp>
#include <tendril/mutex.hpp>
#include <tendril/pin.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <system_error>
#include <thread>

using namespace tendril;

namespace {

runtime_options tasklets(std::size_t slots, bool strict) {
  return {
      .workers = 1, .stack = {stack_kind::tasklet}, .tasklets = {.slots = slots, .strict = strict}};
}

fiber_options named(const char* name) { return {.name = name}; }

/// Runs body, on tasklets, in a child.
template <class F>
test::child_result broken(std::size_t slots, bool strict, F body) {
  return test::run_forked([&] {
    runtime rt(tasklets(slots, strict));
    rt.run([body] { spawn(named("owner"), body); });
    rt.drain();
  });
}

/// "... at 0x7f...,": an address follows.
bool tells_address(const test::child_result& r, const char* before) {
  const std::size_t at = r.error_output.find(std::string(before) + "0x");
  return at != std::string::npos;
}

constexpr const char* advice = "see docs/tasklets.md";

/// Where a variable of a function was that has returned: as far down as the frames of a wait are, and further.
struct returned {
  static constexpr std::size_t bytes = 4096;
  std::uintptr_t low = 0;

  [[gnu::noinline]] void note() {
    volatile char variable[bytes];
    variable[0] = 1;
    low = reinterpret_cast<std::uintptr_t>(&variable[0]);
  }
  [[gnu::noinline]] void write() const {
    auto* const at = reinterpret_cast<volatile char*>(low);
    for (std::size_t i = 0; i != bytes; ++i) at[i] = 0;
  }
  /// As the kernel, or a library that is not instrumented.
  [[gnu::noinline, gnu::no_sanitize_address]] void write_unseen() const {
    auto* const at = reinterpret_cast<volatile char*>(low);
    for (std::size_t i = 0; i != bytes; ++i) at[i] = 0;
  }
};

}  // namespace

TEST_SUITE("tasklet_contract") {
  TEST_CASE("another one waits on an object of the waiting owner") {
    const auto r = broken(8, false, [] {
      channel<int> values(0);
      latch never(1);
      spawn(named("visitor"), [&] { values.receive(); });
      never.wait();
    });
    CAPTURE(r.error_output);
    CHECK(r.signal == SIGABRT);
    CHECK(r.says("tendril: tasklet 'visitor' (id "));
    CHECK(tells_address(r, "waits (channel::receive) on an object at "));
    CHECK(r.says("which is on the stack of tasklet 'owner' (id "));
    CHECK(r.says(advice));
  }

  TEST_CASE("another one ends the owner's wait on its own object") {
    const auto r = broken(8, false, [] {
      latch done(1);
      spawn(named("visitor"), [&] { done.count_down(); });
      done.wait();
    });
    CAPTURE(r.error_output);
    CHECK(r.signal == SIGABRT);
    CHECK(r.says("tendril: tasklet 'visitor' (id "));
    CHECK(r.says("ends a wait (latch::wait) of tasklet 'owner' (id "));
    CHECK(tells_address(r, "on the waiter's own stack, in ["));
    CHECK(r.says(advice));
  }

  TEST_CASE("a thread ends it") {
    const auto r = broken(8, false, [] {
      static std::atomic<bool> waits{false};
      mutex lock;
      lock.lock();
      std::thread([&] {
        while (!waits) std::this_thread::yield();
        lock.unlock();
      }).detach();
      spawn([] { waits = true; });  // runs once this one has parked: there is one worker
      lock.lock();
    });
    CAPTURE(r.error_output);
    CHECK(r.signal == SIGABRT);
    CHECK(r.says("tendril: a plain thread ends a wait (mutex::lock) of tasklet 'owner' (id "));
  }

  TEST_CASE("another one uses what was copied away") {
    const auto r = broken(2, true, [] {
      channel<int> values(0);
      spawn(named("visitor"), [&] { values.close(); });
      values.receive();
    });
    CAPTURE(r.error_output);
    CHECK(r.exit_code != 0);
    CHECK(r.says("tendril: tasklet 'visitor' (id "));
    CHECK(tells_address(r, TENDRIL_ASAN ? "writes to " : "wants the lock of an object at "));
    CHECK(r.says("which is on the stack of tasklet 'owner' (id "));
    CHECK(r.says("which is copied away while it waits"));
    CHECK(r.says(advice));
    if (TENDRIL_ASAN) CHECK(r.says("use-after-poison"));
  }

  TEST_CASE("a plain variable that was copied away is written to") {
    const auto r = broken(2, true, [] {
      volatile int result = 0;
      volatile int* const where = &result;
      latch* const done = new latch(1);
      spawn(named("visitor"), [where, done] {
        *where = 1;
        done->count_down();
      });
      done->wait();
    });
    CAPTURE(r.error_output);
    CHECK(r.exit_code != 0);
    CHECK(r.says(TENDRIL_ASAN ? "tendril: tasklet 'visitor' (id " : "tendril: somebody has "));
    CHECK(tells_address(r, TENDRIL_ASAN ? "writes to " : "written to "));
    CHECK(r.says("the stack of tasklet 'owner' (id "));
    CHECK(r.says(advice));
  }

  TEST_CASE(
      "a variable of a function that has returned is written to while its tasklet waits in its "
      "slot") {
    for (const bool evicted : {false, true}) {
      for (const bool pinned : {false, true}) {
        CAPTURE(evicted);
        CAPTURE(pinned);
        const auto r = broken(1, false, [=] {
          auto* const late = new returned;
          auto* const written = new binary_semaphore(0);
          late->note();
          const auto wait = [=] { written->acquire(); };
          fiber_options visitor = named("visitor");
          visitor.stack.kind = stack_kind::reserved;
          spawn(visitor, [=] {
            late->write_unseen();
            if (evicted) fiber(named("next"), [] {}).join();
            else written->release();
          });
          if (pinned) this_fiber::pin(wait);
          else wait();
        });
        CAPTURE(r.error_output);
        CHECK(r.signal == SIGABRT);
        CHECK(tells_address(r, "tendril: somebody has written to ["));
        CHECK(r.says("just below the stack of tasklet 'owner' (id "));
        CHECK(r.says(advice));
      }
    }
  }

  TEST_CASE("the same in strict mode") {
    const auto r = broken(2, true, [] {
      auto* const late = new returned;
      auto* const written = new binary_semaphore(0);
      late->note();
      fiber_options visitor = named("visitor");
      visitor.stack.kind = stack_kind::reserved;
      spawn(visitor, [=] {
        late->write();
        written->release();
      });
      written->acquire();
    });
    CAPTURE(r.error_output);
    CHECK(r.exit_code != 0);
    CHECK(tells_address(r, TENDRIL_ASAN ? "writes to " : "tendril: somebody has written to "));
    CHECK(r.says(advice));
  }

  TEST_CASE("is kept: waits on own objects that others do not use, and in pins") {
    for (const bool strict : {false, true}) {
      const auto r = test::run_forked([strict] {
        runtime rt(tasklets(2, strict));
        rt.run([] {
          binary_semaphore never(0);
          if (never.try_acquire_for(std::chrono::milliseconds(1))) std::abort();
          fiber sleeper([] {
            latch until_stopped(1);
            until_stopped.wait();
          });
          this_fiber::yield();
          sleeper.request_stop();
          try {
            sleeper.join();
          } catch (const std::system_error&) {
          }
          this_fiber::pin([] {
            latch done(1);
            spawn([&] { done.count_down(); });
            done.wait();
          });
        });
      });
      CAPTURE(r.error_output);
      CHECK(r.exit_code == 0);
    }
  }

  TEST_CASE("a tasklet that runs off its slot is named, before and after a copy") {
    for (const bool waits : {false, true}) {
      for (const bool pinned : {false, true}) {
        CAPTURE(waits);
        CAPTURE(pinned);
        const auto r = test::run_forked([=] {
          runtime_options o = tasklets(1, true);
          o.tasklets.slot_bytes = std::size_t{64} << 10;
          runtime rt(o);
          rt.spawn([] {
            for (;;) this_fiber::yield();
          });
          rt.run([=] {
            spawn(named("greedy"), [=] {
              if (waits) this_fiber::yield();
              const auto overflow = [=] {
                if (waits) this_fiber::yield();
                test::run_off_the_stack();
              };
              if (pinned) this_fiber::pin(overflow);
              else overflow();
            });
          });
          rt.drain();
        });
        CAPTURE(r.error_output);
        CHECK(r.signal == SIGSEGV);
        CHECK(r.says("tendril: stack overflow in fiber 'greedy' (id "));
        CHECK(r.says(") of 64 KiB; give it a larger stack"));
      }
    }
  }
}
