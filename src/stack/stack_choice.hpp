// SPDX-License-Identifier: Apache-2.0
//
// From stack_options, which a user may have filled with anything, to a stack class: one byte that says
// the kind and the size of the first, or only, piece of a stack.
//
//     bit 7     0; 0xFF means "no wish" where a core keeps the byte
//     bit 6     segmented
//     bit 5     tasklet, if bit 6 is 0
//     bits 0-4  the slice's class (slice_layout.hpp), for reserved stacks a spread one; with bit 6, all of
//               bits 0-5 are set for small_first
#pragma once

#include "stack/slice_layout.hpp"

#include <tendril/stack.hpp>

#include <cstdint>
#include <system_error>

namespace tendril::detail {

/// The byte.
using stack_choice = std::uint8_t;

inline constexpr stack_choice segmented_bit = 0x40;
/// A segmented stack whose first segment is a small one, of 2 KiB.
inline constexpr stack_choice small_first = segmented_bit | 0x3F;
inline constexpr stack_choice no_stack_class = 0x80;

inline constexpr stack_choice tasklet_bit = 0x20;

/// A tasklet on whatever the runtime's slots have.
inline constexpr stack_choice any_tasklet = tasklet_bit;

constexpr bool is_segmented(stack_choice c) noexcept { return (c & segmented_bit) != 0; }
constexpr bool is_tasklet(stack_choice c) noexcept {
  return (c & (segmented_bit | tasklet_bit)) == tasklet_bit;
}
/// Not of small_first.
constexpr unsigned size_class_of(stack_choice c) noexcept { return c & 0x1FU; }
/// A reserved stack of this size class, which is not spread.
stack_choice reserved_of(unsigned size_class) noexcept;
/// Bytes of the stack, or of its first segment.
constexpr std::size_t first_bytes(stack_choice c) noexcept {
  return c == small_first ? std::size_t{2048} : class_bytes(size_class_of(c));
}

/// Left as they are by default.
constexpr bool asks_for_nothing(const stack_options& o) noexcept {
  return o.kind == stack_kind::inherited && o.bytes == 0;
}

/// The stack class the options ask for; what inherits, has nobody to inherit from here, and gets reserved.
///
/// \throws std::system_error  errc::invalid_option, naming the option, its value and what is allowed;
///                            std::errc::not_supported for a kind that this build has not
stack_choice choose_stack_class(const stack_options& options);

/// Of a runtime's options: the same, but those that ask for nothing get what TENDRIL_STACK says.
///
/// \throws std::system_error  as above, naming the variable where it is what cannot be obeyed
stack_choice choose_default_stack_class(const stack_options& options);

/// Without exceptions; no_stack_class on error.
stack_choice choose_stack_class(const stack_options& options, std::error_code& ec) noexcept;

}  // namespace tendril::detail
