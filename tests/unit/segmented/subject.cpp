// SPDX-License-Identifier: Apache-2.0
//
// What debugger and profiler are pointed at (tools.cpp): a segmented fiber, 60 frames deep in at least
// two segments. `once` comes to the bottom once; `spin` stays there for a while of the processor's time.
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <cstring>

namespace {
volatile long rounds;
}

extern "C" {

[[gnu::noinline]] void subject_bottom(long count) {
  for (long i = 0; i < count; ++i) rounds = rounds + 1;
}

[[gnu::noinline]] void subject_descend(int depth, long count) {
  volatile char frame[4000];
  asm volatile("" : : "r"(frame) : "memory");
  frame[0] = static_cast<char>(depth);
  if (depth == 0) subject_bottom(count);
  else subject_descend(depth - 1, count);
  frame[1] = frame[0];
}
}

int main(int argc, char** argv) {
  const long count = argc > 1 && std::strcmp(argv[1], "spin") == 0 ? 300'000'000 : 1;
  tendril::runtime_options options;
  options.workers = 1;
  options.stack.kind = tendril::stack_kind::segmented;
  tendril::runtime rt(options);
  rt.run([count] { subject_descend(59, count); });
}
