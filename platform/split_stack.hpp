// SPDX-License-Identifier: Apache-2.0
//
// The contract of segmented stacks: what compilers' split prologues (-fsplit-stack), the runtime's
// `__morestack` and the allocator of segments agree on. Backend: x86_64/morestack.S.
//
// A prologue compares the stack pointer, less its frame, with the *limit word* of the thread
// (%fs:0x70 on x86-64) and calls __morestack when it is below. The word is all that a flow of control
// carries: the switch saves and restores it. 0 means no limit: plain threads, reserved stacks.
//
// A segment is a block of 2^n bytes, aligned to its own size, with its header at its very end:
//
//     base (multiple of 2^n)                                                    base + 2^n
//     | guard | reserve: no frame of split code | frames, grow down    first_sp | segment |
//             | but what unsplit callees need   |limit
//
// The lowest five bits of a limit word are a tag: n - 11, so that the header is found from the word
// alone (limits are multiples of 32); native_tag marks the native stack of a thread, whose header is
// thread_stacks::native.
//
// Invariants
//  1. segment::next is free: no live frame is on it or beyond it. It is kept while its fiber runs, so
//     that a loop that crosses the edge pays no allocation, and given back when the fiber parks.
//  2. The limit word is changed before the stack pointer on the way to a new segment, and after it on the
//     way back: a signal handler between the two finds a limit whose `next` is free.
//  3. Slow paths run on thread_stacks::slow_top, never on a fiber's stack, and grow no stack themselves.
#pragma once

#include <tendril/config.hpp>

#include <cstddef>
#include <cstdint>

namespace tendril::platform {

struct segment {
  segment* next;            ///< the one that is entered next, or null
  std::uintptr_t limit;     ///< tagged
  std::byte* first_sp;      ///< 16-byte aligned
  std::size_t room;         ///< first_sp - limit: the largest frame with its arguments
  segment* previous;        ///< the one this was entered from; null for a fiber's first
  void* owner;              ///< the fiber's control block
  std::size_t total_bytes;  ///< of this and all before it
  std::uint8_t shift;       ///< n
  bool pinned;              ///< frames on a thread's native stack lie before it
};
static_assert(sizeof(segment) == 64 && offsetof(segment, limit) == 8 &&
                  offsetof(segment, first_sp) == 16 && offsetof(segment, room) == 24,
              "morestack.S knows these");

inline constexpr unsigned smallest_segment_shift = 11;
inline constexpr std::uintptr_t limit_tag_mask = 31;
inline constexpr std::uintptr_t native_tag = 31;

/// What a worker thread keeps for the fibers it runs. All null on other threads.
struct thread_stacks {
  std::byte* slow_top;    ///< of a stack for the runtime's slow paths alone
  std::byte* native_top;  ///< where native_call starts; the thread's own stack, below slow_top's 64 KiB
  segment* native;        ///< header of the native stack; its limit is tagged native_tag. Its next is
                          ///< not null while a pinned segment may be in use (see segment::pinned)
};

extern "C" {
/// Address it by name only from code that cannot be interrupted by a switch (compilers keep
/// addresses of thread-locals across calls), or by the accessor.
extern TENDRIL_API __thread thread_stacks tendril_thread_stacks
    __attribute__((tls_model("initial-exec")));

/// Called on slow_top by __morestack: the next segment, `previous` being the one that is left, with room
/// for `bytes`. `foreign`: for a callee that was not compiled for segments. Never null.
segment* tendril_next_segment(segment* previous, std::size_t bytes, bool foreign) noexcept;
}

/// Room above the limit with which a call into unsplit code stays where it is; the reserve comes on top.
inline constexpr std::size_t foreign_room = std::size_t{16} << 10;

/// The header of the segment that a limit word other than 0 belongs to.
inline segment* segment_of(std::uintptr_t limit) noexcept {
  const std::uintptr_t tag = limit & limit_tag_mask;
  if (tag == native_tag) return tendril_thread_stacks.native;
  const std::uintptr_t bytes = std::uintptr_t{1} << (smallest_segment_shift + tag);
  return reinterpret_cast<segment*>((limit | (bytes - 1)) + 1 - sizeof(segment));
}

/// The caller's limit word.
std::uintptr_t stack_limit() noexcept;

/// Whether the caller runs on the native stack of its thread, where native_call has brought it: it is
/// bound to the thread until it returns from there.
bool on_native_stack() noexcept;

}  // namespace tendril::platform
