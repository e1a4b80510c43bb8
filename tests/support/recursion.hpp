// SPDX-License-Identifier: Apache-2.0
//
// Running off a stack, by frames of some 250 bytes that no optimizer turns into a loop.
#pragma once

namespace tendril::test {

inline volatile bool recurse_forever = true;
inline volatile int recursion_sink = 0;

#if defined(__clang__)
__attribute__((noinline, disable_tail_calls))
#else
__attribute__((noinline, optimize("no-optimize-sibling-calls")))
#endif
inline int
recurse(int depth) {
  volatile char frame[200];
  frame[0] = static_cast<char>(depth);
  if (!recurse_forever) return depth;
  const int below = recurse(depth + 1);
  recursion_sink = below;
  return below + frame[0];
}

/// Does not return.
inline void run_off_the_stack() { recursion_sink = recurse(0); }

}  // namespace tendril::test
