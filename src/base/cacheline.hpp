// SPDX-License-Identifier: Apache-2.0
//
// How far apart words must lie that different cores write.
//
// Not std::hardware_destructive_interference_size: its value follows -mtune, so it may differ between
// the library and its user, and gcc warns at every use for that reason. Not 128 either (adjacent-line
// prefetch on x86): measured, it gained nothing for the structures here and doubled their padding.
#pragma once

#include <cstddef>

namespace tendril::detail {

inline constexpr std::size_t cacheline_bytes = 64;

}  // namespace tendril::detail
