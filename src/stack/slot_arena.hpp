// SPDX-License-Identifier: Apache-2.0
//
// Address space for the slots that tasklets run in: one reservation, cut into slices of one class from the
// bottom up. Laid out, guarded and entered in the table of arenas as any stack is, so that an overflow is
// reported as any other.
//
// Unlike a stack a slot is never freed: who has run in it is bound to its addresses. So there is no free list here,
// and a slot is known by its index. Its memory may be given back while nobody's bytes are in it.
//
// Who may call what: cut() under the caller's lock; the rest from any thread.
#pragma once

#include "stack/slice_layout.hpp"

#include <tendril/stack.hpp>

#include <cstddef>
#include <cstdint>

namespace tendril::detail {

class slot_arena {
 public:
  /// Reserves nothing yet. `most` is rounded up to a power of two.
  slot_arena(unsigned size_class, unsigned most, stack_guard mode) noexcept;
  ~slot_arena();
  slot_arena(const slot_arena&) = delete;
  slot_arena& operator=(const slot_arena&) = delete;

  /// One slice more, the next index's; an empty one when there are `most` or the system has no address space left.
  stack_slice cut() noexcept;
  unsigned most() const noexcept { return most_; }
  unsigned size_class() const noexcept { return size_class_; }

  /// The index of the slot that the address is in; `none` if it is in none.
  static constexpr unsigned none = ~0U;
  unsigned index_of(const void* address) const noexcept {
    const auto offset = reinterpret_cast<std::uintptr_t>(address) - first_;
    return offset < extent_ ? static_cast<unsigned>(offset >> class_shift(size_class_)) : none;
  }

  /// Gives the memory of a slot back, that of whole pages below `top`.
  void discard(const stack_slice& slice) const noexcept;
  /// False: its stack has run over the canary that it has for a guard.
  bool guard_intact(const stack_slice& slice) const noexcept;

 private:
  const unsigned size_class_;
  unsigned most_;
  const stack_guard mode_;
  std::byte* base_ = nullptr;
  std::uintptr_t first_ = 0;
  std::size_t extent_ = 0;
  unsigned cut_ = 0;
  unsigned mprotect_guards_ = 0;
  bool canaries_ = false;
};

}  // namespace tendril::detail
