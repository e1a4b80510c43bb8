// SPDX-License-Identifier: Apache-2.0
//
// From what a user asks for to a size class, or to a clear refusal.
#pragma once

#include <tendril/stack.hpp>

#include <cstdint>

namespace tendril::detail {

/// In a core: no class was asked for, the runtime's default applies.
inline constexpr std::uint8_t stack_class_default = 0xFF;

/// \param what  the option's name, for the message
/// \throws std::system_error errc::invalid_option
unsigned stack_class_for(const stack_options& options, const char* what);

}  // namespace tendril::detail
