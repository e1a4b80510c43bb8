// SPDX-License-Identifier: Apache-2.0
//
// A call chain of a given depth, for what is done at its bottom.
#pragma once

namespace bench {

/// Calls f at the bottom of `depth` frames that the compiler must keep.
template <class F>
[[gnu::noinline]] void recurse(long depth, F& f) {
  char frame[32];
  asm volatile("" : : "r"(frame) : "memory");
  if (depth == 0) f();
  else recurse(depth - 1, f);
  asm volatile("" : : "r"(frame) : "memory");  // still needed here: no tail call
}

}  // namespace bench
