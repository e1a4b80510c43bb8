// SPDX-License-Identifier: Apache-2.0
//
// The tasks of E14, in each model: `frames` calls deep, each frame with an object on a heap and an integer that are
// used after the innermost call has waited for a gate. Memory says which heap: make() gives what holds an object.
#pragma once

#include "bench/scenario/coroutine_gate.hpp"

#include <cstddef>
#include <memory>

namespace bench::e14 {

/// As large as a small object of .NET with one field and what each has.
struct object {
  explicit object(long v) noexcept : value(v) {}
  long value;
  object* first = nullptr;
  object* second = nullptr;
};

struct plain_memory {
  static std::unique_ptr<object> make(long value) { return std::make_unique<object>(value); }
};

/// The sum of a task of that many frames whose outermost is given `seed`.
constexpr long expected(long frames, long seed) noexcept {
  return 4 * (frames * seed + frames * (frames - 1) / 2);
}

/// The object is in use here, and may have been changed: else a compiler that knows what it was made with turns the
/// calls into a loop.
template <class Holder>
void use(const Holder& held) {
  asm volatile("" : : "r"(&*held) : "memory");
}

template <class Memory, class Wait>
[[gnu::noinline]] long descend(long frames, long seed, Wait& wait) {
  const auto held = Memory::make(seed);
  long mine = 3 * seed;
  asm volatile("" : "+r"(mine));  // a value that the compiler does not know how to make again
  long below = 0;
  if (frames == 1) wait();
  else below = descend<Memory>(frames - 1, seed + 1, wait);
  use(held);
  return below + held->value + mine;
}

template <template <class> class Task, class Memory>
Task<long> descend_as(long frames, long seed, coroutine_gate& gate) {
  const auto held = Memory::make(seed);
  long mine = 3 * seed;
  asm volatile("" : "+r"(mine));
  long below = 0;
  if (frames == 1) co_await gate.wait();
  else below = co_await descend_as<Task, Memory>(frames - 1, seed + 1, gate);
  use(held);
  co_return below + held->value + mine;
}

/// The outermost frame: what becomes of the sum.
template <template <class> class Task, class Memory>
Task<void> run_as(long frames, long seed, coroutine_gate& gate, long& sum) {
  sum += co_await descend_as<Task, Memory>(frames, seed, gate);
}

}  // namespace bench::e14
