// SPDX-License-Identifier: Apache-2.0
//
// The list of symbols as numbers and names.
#pragma once

#include "platform/intercept.hpp"

#include <cstddef>
#include <cstdint>

namespace tendril::detail {

enum class symbol : std::uint16_t {
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) name,
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
};

inline constexpr const char* symbol_names[] = {
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
#name,
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
};
inline constexpr std::size_t symbol_count = sizeof symbol_names / sizeof *symbol_names;

constexpr const char* name_of(symbol s) noexcept {
  return symbol_names[static_cast<std::size_t>(s)];
}

}  // namespace tendril::detail
