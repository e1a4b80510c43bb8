// SPDX-License-Identifier: Apache-2.0
//
// Where things are in a slice. Everything follows from an address and the class, because every slice is
// aligned to its own size: nothing is looked up on the way from a warm slice to a fiber.
//
//     base (multiple of the size's bytes)                         base + bytes
//     | guard page |  usable stack, grows down            <- high | colour |
//     |            |low                                           | 0-1920 |
//
// Colour: tops that are a multiple of 16 KiB apart fall in the same few cache sets, and a thousand
// fibers that wake in turn evict each other's top frames (127 ns a switch pair against 66). So each
// top is moved down by a constant of its slice, 0, 128 ... 1920 bytes. Not more, so that a fiber
// parked shallow still touches a single page. 5 is coprime to 16: neighbours differ by several lines.
// Stacks of more than 64 KiB are for deep calls, which colours take from the first page: a call of 3,700 bytes, as
// one that formats is, commits another page in each fiber whose top is further down. Those have 0 or 64 bytes. With the
// other colours a thousand of hiredis' clients had three pages each, not two.
//
// Spread: what holds for cache sets holds for the sets of the translation buffers, which are chosen by the lowest bits
// of a page's number. Those of the top pages of aligned slices are all the same: of 64 KiB, some 256 fibers can take
// turns before each switch walks the page tables (with 1,000 pages 64 KiB apart, 19 ns an access against 5 with
// pages 68 KiB apart). So each size up to 512 KiB has a second class, the *spread* one, whose slices are shifted, 32
// at a time, by a number of pages:
//
//     group (multiple of 32 slices)
//     |<- shift ->| slice 0 | slice 1 | ...      | slice 30 | rest |      shift + rest = one slice
//     |    k pages|                                         |      |      k: the group's number, modulo a slice's pages
//
// A 32nd of the address space is not used; memory and page tables are as before. Reserved stacks have spread classes.
// Segments have not, as split code finds their headers by alignment, and slots have not, of which there are few.
// Rejected: to move the tops down by pages, as colours do by lines: a stack of 64 KiB has none to spare.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace tendril::detail {

/// The usable part of one stack; `high` is where the first frame goes, 64-byte aligned.
struct stack_slice {
  std::byte* low = nullptr;
  std::byte* high = nullptr;

  explicit operator bool() const noexcept { return high != nullptr; }
  bool operator==(const stack_slice&) const noexcept = default;
};

/// 16 KiB, 32 ... 8 MiB are the classes 0 ... 9.
inline constexpr unsigned size_class_count = 10;
inline constexpr unsigned no_size_class = size_class_count;
inline constexpr unsigned smallest_class_shift = 14;

/// Of the class besides: spread. Every function here takes either kind, if it is not said otherwise.
inline constexpr unsigned spread_bit = 16;
inline constexpr unsigned spread_class_count = 6;
/// One more than the largest class.
inline constexpr unsigned class_count = spread_bit + spread_class_count;
/// The size of a page where slices are spread; other systems have none that are.
inline constexpr std::size_t spread_page = 4096;

constexpr bool is_spread(unsigned size_class) noexcept { return (size_class & spread_bit) != 0; }
/// The spread class of that size, or itself if there is none. Of a class that is not spread.
constexpr unsigned spread_class(unsigned size_class, std::size_t page) noexcept {
  return size_class < spread_class_count && page == spread_page ? size_class | spread_bit
                                                                : size_class;
}
/// log2 of how many slices one group has, the missing one included.
inline constexpr unsigned group_shift = 5;

constexpr unsigned class_shift(unsigned size_class) noexcept {
  return smallest_class_shift + (size_class & (spread_bit - 1));
}
constexpr std::size_t class_bytes(unsigned size_class) noexcept {
  return std::size_t{1} << class_shift(size_class);
}

/// The smallest class of at least `bytes`, guard and colour included, in which a guard page leaves
/// room for a stack; no_size_class when there is none.
constexpr unsigned size_class_for(std::size_t bytes, std::size_t page) noexcept {
  if (bytes < 2 * page) bytes = 2 * page;
  if (bytes > class_bytes(size_class_count - 1)) return no_size_class;
  const auto width = static_cast<unsigned>(std::bit_width(bytes - 1));
  return width <= smallest_class_shift ? 0 : width - smallest_class_shift;
}

inline constexpr unsigned colour_count = 16;
inline constexpr std::size_t colour_step = 128;
/// Of classes larger than this one.
inline constexpr std::size_t largest_coloured_bytes = std::size_t{64} << 10;
inline constexpr unsigned few_colours = 2;
inline constexpr std::size_t few_colours_step = 64;

constexpr std::size_t slice_colour(std::uintptr_t base, unsigned size_class) noexcept {
  const std::uintptr_t number = base >> class_shift(size_class);
  if (class_bytes(size_class) > largest_coloured_bytes)
    return number % few_colours * few_colours_step;
  return number * 5 % colour_count * colour_step;
}

/// By how much the slices of the group that the address is in are shifted.
constexpr std::size_t group_spread(std::uintptr_t address, unsigned size_class) noexcept {
  if (!is_spread(size_class)) return 0;
  const std::uintptr_t group = address >> (class_shift(size_class) + group_shift);
  return group * spread_page & (class_bytes(size_class) - spread_page);
}

/// The base of the slice that the byte at `inside` belongs to.
inline std::byte* slice_base(std::byte* inside, unsigned size_class) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(inside);
  const std::size_t spread = group_spread(at, size_class);
  return inside - ((at - spread) & (class_bytes(size_class) - 1));
}

/// Whether the address, within an arena of the class, is in no slice.
constexpr bool between_groups(std::uintptr_t address, unsigned size_class) noexcept {
  constexpr std::uintptr_t last = (1U << group_shift) - 1;
  // In front of a group: the last but for the shift of the group before.
  return is_spread(size_class) &&
         ((address - group_spread(address, size_class)) >> class_shift(size_class) & last) == last;
}

/// What the arenas of the class are multiples of, and aligned to.
constexpr std::size_t arena_grain(unsigned size_class) noexcept {
  return class_bytes(size_class) << (is_spread(size_class) ? group_shift : 0);
}

inline std::byte* slice_high(std::byte* base, unsigned size_class) noexcept {
  return base + class_bytes(size_class) -
         slice_colour(reinterpret_cast<std::uintptr_t>(base), size_class);
}

inline stack_slice slice_at(std::byte* base, unsigned size_class,
                            std::size_t guard_bytes) noexcept {
  return {base + guard_bytes, slice_high(base, size_class)};
}

}  // namespace tendril::detail
