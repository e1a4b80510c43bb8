// SPDX-License-Identifier: Apache-2.0
//
// What happens when a fiber runs off its stack: the process says which fiber, where, with how large a
// stack, shows the trace, and dies of the signal.
//
// Idea: a touch of a guard page raises SIGSEGV; the handler runs on the thread's signal stack and finds
// the slice from the address alone (arena_table.hpp). It allocates nothing, takes no lock and writes
// with write(2). Faults elsewhere belong to whoever handled the signal before.
//
// Segments (platform/split_stack.hpp): split code never reaches the guard below one, so what does is
// code that was not compiled for them, and the remedy is another one. Whether a guard is a segment's is
// not read from memory, which may be another fiber's or damaged: the limit word of the interrupted thread
// tells where its segment is, by arithmetic alone. Guards of other segments than that are hit by stray
// pointers only.
//
// Not caught: a frame that is larger than the guard page may step over it and write into the stack
// below. Code with such frames needs -fstack-clash-protection, which touches every page on the way.
// Without a guard page (canary mode) the overflow is found when the slice is released.
#pragma once

#include "stack/slice_layout.hpp"

#include <cstdint>

namespace tendril::detail {

/// Whether the thread that asks is running on the stack it asks about.
enum class stack_use : std::uint8_t { unknown, current, other };

struct fiber_description {
  const char* name = nullptr;          ///< null: none
  std::uint64_t id = 0;                ///< 0: unknown
  stack_use use = stack_use::unknown;  ///< unknown: guessed from the stack pointer
};

/// Fills in whose stack it is. Called in a signal handler: no locks, no allocation. The slice need
/// not be in use.
using describe_stack_fn = void (*)(const stack_slice& slice, fiber_description& out) noexcept;
void set_describe_stack(describe_stack_fn) noexcept;

/// Returns the limit word of the interrupted code of this thread (0: it is on no segment), and fills in
/// which fiber runs it. Called in a signal handler.
using describe_running_fn = std::uintptr_t (*)(fiber_description& out) noexcept;
void set_describe_running(describe_running_fn) noexcept;

/// Installs the handler, once a process; every thread that runs fibers also needs a
/// platform::signal_stack. False when the system refuses.
bool install_overflow_handler() noexcept;

/// Says that the slice's stack overflowed some time before, and aborts.
[[noreturn]] void report_broken_canary(const stack_slice& slice) noexcept;

/// Says that the fiber of the small segment at `base` ran over its end (segment_canary.hpp), and aborts.
/// Names it if it is the caller's.
[[noreturn]] void report_broken_segment(const std::byte* base) noexcept;

}  // namespace tendril::detail
