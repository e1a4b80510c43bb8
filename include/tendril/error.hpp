// SPDX-License-Identifier: Apache-2.0
//
// Errors that are Tendril's own. What the operating system or std has a code for keeps that code:
// a wait that was stopped reports std::errc::operation_canceled, an expired deadline
// std::errc::timed_out, a closed descriptor std::errc::bad_file_descriptor.
#pragma once

#include <tendril/config.hpp>

#include <string>
#include <system_error>
#include <type_traits>

namespace tendril {

enum class errc {
  no_runtime = 1,    ///< the call needs a running runtime and none was found
  runtime_stopping,  ///< a fiber was to be started on a runtime that is shutting down
  invalid_option,    ///< an option's value is out of range; the message names it
  would_deadlock,    ///< the call would wait for itself (a fiber joining itself)
  channel_closed,    ///< sending on a closed channel
};

TENDRIL_API const std::error_category& error_category() noexcept;

inline std::error_code make_error_code(errc e) noexcept {
  return {static_cast<int>(e), error_category()};
}

}  // namespace tendril

template <>
struct std::is_error_code_enum<tendril::errc> : std::true_type {};
