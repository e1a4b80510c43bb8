// SPDX-License-Identifier: Apache-2.0
#include "stack/split_probe.hpp"

namespace tendril::detail {

int split_probe(int n) noexcept { return unsplit_callee(n) + 1; }

}  // namespace tendril::detail
