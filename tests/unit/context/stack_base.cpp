// SPDX-License-Identifier: Apache-2.0
//
// A fiber's first frame: aligned as the ABI wants it, and the end of every walk up the stack.
#include "support/with_workers.hpp"

#include <doctest/doctest.h>

#include <unwind.h>
#include <array>
#include <cstddef>
#include <cstdint>

namespace {

using tendril::fiber;
using tendril::runtime;
using tendril::test::with_workers;
namespace this_fiber = tendril::this_fiber;

/// The compiler believes that an aligned local is aligned: hide where the address comes from.
[[gnu::noinline]] std::uintptr_t opaque(std::uintptr_t address) {
  asm volatile("" : "+r"(address));
  return address;
}

using vector_of_floats [[gnu::vector_size(16)]] = float;

struct misalignment {
  std::uintptr_t frame, by16, by64, vector;
  float sum;
};

/// With a misaligned stack the vector's aligned store faults.
[[gnu::noinline]] misalignment measure() {
  alignas(16) volatile char at16[16] = {};
  alignas(64) volatile char at64[64] = {};
  volatile vector_of_floats v = {1, 2, 3, 4};
  const vector_of_floats w = v + v;
  const auto low_bits = [](const volatile void* p, std::uintptr_t alignment) {
    return opaque(reinterpret_cast<std::uintptr_t>(p)) % alignment;
  };
  return {low_bits(__builtin_frame_address(0), 16), low_bits(at16, 16), low_bits(at64, 64),
          low_bits(&v, 16), w[0] + w[3]};
}

struct walk {
  int frames = 0;
  std::uintptr_t last_cfa = 0;
  bool upwards = true;
};

constexpr int too_many = 100;

_Unwind_Reason_Code step(_Unwind_Context* context, void* argument) {
  auto& w = *static_cast<walk*>(argument);
  const std::uintptr_t cfa = _Unwind_GetCFA(context);
  if (cfa < w.last_cfa) w.upwards = false;
  w.last_cfa = cfa;
  return ++w.frames == too_many ? _URC_NORMAL_STOP : _URC_NO_REASON;
}

[[gnu::noinline]] _Unwind_Reason_Code walk_up(int depth, walk& w) {
  if (depth == 0) {
    const _Unwind_Reason_Code code = _Unwind_Backtrace(&step, &w);
    asm volatile("" : : : "memory");  // no tail call
    return code;
  }
  const _Unwind_Reason_Code code = walk_up(depth - 1, w);
  asm volatile("" : : : "memory");
  return code;
}

}  // namespace

TEST_SUITE("context.stack_base") {
  TEST_CASE(
      "a fiber's stack is aligned at its start and after switches, for every colour of its top") {
    with_workers([](runtime& rt) {
      constexpr std::size_t fibers = 64;
      std::array<misalignment, fibers> first{}, later{};
      rt.run([&] {
        std::array<fiber, fibers> all;
        for (std::size_t i = 0; i != fibers; ++i)
          all[i] = fiber([&, i] {
            first[i] = measure();
            this_fiber::yield();
            later[i] = measure();
          });
        for (fiber& one : all) one.join();
      });
      for (const auto& where : {first, later})
        for (const misalignment& m : where) {
          CHECK(m.frame == 0);
          CHECK(m.by16 == 0);
          CHECK(m.by64 == 0);
          CHECK(m.vector == 0);
          CHECK(m.sum == 10.0F);
        }
    });
  }

  TEST_CASE("a walk up the stack ends at the fiber's base") {
    with_workers([](runtime& rt) {
      walk shallow, deep, after;
      _Unwind_Reason_Code shallow_end{}, deep_end{}, after_end{};
      rt.run([&] {
        fiber f([&] {
          shallow_end = walk_up(0, shallow);
          deep_end = walk_up(20, deep);
          this_fiber::yield();
          after_end = walk_up(20, after);
        });
        f.join();
      });
      CHECK(shallow_end == _URC_END_OF_STACK);
      CHECK(deep_end == _URC_END_OF_STACK);
      CHECK(after_end == _URC_END_OF_STACK);
      CHECK(shallow.frames >= 2);
      CHECK(deep.frames == shallow.frames + 20);
      CHECK(after.frames == deep.frames);
      CHECK(deep.upwards);
    });
  }
}
