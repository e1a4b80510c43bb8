// SPDX-License-Identifier: Apache-2.0
//
// Segmented stacks: where __morestack gets segments and where they go.
//
// Idea: a fiber starts on a small segment (2 KiB). The first call that does not fit, or that goes into code
// which was not compiled for segments, moves to a *standard* segment, 128 KiB of address space; deeper
// ones double up to 8 MiB. Every worker thread keeps some standard segments ready, which __morestack takes
// without leaving assembly. A larger one, or a refill, is the slow path here: it runs on the thread's
// stack for slow paths and asks the thread's segment_supply for a stack slice, which comes guarded.
//
// Invariants: those of platform/split_stack.hpp, and
//  4. Spare segments belong to the thread, not to its worker, so that taking one needs no
//     synchronization wherever the fiber was stopped.
//  5. Whoever parks or ends gives back what is beyond its present segment: an idle fiber holds what it
//     stands on, and a loop that crosses an edge while it runs pays no allocation.
//
// Who may call what: thread_segments on the worker thread; the others on a fiber, or on the scheduler
// context for a fiber that does not run. tendril_next_segment and tendril_dynamic_space: __morestack.
//
// Rejected: 64 KiB standard segments (48 KiB in front of unsplit code: getaddrinfo wants more); a native
// stack per worker for the linker-adjusted calls (a callback that parks there would hold the worker;
// a borrowed segment moves with the fiber).
#pragma once

#include "platform/memory.hpp"
#include "platform/split_stack.hpp"
#include "stack/slice_layout.hpp"

#include <tendril/inspect.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace tendril::detail {

using platform::segment;

/// Where a thread's segments come from: its worker's cache of stacks.
class segment_supply {
 public:
  virtual stack_slice take_segment(unsigned size_class) noexcept = 0;
  virtual void give_segment(stack_slice slice, unsigned size_class) noexcept = 0;
  /// The most that one fiber's segments may take together.
  virtual std::size_t segment_limit() const noexcept = 0;

 protected:
  ~segment_supply() = default;
};

/// What a thread needs to run fibers on segmented stacks: a worker thread for as long as it lives, others
/// while they run one. Its own stack, below the caller, serves the slow paths and native_call. They nest: the
/// inner one is in force, and where the caller stands on a fiber's stack, it uses the part of the
/// thread's that the outer one has free.
class thread_segments {
 public:
  explicit thread_segments(segment_supply& supply) noexcept;
  /// `here`: what of `own` is in use begins there; null: at the caller's frame.
  thread_segments(segment_supply& supply, const platform::stack_bounds& own,
                  std::byte* here = nullptr) noexcept;
  ~thread_segments();
  thread_segments(const thread_segments&) = delete;
  thread_segments& operator=(const thread_segments&) = delete;

 private:
  void set_up(segment_supply& supply, const platform::stack_bounds& own, std::byte* here) noexcept;

  segment native_{};
  bool ready_ = false;
  segment_supply* former_supply_ = nullptr;
  platform::thread_stacks former_{};
};

/// Whether this build has them at all; a program may still not (segment_support.hpp).
inline constexpr bool segments_built = TENDRIL_SEGMENTED;

struct no_thread_segments {
  explicit no_thread_segments(segment_supply&) noexcept {}
  no_thread_segments(segment_supply&, const platform::stack_bounds&,
                     std::byte* = nullptr) noexcept {}
};
using thread_segments_if_built =
    std::conditional_t<segments_built, thread_segments, no_thread_segments>;

/// The header of the segment of `bytes` that the slice is of.
inline segment* segment_at_end(stack_slice slice, std::size_t bytes) noexcept {
  const auto inside = reinterpret_cast<std::uintptr_t>(slice.low) | (bytes - 1);
  return reinterpret_cast<segment*>(inside + 1 - sizeof(segment));
}

/// Writes the header of a fiber's first segment, of `bytes`; frames begin at first_sp, above which
/// `frame_bytes` are left for the caller.
segment* make_first_segment(stack_slice slice, std::size_t bytes, std::size_t frame_bytes,
                            void* owner) noexcept;

/// Before the first segment is given back whose fiber has ended: what alloca took, and the segments after
/// it, if the fiber left on one of them.
void free_what_follows(segment* first) noexcept;

/// What alloca took of the heap for frames on s.
void visit_dynamic_space(const segment* s, range_visitor visit);

/// How much of a segment lies below its limit, for unsplit callees that nobody could foresee.
constexpr std::size_t segment_reserve(unsigned shift) noexcept {
  if (shift == platform::smallest_segment_shift) return 768;
  const std::size_t half = (std::size_t{1} << shift) / 2;
  constexpr std::size_t most = std::size_t{32} << 10;
  return half < most ? half : most;
}

}  // namespace tendril::detail
