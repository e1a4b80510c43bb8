// SPDX-License-Identifier: Apache-2.0
//
// The first frame of a stack, as switch.S expects it; and what switch.S wants to know of the processor.
#include "platform/switch.hpp"

#include <x86intrin.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" {
void tendril_switch_start();

/// Read by switch.S. A byte that several threads may set, to the same value but for noise; either is right.
__attribute__((visibility("hidden"))) unsigned char tendril_ldmxcsr_is_cheap = 0;
}

namespace tendril::platform {
namespace {

struct first_frame {
  std::uint32_t mxcsr;
  std::uint16_t x87;
  std::uint16_t unused;
  std::uintptr_t limit;
  void* r15;
  void* r14;
  void* r13;
  void* r12;
  void* rbx;
  void* rbp;
  void* rip;
  void* padding[2];  ///< never read
};
static_assert(offsetof(first_frame, limit) == 8 && offsetof(first_frame, rbx) == 48 &&
                  offsetof(first_frame, rip) == 64,
              "switch.S draws this layout");
static_assert((sizeof(first_frame) - 72) % 16 == 0,
              "the entry's call needs a 16-byte aligned stack");

// The values a Linux process starts with: all exceptions masked, round to nearest, 64-bit mantissa.
constexpr std::uint32_t default_mxcsr = 0x1F80;
constexpr std::uint16_t default_x87 = 0x037F;

/// Cycles of the time-stamp counter per ldmxcsr that changes a sticky flag.
std::uint64_t cycles_per_change() noexcept {
  constexpr int changes = 32;
  const std::uint32_t before = _mm_getcsr();
  const std::uint32_t flipped = before ^ _MM_EXCEPT_INEXACT;
  std::uint64_t best = ~std::uint64_t{0};
  for (int attempt = 0; attempt != 8; ++attempt) {
    const std::uint64_t start = __rdtsc();
    for (int i = 0; i != changes; i += 2) {
      asm volatile("ldmxcsr %0" : : "m"(flipped));
      asm volatile("ldmxcsr %0" : : "m"(before));
    }
    best = std::min<std::uint64_t>(best, __rdtsc() - start);
  }
  return best / changes;
}

/// Between the few of the fast ones and the hundred of the slow.
constexpr std::uint64_t cheap_cycles = 24;

}  // namespace

void prepare_switch(control_word_cost cost) noexcept {
  if (cost == control_word_cost::measure)
    cost = cycles_per_change() <= cheap_cycles ? control_word_cost::cheap : control_word_cost::dear;
  std::atomic_ref(tendril_ldmxcsr_is_cheap)
      .store(cost == control_word_cost::cheap ? 1 : 0, std::memory_order_relaxed);
}

void* make_context(void* top, entry_function entry, std::uintptr_t limit) noexcept {
  auto* frame = reinterpret_cast<first_frame*>(static_cast<std::byte*>(top) - sizeof(first_frame));
  frame->mxcsr = default_mxcsr;
  frame->x87 = default_x87;
  frame->unused = 0;
  frame->limit = limit;
  frame->r15 = frame->r14 = frame->r13 = frame->r12 = frame->rbp = nullptr;
  frame->rbx = reinterpret_cast<void*>(entry);
  frame->rip = reinterpret_cast<void*>(&tendril_switch_start);
  return frame;
}

void reset_control_words() noexcept {
  constexpr std::uint32_t sticky = _MM_EXCEPT_MASK;  // left alone, as by a switch
  const std::uint32_t mxcsr = _mm_getcsr();
  if ((mxcsr & ~sticky) != default_mxcsr) _mm_setcsr(default_mxcsr | (mxcsr & sticky));
  std::uint16_t x87;
  asm volatile("fnstcw %0" : "=m"(x87));
  if (x87 != default_x87) asm volatile("fldcw %0" : : "m"(default_x87));
}

}  // namespace tendril::platform
