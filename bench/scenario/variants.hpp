// SPDX-License-Identifier: Apache-2.0
//
// The stack policies that fiber variants are measured with, in one place: "fiber/reserved".
#pragma once

#include <string>
#include <vector>

namespace bench {

/// Names of the stack kinds that this build of Tendril offers.
std::vector<std::string> stack_variants();

}  // namespace bench
