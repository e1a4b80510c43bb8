// SPDX-License-Identifier: Apache-2.0
//
// From stack_options, which a user may have filled with anything, to a size class.
#pragma once

#include <tendril/stack.hpp>

#include <system_error>

namespace tendril::detail {

/// The size class the options ask for.
///
/// \throws std::system_error  errc::invalid_option, naming the option, its value and what is allowed
unsigned choose_size_class(const stack_options& options);

/// The same without exceptions; no_size_class on error.
unsigned choose_size_class(const stack_options& options, std::error_code& ec) noexcept;

}  // namespace tendril::detail
