// SPDX-License-Identifier: Apache-2.0
//
// Every arena of the process, so that any address can be told from a stack's: by the SIGSEGV handler,
// by the sources of slices and segments, by inspection.
//
// Idea: a fixed array of words. An arena is aligned to 2 MiB at least, so one word holds its base, its
// size class and its size: a reader needs nothing but the word, never a pointer to something that may
// be unmapped meanwhile. Everything about a slice then follows from its address (slice_layout.hpp); an
// arena whose class is small_segment_class is one of slabs (small_segment_layout.hpp).
//
// Invariants
//  1. A word is either empty, claimed (being filled in) or complete; it changes by one store.
//  2. Words at or past used_ are empty. used_ never decreases; emptied words are used again.
//  3. An arena's entry exists while any of its slices can be in use.
//
// Who may call what: find_stack, find_arena from anywhere, signal handlers included; add, remove from
// any thread. Rejected: a tree (needs a lock, or reclamation, that a signal handler cannot take); a
// table that grows (the fixed one is 256 KiB of untouched zero pages and good for 16 TiB of stacks).
#pragma once

#include "stack/slice_layout.hpp"
#include "stack/small_segment_layout.hpp"

#include <cstddef>

namespace tendril::detail {

/// A slice and what surrounds it; or a small segment, of which `slice` is the whole. The guard of a
/// slab belongs to the lowest segment, the others have none: theirs is empty.
struct found_stack {
  stack_slice slice;
  std::byte* guard_low = nullptr;  ///< the guard is [guard_low, slice.low)
  unsigned size_class = 0;         ///< or small_segment_class
  std::byte* arena_low = nullptr;
  std::byte* arena_high = nullptr;

  bool in_guard(const void* address) const noexcept {
    return address >= guard_low && address < slice.low;
  }
  bool is_small_segment() const noexcept { return size_class == small_segment_class; }
  /// Of the slice, its guard included, or of the small segment.
  std::size_t bytes() const noexcept {
    return is_small_segment() ? small_segment_bytes : class_bytes(size_class);
  }
};

/// False when the address is in no arena, or in none of its slices. Async-signal-safe.
bool find_stack(const void* address, found_stack& out) noexcept;

inline constexpr std::size_t arena_alignment = std::size_t{2} << 20;

/// Enters an arena of 2^shift bytes with its owner's bookkeeping; false when the table is full. The class
/// is a size class or small_segment_class.
bool add_arena(std::byte* base, unsigned shift, unsigned size_class, void* owner) noexcept;
void remove_arena(std::byte* base) noexcept;
/// What add_arena was given as owner; null also when the arena is of another class. Only for addresses
/// the caller knows to stay valid.
void* find_arena(const void* address, unsigned size_class) noexcept;

}  // namespace tendril::detail
