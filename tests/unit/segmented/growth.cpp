// SPDX-License-Identifier: Apache-2.0
//
// Fibers on segmented stacks: growth, what crosses an edge, what is given back.
#include <tendril/tendril.hpp>

#include <doctest/doctest.h>

#include <alloca.h>
#include <atomic>
#include <csetjmp>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using tendril::runtime;
using tendril::stack_kind;
namespace this_fiber = tendril::this_fiber;

tendril::runtime_options on_segments(unsigned workers) {
  return {.workers = workers, .stack = {stack_kind::segmented}};
}

/// Sums 1 to n, a frame of about 200 bytes for each.
[[gnu::noinline]] std::uint64_t sum_deep(std::uint64_t n, bool yield) {
  [[maybe_unused]] volatile char frame[150];
  frame[n % sizeof frame] = static_cast<char>(n);
  if (n == 0) return 0;
  if (yield && n % 64 == 0) this_fiber::yield();
  const std::uint64_t rest = sum_deep(n - 1, yield);
  return frame[n % sizeof frame] == static_cast<char>(n) ? rest + n : 0;
}

struct counted {
  std::atomic<int>& alive;
  explicit counted(std::atomic<int>& n) : alive(n) { ++alive; }
  ~counted() { --alive; }
};

[[gnu::noinline]] void throw_deep(int depth, std::atomic<int>& alive, bool park) {
  const counted here(alive);
  [[maybe_unused]] volatile char frame[400];
  frame[0] = 1;
  if (depth == 0) throw std::runtime_error("from below");
  throw_deep(depth - 1, alive, park);
  if (park) this_fiber::yield();
}

[[gnu::noinline]] double mixed(int a, double b, float c, long d, double e, const char* f, double g,
                               long h, long i, long j, double k, int depth) {
  [[maybe_unused]] volatile char frame[300];
  frame[depth % 300] = 1;
  if (depth != 0) return mixed(a, b, c, d, e, f, g, h, i, j, k, depth - 1);
  return a + b + static_cast<double>(c) + static_cast<double>(d) + e +
         static_cast<double>(std::strlen(f)) + g + static_cast<double>(h + i + j) + k;
}

#ifndef __clang__  // compiles no variadic function for segments; tests/abi has some in unsplit files
[[gnu::noinline]] long add_all(int depth, int count, ...) {
  [[maybe_unused]] volatile char frame[300];
  frame[depth % 300] = 1;
  va_list list;
  va_start(list, count);
  long sum = 0;
  for (int i = 0; i != count; ++i)
    sum += i % 2 == 0 ? va_arg(list, int) : static_cast<long>(va_arg(list, double));
  va_end(list);
  if (depth == 0) return sum;
  return add_all(depth - 1, 10, 1, 2.0, 3, 4.0, 5, 6.0, 7, 8.0, 9, 10.0) + (sum == 55 ? 0 : 1000);
}
#endif

[[gnu::noinline]] std::size_t fill_alloca(std::size_t bytes) {
  auto* const p = static_cast<char*>(alloca(bytes));
  std::memset(p, 7, bytes);
  std::size_t n = 0;
  for (std::size_t i = 0; i < bytes; i += 64) n += p[i] == 7;
  return n;
}

[[gnu::noinline]] void jump_from(std::jmp_buf& to, int depth) {
  [[maybe_unused]] volatile char frame[500];
  frame[0] = 1;
  if (depth <= 0) std::longjmp(to, 5 + depth);
  if (depth < 1'000'000) jump_from(to, depth - 1);
  frame[1] = 2;
}

}  // namespace

