// SPDX-License-Identifier: Apache-2.0
//
// Where things are in a slab of small segments: everything follows from an address.
//
//     slab (multiple of 64 KiB)                                                  slab + 64 KiB
//     | guard page | segment 0 | segment 1 | segment 2 | ...            | segment 29 |
//                  |<----- a 4-KiB page -->|
//
//     base (multiple of 2 KiB)                                              base + 2 KiB
//     | canary 64 | reserve, frames (grow down)    first_sp | colour | platform::segment |
//
// Memory is what small segments are for: two share each page, and the guard is address space only.
// A segment is therefore guarded by 64 bytes of a pattern, since the one below it belongs to another
// fiber; the page below all of them catches what runs far.
//
// Colour: tops lie 2 KiB apart, so that without it they fall in 2 of the 32 groups of L1 sets, and a
// switch's loads look to the processor like the last switch's stores (which it compares by the lowest
// 12 bits). Round robin over 1,000 segments, three lines each, in one run: 9.0 ns without, 2.6 with
// five colours; with each address depending on the last one, in scattered order 11.5 against 6.7, in
// order of address 4.6 against 5.0 (there the prefetcher hides everything, and colours disturb it: over
// 4,000 segments 5.5 against 9.6). Eight colours gain nothing more and cost another 96 bytes.
#pragma once

#include "platform/split_stack.hpp"

#include <cstddef>
#include <cstdint>

namespace tendril::detail {

inline constexpr std::size_t small_segment_bytes = 2048;
static_assert(small_segment_bytes == std::size_t{1} << platform::smallest_segment_shift);

inline constexpr std::size_t segment_slab_bytes = std::size_t{64} << 10;

/// What the arena table calls arenas of slabs; beyond the size classes of slices.
inline constexpr unsigned small_segment_class = 32;

/// How many segments are in a slab: 30 with 4-KiB pages; 0 where pages are too large for any.
constexpr unsigned segments_per_slab(std::size_t page) noexcept {
  return page >= segment_slab_bytes
             ? 0
             : static_cast<unsigned>((segment_slab_bytes - page) / small_segment_bytes);
}

inline std::byte* slab_of(std::byte* inside) noexcept {
  return inside - (reinterpret_cast<std::uintptr_t>(inside) & (segment_slab_bytes - 1));
}

/// By how many bytes the first frame should lie below the segment's header: 0, 64 ... 256.
inline std::size_t small_segment_colour(const std::byte* base) noexcept {
  // By pages: two segments of one page differ by half of the sets already.
  return reinterpret_cast<std::uintptr_t>(base) / (2 * small_segment_bytes) % 5 * 64;
}

inline platform::segment* small_segment_header(std::byte* base) noexcept {
  return reinterpret_cast<platform::segment*>(base + small_segment_bytes -
                                              sizeof(platform::segment));
}

}  // namespace tendril::detail
