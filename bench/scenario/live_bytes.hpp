// SPDX-License-Identifier: Apache-2.0
//
// How many bytes a fiber has on its stack while it waits: frames are put above the wait until there are as many.
// Not on segmented stacks, whose frames are not one below the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace bench {

[[gnu::noinline]] inline void call_below(std::uintptr_t address, void (*f)(void*), void* argument) {
  char frame[32];
  asm volatile("" : "+r"(f) : "r"(frame) : "memory");  // f is unknown: no clone with it inside
  if (reinterpret_cast<std::uintptr_t>(frame) <= address) f(argument);
  else call_below(address, f, argument);
  asm volatile("" : : "r"(frame) : "memory");  // still needed here: no tail call
}

/// Calls f below frames of `bytes` in all, to some tens. What waits in f, and what called this, come on top.
template <class F>
[[gnu::noinline]] void with_live_bytes(std::size_t bytes, F&& f) {
  const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
  call_below(
      here - bytes, [](void* argument) { (*static_cast<std::remove_reference_t<F>*>(argument))(); },
      &f);
}

}  // namespace bench
