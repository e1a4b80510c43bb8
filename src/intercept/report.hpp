// SPDX-License-Identifier: Apache-2.0
//
// What became of calls that were made on fibers, counted by symbol.
#pragma once

#include "intercept/symbols.hpp"

namespace tendril::detail {

/// The call went to another thread.
void count_aside(symbol what) noexcept;
/// The call was made in place although it blocks: no thread or memory to do better.
void count_blocked(symbol what) noexcept;

}  // namespace tendril::detail
