// SPDX-License-Identifier: Apache-2.0
//
// The first frame of a stack, as switch.S expects it.
#include "platform/switch.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

extern "C" void tendril_switch_start();

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
  void* padding[2];
};
static_assert(offsetof(first_frame, limit) == 8 && offsetof(first_frame, rbx) == 48 &&
                  offsetof(first_frame, rip) == 64,
              "switch.S draws this layout");
static_assert((sizeof(first_frame) - 72) % 16 == 0,
              "the entry's call needs a 16-byte aligned stack");

// The values a Linux process starts with: all exceptions masked, round to nearest, 64-bit mantissa.
constexpr std::uint32_t default_mxcsr = 0x1F80;
constexpr std::uint16_t default_x87 = 0x037F;

}  // namespace

void* make_context(void* top, entry_function entry, std::uintptr_t limit) noexcept {
  auto* frame = reinterpret_cast<first_frame*>(static_cast<std::byte*>(top) - sizeof(first_frame));
  *frame = {};
  frame->mxcsr = default_mxcsr;
  frame->x87 = default_x87;
  frame->limit = limit;
  frame->rbx = reinterpret_cast<void*>(entry);
  frame->rip = reinterpret_cast<void*>(&tendril_switch_start);
  return frame;
}

}  // namespace tendril::platform
