// SPDX-License-Identifier: Apache-2.0
#include "platform/split_stack.hpp"

#include <cpuid.h>

#include <algorithm>
#include <cstdint>
#include <exception>

namespace tendril::platform {

extern "C" {
// Public in a shared library: native_call, inlined into users' code, reads it.
TENDRIL_API constinit __thread thread_stacks tendril_thread_stacks __attribute__((used)){};

// Read by the slow paths of morestack.S: which components xsave is asked for (0: fxsave is all there
// is) and how large the area is.
std::uint32_t tendril_vector_mask = 0;
std::uint32_t tendril_vector_bytes = 512 + 64;

std::uintptr_t tendril_native_limit(std::uintptr_t limit) noexcept {
  return segment_of(limit)->pinned != 0 ? 0 : tendril_thread_stacks.native->limit;
}
}

std::uintptr_t stack_limit() noexcept {
  std::uintptr_t limit;
  asm volatile("movq %%fs:0x70, %0" : "=r"(limit));
  return limit;
}

bool on_native_stack() noexcept {
  const std::uintptr_t limit = stack_limit();
  return limit != 0 && (limit & limit_tag_mask) == native_tag;
}

bool prologue_was_adjusted(const void* code) noexcept {
  // Of a small frame: "cmp %fs:0x70, %rsp" becomes "stc" (lld, gold), so that the jump is always taken.
  return *static_cast<const unsigned char*>(code) == 0xF9;
}

namespace {

/// What ends a fiber with an exception runs on its first segment: the C++ library's part of a catch clause. The
/// program's own calls are bound when it starts (cmake/segmented.cmake); those between shared libraries may
/// be bound at their first use, by code of the dynamic linker that saves all vector registers on the stack it
/// finds, more than a small segment has. So that use is here.
[[gnu::noinline]] void bind_exception_calls() noexcept {
  std::exception_ptr caught;
  try {
    throw 0;
  } catch (...) {
    caught = std::current_exception();
  }
}

}  // namespace

void prepare_split_stacks() noexcept {
  bind_exception_calls();
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_OSXSAVE) == 0) return;
  std::uint32_t enabled = 0, high = 0;
  asm volatile("xgetbv" : "=a"(enabled), "=d"(high) : "c"(0));
  // Arguments are in xmm, ymm and zmm registers: SSE, AVX, and the three parts of AVX-512.
  const std::uint32_t wanted = enabled & 0xE6;
  std::uint32_t bytes = 512 + 64;
  for (unsigned part = 2; part != 8; ++part)
    if ((wanted & (1U << part)) != 0) {
      __cpuid_count(0xD, part, a, b, c, d);
      bytes = std::max(bytes, a + b);
    }
  tendril_vector_bytes = bytes + 64;
  tendril_vector_mask = wanted;
}

}  // namespace tendril::platform
