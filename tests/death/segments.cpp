// SPDX-License-Identifier: Apache-2.0
//
// What must end the process on a segmented stack, and what must not. All in children: a runtime in this
// process would have installed the handler that they are about.
#include <tendril/tendril.hpp>

#include "death/unsplit.hpp"
#include "support/forked.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>

namespace {

using tendril::runtime;
using tendril::stack_kind;
using tendril::test::run_forked;
using tendril::test::unsplit_depth;

// The linker knows nothing of where it points.
unsigned (*volatile through_pointer)(unsigned) = &unsplit_depth;
unsigned (*volatile large_frame)() = &tendril::test::unsplit_frame;

[[gnu::noinline]] std::uint64_t endless(std::uint64_t n) {
  volatile char frame[4000];
  frame[n % sizeof frame] = 1;
  if (n == 0) return 0;
  return endless(n + 1) + static_cast<std::uint64_t>(frame[n % sizeof frame]);
}

/// Runs the pointer's target after a frame of split code that has taken the fiber to a standard segment.
[[gnu::noinline]] unsigned on_a_standard_segment(unsigned bytes) {
  volatile char frame[4000];
  frame[bytes % sizeof frame] = 1;
  return through_pointer(bytes) + static_cast<unsigned>(frame[bytes % sizeof frame]);
}

template <class Body>
void on_segmented_fiber(Body body, std::size_t most = std::size_t{1} << 30) {
  runtime rt({.workers = 1, .max_stack_bytes = most});
  rt.run([&] {
    tendril::fiber f({.stack = {stack_kind::segmented}, .name = "worker bee"}, body);
    f.join();
  });
}

}  // namespace

TEST_SUITE("segments") {
  TEST_CASE("endless recursion ends with the limit, named") {
    const auto child = run_forked([] { on_segmented_fiber([] { endless(1); }, 4 << 20); });
    CHECK(child.signal == SIGABRT);
    CHECK(child.says("fiber 'worker bee'"));
    CHECK(child.says("past the limit of 4096 KiB (runtime_options::max_stack_bytes)"));
  }

  TEST_CASE("unsplit code through a pointer may use the reserve") {
    const auto child = run_forked([] {
      unsigned frames = 0;
      on_segmented_fiber([&] { frames = on_a_standard_segment(16'000); });
      if (frames < 10) std::abort();
    });
    CHECK(child.exit_code == 0);
  }

  // Neighbours: the lowest segment of a slab has a guard page below it, the others have a canary.
  TEST_CASE("unsplit code that runs over a small segment is found and named") {
    int by_guard = 0, by_canary = 0;
    for (int neighbours = 0; neighbours != 4; ++neighbours) {
      const auto child = run_forked([neighbours] {
        runtime rt({.workers = 1});
        rt.run([neighbours] {
          tendril::latch done(1);
          for (int i = 0; i != neighbours; ++i)
            tendril::fiber({.stack = {stack_kind::segmented}}, [&] { done.wait(); }).detach();
          tendril::this_fiber::yield();
          tendril::fiber({.stack = {stack_kind::segmented}, .name = "worker bee"}, [] {
            through_pointer(1'900);
            tendril::this_fiber::yield();
          }).join();
          done.count_down();
        });
      });
      by_guard += child.signal == SIGSEGV;
      by_canary += child.signal == SIGABRT;
      CHECK(child.says("fiber 'worker bee'"));
      CHECK(child.says("code that was not compiled for segmented stacks"));
      CHECK(child.says("tendril::segmented"));
      CHECK(child.says("tendril::native_call"));
    }
    CHECK(by_guard + by_canary == 4);
    CHECK(by_canary > 0);
  }

  TEST_CASE("unsplit code that runs over a standard segment hits its guard and is named") {
    const auto child =
        run_forked([] { on_segmented_fiber([] { on_a_standard_segment(1'000'000); }); });
    CHECK(child.signal == SIGSEGV);
    CHECK(child.says("fiber 'worker bee'"));
    CHECK(child.says("code that was not compiled for segmented stacks"));
    CHECK(child.says("128 KiB"));
  }

  // Its stack pointer is far below the guard when it first touches it.
  TEST_CASE("a single large unsplit frame hits the guard and is named") {
    const auto child = run_forked([] { on_segmented_fiber([] { large_frame(); }); });
    CHECK(child.signal == SIGSEGV);
    CHECK(child.says("fiber 'worker bee'"));
    CHECK(child.says("code that was not compiled for segmented stacks"));
  }

  TEST_CASE("by native_call there is the thread's stack") {
    const auto child = run_forked([] {
      unsigned frames = 0;
      on_segmented_fiber([&] { frames = tendril::native_call(&unsplit_depth, 1'000'000U); });
      if (frames < 1000) std::abort();
    });
    CHECK(child.exit_code == 0);
  }
}
