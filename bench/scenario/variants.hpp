// SPDX-License-Identifier: Apache-2.0
//
// The stack policies that fiber variants are measured with, in one place: "fiber/reserved".
#pragma once

#include <tendril/runtime.hpp>

#include <string>
#include <vector>

namespace bench {

/// Names of the stack kinds that this build of Tendril offers.
std::vector<std::string> stack_variants();

/// Options of a runtime whose fibers have that kind of stack. Throws std::invalid_argument naming an
/// unknown kind.
tendril::runtime_options runtime_with(const std::string& stack, unsigned workers);

}  // namespace bench
