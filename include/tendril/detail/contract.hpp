// SPDX-License-Identifier: Apache-2.0
//
// What the primitives do when a precondition that std leaves undefined is broken and looking was
// cheap: say which one, on which fiber, and abort. Never compiled out.
#pragma once

#include <tendril/config.hpp>

namespace tendril::detail {

/// Prints "tendril: <what> (fiber <name or id>)" to stderr and aborts.
[[noreturn]] TENDRIL_API void contract_violation(const char* what) noexcept;

constexpr void expects(bool condition, const char* what) noexcept {
  if (!condition) [[unlikely]]
    contract_violation(what);
}

}  // namespace tendril::detail