TEST_SUITE("growth") {
  TEST_CASE("deep recursion, parked in between and migrated") {
    REQUIRE(tendril::stack_kind_available(stack_kind::segmented));
    for (const unsigned workers : {1U, 2U}) {
      runtime rt(on_segments(workers));
      std::vector<std::uint64_t> sums(20);
      rt.run([&] {
        std::vector<tendril::fiber> fibers;
        for (auto& s : sums) fibers.emplace_back([&s] { s = sum_deep(5000, true); });
        for (auto& f : fibers) f.join();
      });
      for (const std::uint64_t s : sums) CHECK(s == 5000U * 5001U / 2);
    }
  }

  TEST_CASE("a hundred megabytes") {
    runtime rt(on_segments(1));
    const std::uint64_t n = 500'000;
    CHECK(rt.run([&] { return sum_deep(n, false); }) == n * (n + 1) / 2);
    CHECK(rt.run([&] { return sum_deep(n, false); }) == n * (n + 1) / 2);
  }

  TEST_CASE("a fiber begins on a small segment and is back on it after each deep call") {
    runtime rt(on_segments(1));
    std::vector<std::uintptr_t> at;
    rt.run([&] {
      for (int i = 0; i != 3; ++i) {
        char here = 0;
        at.push_back(reinterpret_cast<std::uintptr_t>(&here));
        sum_deep(1000, i == 1);
        this_fiber::yield();
      }
    });
    CHECK(at[0] == at[1]);
    CHECK(at[1] == at[2]);
  }

  TEST_CASE("exceptions run every destructor on the way through the segments") {
    for (const unsigned workers : {1U, 2U}) {
      runtime rt(on_segments(workers));
      std::atomic<int> alive{0};
      int caught = 0;
      std::string what;
      rt.run([&] {
        for (int i = 0; i != 50; ++i) try {
            throw_deep(2000, alive, true);
          } catch (const std::runtime_error& e) {
            this_fiber::
                yield();  // parked inside a handler, and resumed, perhaps on the other worker
            what = e.what();
            ++caught;
          }
        sum_deep(2000, false);
      });
      CHECK(caught == 50);
      CHECK(alive == 0);
      CHECK(what == "from below");
    }
  }

  TEST_CASE("an exception that nobody catches on the fiber reaches join") {
    runtime rt(on_segments(2));
    std::atomic<int> alive{0};
    CHECK_THROWS_WITH_AS(rt.run([&] { throw_deep(300, alive, false); }), "from below",
                         std::runtime_error);
    CHECK(alive == 0);
  }

  TEST_CASE("arguments in registers and in memory arrive at every depth") {
    runtime rt(on_segments(1));
    double sum = 0;
    rt.run([&] { sum = mixed(1, 2.5, 3.5F, 4, 5.0, "six", 7.0, 8, 9, 10, 11.0, 400); });
    CHECK(sum == 1 + 2.5 + 3.5 + 4 + 5 + 3 + 7 + 8 + 9 + 10 + 11);
  }

#ifndef __clang__
  TEST_CASE("variable arguments arrive at every depth") {
    runtime rt(on_segments(1));
    long sum = 0;
    rt.run([&] { sum = add_all(400, 10, 1, 2.0, 3, 4.0, 5, 6.0, 7, 8.0, 9, 10.0); });
    CHECK(sum == 55);
  }
#endif

  TEST_CASE("alloca beyond the segment") {
    runtime rt(on_segments(1));
    std::size_t found = 0;
    rt.run([&] {
      for (int i = 0; i != 100; ++i) {
        found += fill_alloca(100'000);
        this_fiber::yield();
      }
    });
    CHECK(found == 100 * (100'000 / 64 + 1));
  }

  TEST_CASE("longjmp from a deeper segment, again and again") {
    runtime rt(on_segments(1));
    int jumps = 0;
    rt.run([&] {
      std::jmp_buf back;
      if (setjmp(back) == 5) ++jumps;
      if (jumps != 100) jump_from(back, 200 + jumps);
      sum_deep(3000, true);
    });
    CHECK(jumps == 100);
  }

  TEST_CASE(
      "unsplit code is called where there is room, and the fiber parks on its small segment "
      "again") {
    runtime rt(on_segments(1));
    char text[200] = {};
    rt.run([&] {
      for (int i = 0; i != 100; ++i) {
        std::snprintf(text, sizeof text, "%d %.3f %s", i, 0.5 * i, "text");
        this_fiber::yield();
      }
    });
    CHECK(std::string(text) == "99 49.500 text");
  }

  TEST_CASE("segmented and reserved fibers wait for each other") {
    runtime rt({.workers = 2});
    long sum = 0;
    rt.run([&] {
      tendril::channel<int> numbers(1);
      tendril::fiber sender({.stack = {stack_kind::segmented}}, [&] {
        for (int i = 1; i <= 10'000; ++i) numbers.send(i);
        numbers.close();
      });
      while (const auto n = numbers.receive()) sum += *n;
      sender.join();
    });
    CHECK(sum == 10'000L * 10'001 / 2);
  }

  TEST_CASE("a hundred thousand fibers come and go, and their segments are used again") {
    runtime rt(on_segments(2));
    std::atomic<long> ran{0};
    rt.run([&] {
      for (int i = 0; i != 100'000; ++i) {
        tendril::spawn([&ran] { ++ran; });
        if (i % 100 == 99) this_fiber::yield();
      }
    });
    rt.drain();
    CHECK(ran == 100'000);
    // A fiber that ended on a later segment than its first and left it behind would need a new one each.
    CHECK(rt.stats().stacks.created < 20'000);
  }

  TEST_CASE("fibers that wait hold their first segment and no other") {
    runtime rt(on_segments(1));
    std::size_t created = 0;
    rt.run([&] {
      tendril::latch gate(1);
      const std::size_t before = rt.stats().stacks.created;
      std::atomic<int> arrived{0};
      for (int i = 0; i != 10'000; ++i)
        tendril::spawn([&] {
          ++arrived;
          gate.wait();
        });
      while (arrived != 10'000) this_fiber::yield();
      created = rt.stats().stacks.created - before;
      gate.count_down();
      while (rt.stats().fibers_alive() > 1) this_fiber::yield();
    });
    CHECK(created < 1'000);
  }
}

TEST_SUITE("growth.limit") {
  TEST_CASE("a limit out of range is an error with all three numbers") {
    auto options = on_segments(1);
    options.max_stack_bytes = 1000;
    CHECK_THROWS_WITH(runtime{options},
                      doctest::Contains("max_stack_bytes = 1000: allowed are 262144 (256 KiB) to"));
  }
}
