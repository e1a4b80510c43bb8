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
// The lowest five bits of a limit word are a tag: n - 10, so that the header is found from the word
// alone (limits are multiples of 32); 0 marks the native stack of a thread, whose header is
// thread_stacks::native. So one test finds both who has no limit and who is on the native stack already:
// native_call leaves both where they are.
//
// Invariants
//  1. segment::next is free: no live frame is on it or beyond it. It is kept while its fiber runs, so
//     that a loop that crosses the edge pays no allocation, and given back when the fiber parks.
//  2. The limit word is changed before the stack pointer on the way to a new segment, and after it on the
//     way back: a signal handler between the two finds a limit whose `next` is free.
//  3. Slow paths run on thread_stacks::slow_top, never on a fiber's stack, with no limit in force: they
//     may be compiled either way, and grow nothing themselves.
#pragma once

#include <tendril/config.hpp>

#include <cstddef>
#include <cstdint>

namespace tendril::platform {

struct segment {
  segment* next;         ///< the one that is entered next, or null
  std::uintptr_t limit;  ///< tagged
  std::byte* first_sp;   ///< 16-byte aligned
  std::size_t room;      ///< first_sp - limit: the largest frame with its arguments
  segment* previous;     ///< the one this was entered from; null for a fiber's first
  void* owner;           ///< the fiber's control block; null for a thread's native stack
  void* dynamic;         ///< what __morestack_allocate_stack_space gave to frames on it
  std::uint32_t total;   ///< size of this and all before it, in units of 2 KiB
  std::uint8_t shift;    ///< n
  std::uint8_t pinned;   ///< frames on a thread's native stack lie before it
};
static_assert(sizeof(segment) == 64 && offsetof(segment, limit) == 8 &&
                  offsetof(segment, first_sp) == 16 && offsetof(segment, room) == 24 &&
                  offsetof(segment, previous) == 32 && offsetof(segment, owner) == 40 &&
                  offsetof(segment, total) == 56 && offsetof(segment, shift) == 60 &&
                  offsetof(segment, pinned) == 61,
              "morestack.S knows these");

inline constexpr unsigned smallest_segment_shift = 11;
inline constexpr unsigned smallest_segment_tag = 1;
inline constexpr std::uintptr_t limit_tag_mask = 31;
inline constexpr std::uintptr_t native_tag = 0;
/// The segment that follows a fiber's first, and on which most calls into unsplit code run: address
/// space, of which only what is touched takes memory.
inline constexpr unsigned standard_segment_shift = 17;

/// What a worker thread keeps for the fibers it runs. All null on other threads.
struct thread_stacks {
  std::byte* slow_top;    ///< of a stack for the runtime's slow paths alone
  std::byte* native_top;  ///< where native_call starts: the thread's own stack, 64 KiB further down
  segment* native;        ///< header of the native stack; its limit is tagged native_tag
  segment* spare;         ///< standard segments, ready to be entered; linked by next
  std::size_t spares;
  /// The native stack's, for who comes from a segment; 0 once a pinned segment may be in use (see
  /// segment::pinned): then it must be looked whether the caller stands on one.
  std::uintptr_t native_limit;
};
static_assert(offsetof(thread_stacks, native_top) == 8 && offsetof(thread_stacks, native) == 16 &&
                  offsetof(thread_stacks, spare) == 24 && offsetof(thread_stacks, spares) == 32 &&
                  offsetof(thread_stacks, native_limit) == 40,
              "morestack.S and native_stack.hpp know these");

extern "C" {
/// Address it by name only from code that cannot be interrupted by a switch (compilers keep
/// addresses of thread-locals across calls), or by the accessor.
extern TENDRIL_API __thread thread_stacks tendril_thread_stacks
    __attribute__((tls_model("initial-exec")));

/// Called on slow_top by __morestack: the segment to go to from the one of `limit`, with room for
/// `bytes`, linked as its next. Ends the process when there is none.
segment* tendril_next_segment(std::uintptr_t limit, std::size_t bytes) noexcept;

/// Whether the calling fiber has frames on its thread's native stack: it cannot be switched away from. Only
/// on a segmented fiber.
bool tendril_on_pinned_stack() noexcept;

/// Gives back the segments that the caller holds beyond the one it stands on. Cheap when there are none.
void tendril_give_back_segments() noexcept;
/// Called by it on slow_top.
void tendril_release_segments(std::uintptr_t limit) noexcept;

/// Called on slow_top for alloca and variable-length arrays that do not fit: memory that lives as long as
/// the frame at `sp`. Ends the process when there is none.
void* tendril_dynamic_space(std::uintptr_t limit, std::size_t bytes, void* sp) noexcept;
}

/// Room above the limit with which a call into unsplit code stays where it is; the reserve comes on top.
inline constexpr std::size_t foreign_room = std::size_t{16} << 10;
static_assert(native_tag == 0 && smallest_segment_tag == 1 && standard_segment_shift == 17 &&
                  foreign_room == 16 * 1024,
              "morestack.S knows these");

/// The size of the segments whose limit words have this tag, which is not native_tag.
inline constexpr std::size_t segment_bytes(std::uintptr_t tag) noexcept {
  return std::size_t{1} << (smallest_segment_shift - smallest_segment_tag + tag);
}
inline constexpr std::uintptr_t segment_tag(unsigned shift) noexcept {
  return shift - smallest_segment_shift + smallest_segment_tag;
}

/// The header of the segment that a limit word other than 0 belongs to.
inline segment* segment_of(std::uintptr_t limit) noexcept {
  const std::uintptr_t tag = limit & limit_tag_mask;
  if (tag == native_tag) return tendril_thread_stacks.native;
  const std::uintptr_t bytes = segment_bytes(tag);
  return reinterpret_cast<segment*>((limit | (bytes - 1)) + 1 - sizeof(segment));
}

/// The caller's limit word.
std::uintptr_t stack_limit() noexcept;

/// Whether the caller runs on the native stack of its thread, where native_call has brought it: it is
/// bound to the thread until it returns from there.
bool on_native_stack() noexcept;

/// Whether the linker made the split function at `code` ask for the room that unsplit callees need.
bool prologue_was_adjusted(const void* code) noexcept;

/// Before the first segment: what the slow paths must save of the vector registers, and what must not be
/// done for the first time on a segment. Again: nothing changes.
void prepare_split_stacks() noexcept;

}  // namespace tendril::platform
