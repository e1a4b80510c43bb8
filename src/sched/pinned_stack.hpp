// SPDX-License-Identifier: Apache-2.0
//
// this_fiber::pin: a tasklet calls a function on a stack of its own, and so keeps what is on it where others find it.
//
//     the slot                                   the own stack
//     +---------------------------+ high         +---------------------------+
//     | frames of the tasklet     |              | pinned_header: anchor     |
//     | call_pinned()             |              | frames of f, down         | <- ctx.sp while it waits
//     |   saved registers         | <- anchor    |                           |
//     | free                      |              |                           |
//     +---------------------------+ low          +---------------------------+
//
// The tasklet remains one. Its slot is taken by others while it waits and holds [anchor, high) again before it runs,
// because f may use what its callers have. Only where its slot begins to be free is told by the anchor instead of the
// saved stack pointer (slot_low()), and the frame's slice is the own stack's meanwhile: that of the code that runs.
//
// In a pin another one is a plain call, so a tasklet has at most one such stack.
//
// Invariant: flag::elsewhere is set after anchor and slice, and cleared before; who stops the thread between any two
// instructions (parked.hpp) finds what it needs. Everybody else looks at fibers that do not run.
//
// Rejected: keeping the slot for the time of f. Those bound to the same slot would wait, and the very fiber that f
// waits for may be one of them: a deadlock that comes and goes with the placement. Moving f's frames: pointers into
// them. A scope object instead of a function: its variables lie in the caller's frame. Deciding it at spawn alone:
// that exists, it is stack_kind::reserved.
#pragma once

#include "sched/fiber_core.hpp"
#include "stack/slice_layout.hpp"

#include <cstddef>

namespace tendril::detail {

/// Above the first frame of the own stack, where the frame's slice ends.
struct alignas(16) pinned_header {
  std::byte* anchor;
  stack_slice whole;  ///< with the header
};

/// Whether c is a tasklet that runs on a stack of its own.
inline bool is_elsewhere(const fiber_core& c) noexcept {
  return (c.flags.load(std::memory_order_relaxed) & flag::elsewhere) != 0;
}

/// c does not run, or is the caller, and is elsewhere.
inline const pinned_header& pinned_header_of(const fiber_core& c) noexcept {
  return *reinterpret_cast<const pinned_header*>(c.the_frame()->slice.high);
}

/// The frames of a tasklet that does not run are [this, top of the slot) in its slot, or will be again.
inline std::byte* slot_low(const fiber_core& c) noexcept {
  return is_elsewhere(c) ? pinned_header_of(c).anchor : static_cast<std::byte*>(c.ctx.sp);
}

}  // namespace tendril::detail
