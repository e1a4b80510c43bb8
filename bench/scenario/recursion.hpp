// SPDX-License-Identifier: Apache-2.0
//
// A call chain of a given depth, for what is done at its bottom.
#pragma once

namespace bench {

/// The frames of the chain are small and alike whatever f does, and hold nothing of f: on segmented stacks a
/// function that calls unsplit code is entered otherwise than one that does not.
[[gnu::noinline]] inline void recurse_to(long depth, void (*f)(void*), void* argument) {
  char frame[32];
  asm volatile("" : "+r"(f) : "r"(frame) : "memory");  // f is unknown: no clone with it inside
  if (depth == 0) f(argument);
  else recurse_to(depth - 1, f, argument);
  asm volatile("" : : "r"(frame) : "memory");  // still needed here: no tail call
}

/// Calls f at the bottom of `depth` frames that the compiler must keep.
template <class F>
void recurse(long depth, F& f) {
  recurse_to(
      depth, [](void* argument) { (*static_cast<F*>(argument))(); }, &f);
}

}  // namespace bench
