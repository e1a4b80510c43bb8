// SPDX-License-Identifier: Apache-2.0
//
// E22 is several questions; each prints its table and checks its answers.
#pragma once

#include "bench/support/experiment.hpp"

namespace bench {

void report_posts(context& ctx);
void report_deadlock(context& ctx);

}  // namespace bench
