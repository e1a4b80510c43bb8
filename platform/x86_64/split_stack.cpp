// SPDX-License-Identifier: Apache-2.0
#include "platform/split_stack.hpp"

#include <cstdint>

extern "C" {
// Public in a shared library: native_call, inlined into users' code, reads it.
TENDRIL_API constinit __thread tendril::platform::thread_stacks tendril_thread_stacks
    __attribute__((used)){};

bool tendril_stack_pinned(std::uintptr_t limit) noexcept {
  return tendril::platform::segment_of(limit)->pinned != 0;
}
}

namespace tendril::platform {

std::uintptr_t stack_limit() noexcept {
  std::uintptr_t limit;
  asm volatile("movq %%fs:0x70, %0" : "=r"(limit));
  return limit;
}

bool on_native_stack() noexcept { return (stack_limit() & limit_tag_mask) == native_tag; }

}  // namespace tendril::platform
