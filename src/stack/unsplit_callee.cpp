// SPDX-License-Identifier: Apache-2.0
#include "stack/split_probe.hpp"

namespace tendril::detail {

int unsplit_callee(int n) noexcept { return n; }

}  // namespace tendril::detail
