// SPDX-License-Identifier: Apache-2.0
//
// What else travels with a fiber from worker to worker: errno, the floating-point control words, the
// live registers; and that a worker's thread-local data is its own again after each switch.
#include "support/migration.hpp"
#include "support/with_workers.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cerrno>
#include <cfenv>
#include <cstddef>
#include <cstdint>

namespace {

using tendril::fiber;
using tendril::runtime;
using tendril::test::shuttle;
using tendril::test::with_workers;
namespace this_fiber = tendril::this_fiber;

// errno's address may be kept over calls by the compiler: read and write it in functions of their own.
[[gnu::noinline]] int read_errno() {
  asm volatile("" : : : "memory");
  return errno;
}
[[gnu::noinline]] void write_errno(int value) {
  errno = value;
  asm volatile("" : : : "memory");
}

}  // namespace

TEST_SUITE("context.errno") {
  TEST_CASE("each fiber has its own errno") {
    with_workers([](runtime& rt) {
      constexpr int fibers = 16;
      std::array<int, fibers> wrong{};
      rt.run([&] {
        std::array<fiber, fibers> all;
        for (std::size_t i = 0; i != fibers; ++i)
          all[i] = fiber([&, i] {
            for (int round = 0; round != 50; ++round) {
              const int mine = static_cast<int>(i) * 1000 + round;
              write_errno(mine);
              this_fiber::yield();
              if (read_errno() != mine) ++wrong[i];
            }
          });
        for (fiber& one : all) one.join();
      });
      CHECK(wrong == std::array<int, fibers>{});
    });
  }

  TEST_CASE("errno goes along to another worker, and nothing stays behind") {
    runtime rt({.workers = 2});
    shuttle s(rt);
    int wrong = 0, moved = 0, left_behind = -1;
    rt.run([&] {
      for (int round = 1; round != 200; ++round) {
        const int from = this_fiber::worker_index();
        write_errno(round);
        s.move_on();
        if (read_errno() != round) ++wrong;
        if (this_fiber::worker_index() != from) ++moved;
      }
      s.move_to(1);
      write_errno(4711);
      s.move_to(0);
      fiber other({.affinity = 1}, [&] { left_behind = read_errno(); });
      other.join();
    });
    CHECK(wrong == 0);
    CHECK(moved == 199);
    CHECK(left_behind == 0);
  }

  TEST_CASE("a plain thread's errno survives waiting for a fiber") {
    runtime rt({.workers = 1});
    int inside = -1;
    write_errno(31);
    rt.run([&] {
      inside = read_errno();
      write_errno(77);
    });
    CHECK(inside == 0);
    CHECK(read_errno() != 77);
  }
}

TEST_SUITE("context.float") {
  TEST_CASE("the rounding mode belongs to the fiber, on every worker") {
    static constexpr std::array<int, 4> modes{FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    runtime rt({.workers = 2});
    shuttle s(rt);
    constexpr int fibers = 8;
    std::array<int, fibers> wrong{};
    rt.run([&] {
      std::array<fiber, fibers> all;
      for (std::size_t i = 0; i != fibers; ++i)
        all[i] = fiber([&, i] {
          const int mode = modes[i % modes.size()];
          std::fesetround(mode);
          for (int round = 0; round != 20; ++round) {
            if (round % 2 == 0) this_fiber::yield();
            else s.move_on();
            volatile double one = 1.0, three = 3.0;
            volatile long double long_one = 1.0L, long_three = 3.0L;
            const bool up = one / three > 0.333333333333333314829616256247390992939472198486328125;
            const bool negative_up = -one / three > -0.33333333333333334;
            const bool long_up = long_one / long_three * three >= 1.0L;
            // Divided, then multiplied by three: at least one only when one of both was rounded up.
            if (std::fegetround() != mode || up != (mode == FE_UPWARD)) ++wrong[i];
            if (negative_up && mode == FE_DOWNWARD) ++wrong[i];
            if (long_up != (mode == FE_UPWARD || mode == FE_TONEAREST)) ++wrong[i];
          }
        });
      for (fiber& one : all) one.join();
    });
    CHECK(wrong == std::array<int, fibers>{});
  }

  TEST_CASE("a fiber starts with the default rounding mode, not its starter's") {
    with_workers([](runtime& rt) {
      int child_mode = -1, mine = -1;
      rt.run([&] {
        std::fesetround(FE_UPWARD);
        fiber child([&] { child_mode = std::fegetround(); });
        child.join();
        mine = std::fegetround();
      });
      CHECK(child_mode == FE_TONEAREST);
      CHECK(mine == FE_UPWARD);
    });
  }

  TEST_CASE("a fiber that ends leaves no rounding mode to its successor") {
    runtime rt({.workers = 1});
    int successor = -1;
    rt.run([&] {
      fiber([] { std::fesetround(FE_UPWARD); }).join();
      fiber([&] { successor = std::fegetround(); }).join();
    });
    CHECK(successor == FE_TONEAREST);
    CHECK(rt.run([] { return std::fegetround(); }) == FE_TONEAREST);
  }
}

TEST_SUITE("context.registers") {
  TEST_CASE("live values survive yields and migrations") {
    runtime rt({.workers = 2});
    shuttle s(rt);
    constexpr int fibers = 8;
    std::array<int, fibers> wrong{};
    rt.run([&] {
      std::array<fiber, fibers> all;
      for (std::size_t n = 0; n != fibers; ++n)
        all[n] = fiber([&, n] {
          std::uint64_t a = n, b = n * 3, c = n * 5, d = n * 7, e = n * 11, f = n * 13, g = n * 17;
          double x = static_cast<double>(n), y = x * 2;
          for (std::uint64_t round = 1; round != 50; ++round) {
            asm volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f), "+r"(g));
            if (round % 3 == 0) s.move_on();
            else this_fiber::yield();
            asm volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f), "+r"(g));
            ++a, ++b, ++c, ++d, ++e, ++f, ++g, x += 1, y += 1;
            const double expected = static_cast<double>(n) + static_cast<double>(round);
            if (a != n + round || b != n * 3 + round || c != n * 5 + round || d != n * 7 + round ||
                e != n * 11 + round || f != n * 13 + round || g != n * 17 + round ||
                x != expected || y != expected + static_cast<double>(n))
              ++wrong[n];
          }
        });
      for (fiber& one : all) one.join();
    });
    CHECK(wrong == std::array<int, fibers>{});
  }
}
