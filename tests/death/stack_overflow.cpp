// SPDX-License-Identifier: Apache-2.0
//
// A fiber that runs off its stack ends the process with a report that names it: through the whole
// runtime, on its own worker threads and switches. What the report's parts are is tested, with every
// guard mode and chained handlers, in unit/stack/overflow.cpp.
#include "stack/arena_table.hpp"
#include "support/forked.hpp"
#include "support/recursion.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <ostream>
#include <string>
#include <thread>

using namespace tendril;

namespace {

/// Runs off a stack of so many bytes while other fibers go on around it.
void overflow_in_fiber(std::size_t bytes, unsigned workers) {
  run({.workers = workers}, [bytes] {
    for (int i = 0; i < 100; ++i) {
      spawn([] {
        for (;;) this_fiber::yield();
      });
    }
    fiber_options options;
    options.name = "greedy";
    options.stack.bytes = bytes;
    fiber f(options, [] {
      this_fiber::yield();
      test::run_off_the_stack();
    });
    f.join();
  });
}

}  // namespace

TEST_SUITE("stack_overflow") {
  TEST_CASE("ends the process with a report that names the fiber and its stack") {
    for (const unsigned workers : {1U, 2U}) {
      for (const std::size_t kib : {16, 64, 1024}) {
        const auto result = test::run_forked([&] { overflow_in_fiber(kib << 10, workers); });
        CAPTURE(result.error_output);
        CHECK(result.signal == SIGSEGV);
        CHECK(result.says("tendril: stack overflow in fiber 'greedy' (id "));
        CHECK(
            result.says((") of " + std::to_string(kib) + " KiB; give it a larger stack").c_str()));
        // 16 KiB hold fewer frames than a trace shows: there it ends at the fiber's first.
        if (kib > 16) CHECK(result.says("(more frames)"));
      }
    }
  }

  TEST_CASE("of a thunk is reported on whatever thread it runs, before and after its first wait") {
    const auto greedy = [](bool waits) {
      thunk(
          [waits] {
            if (waits) this_fiber::yield();
            test::run_off_the_stack();
          },
          {.stack = {.bytes = 64 << 10}, .name = "greedy"})()
          .get();
    };
    enum class where { fiber, main_thread, other_thread };
    for (const where at : {where::fiber, where::main_thread, where::other_thread}) {
      for (const bool waits : {false, true}) {
        const auto result = test::run_forked([&] {
          runtime rt({.workers = 1});
          if (at == where::fiber) rt.run([&] { greedy(waits); });
          else if (at == where::main_thread) greedy(waits);
          else std::thread([&] { greedy(waits); }).join();
        });
        CAPTURE(static_cast<int>(at));
        CAPTURE(waits);
        CAPTURE(result.error_output);
        CHECK(result.signal == SIGSEGV);
        CHECK(result.says("tendril: stack overflow in fiber 'greedy'"));
        CHECK(result.says(") of 64 KiB; give it a larger stack"));
      }
    }
  }

  TEST_CASE("is reported with mprotect guards as well") {
    const auto result = test::run_forked([] {
      ::setenv("TENDRIL_STACK_GUARD", "mprotect", 1);
      overflow_in_fiber(std::size_t{64} << 10, 1);
    });
    CHECK(result.signal == SIGSEGV);
    CHECK(result.says("tendril: stack overflow in fiber 'greedy' (id "));
  }

  TEST_CASE("with canaries is found when the fiber has ended") {
    const auto result = test::run_forked([] {
      ::setenv("TENDRIL_STACK_GUARD", "canary", 1);
      run({.workers = 1}, [] {
        // Far enough to cross into the page below, not through it: what lies under it is another's.
        fiber f(fiber_options{.stack = {.bytes = 64 << 10}}, [] {
          detail::found_stack mine;
          if (!detail::find_stack(__builtin_frame_address(0), mine)) return;
          auto* const low = reinterpret_cast<volatile char*>(mine.guard_low);
          low[4000] = 1;
        });
        f.join();
      });
    });
    CHECK(result.signal == SIGABRT);
    CHECK(result.says("found when its stack was released"));
  }

  TEST_CASE("a bad guard mode is refused when the runtime starts") {
    const auto result = test::run_forked([] {
      ::setenv("TENDRIL_STACK_GUARD", "strong", 1);
      try {
        runtime rt({.workers = 1});
      } catch (const std::exception& e) {
        std::fprintf(stderr, "refused: %s\n", e.what());
      }
    });
    CHECK(result.exit_code == 0);
    CHECK(result.says(
        "refused: TENDRIL_STACK_GUARD='strong': allowed are madvise, mprotect, canary"));
  }

  TEST_CASE("a fault of ordinary code is not reported as an overflow") {
    const auto result = test::run_forked([] {
      run({.workers = 1}, [] {
        volatile int* nowhere = nullptr;
        asm volatile("" : "+r"(nowhere));
        *nowhere = 1;
      });
    });
    // A sanitizer that owns the signal reports it and exits instead.
    CHECK((result.signal != 0 || result.exit_code != 0));
    CHECK(!result.says("stack overflow"));
  }
}
