// SPDX-License-Identifier: Apache-2.0
//
// See segment_support.hpp.
#pragma once

namespace tendril::detail {

/// Compiled for segmented stacks; calls a function that is not.
int split_probe(int) noexcept;
/// That function.
int unsplit_callee(int) noexcept;

}  // namespace tendril::detail
