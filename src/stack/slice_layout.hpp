// SPDX-License-Identifier: Apache-2.0
//
// Where things are in a slice. Everything follows from an address and the size class, because every
// slice is aligned to its own size: nothing is looked up on the way from a warm slice to a fiber.
//
//     base (multiple of the class's bytes)                        base + bytes
//     | guard page |  usable stack, grows down            <- high | colour |
//     |            |low                                           | 0-1920 |
//
// Colour: tops that are a multiple of 16 KiB apart fall in the same few cache sets, and a thousand
// fibers that wake in turn evict each other's top frames (127 ns a switch pair against 66). So each
// top is moved down by a constant of its slice, 0, 128 ... 1920 bytes. Not more, so that a fiber
// parked shallow still touches a single page. 5 is coprime to 16: neighbours differ by several lines.
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

constexpr unsigned class_shift(unsigned size_class) noexcept {
  return smallest_class_shift + size_class;
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

constexpr std::size_t slice_colour(std::uintptr_t base, unsigned size_class) noexcept {
  return ((base >> class_shift(size_class)) * 5 % colour_count) * colour_step;
}

/// The base of the slice that the byte at `inside` belongs to.
inline std::byte* slice_base(std::byte* inside, unsigned size_class) noexcept {
  const auto offset = reinterpret_cast<std::uintptr_t>(inside) & (class_bytes(size_class) - 1);
  return inside - offset;
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
