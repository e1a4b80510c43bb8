// SPDX-License-Identifier: Apache-2.0
//
// The stack policies that fiber variants are measured with, in one place: "fiber/reserved".
//
// Code that runs on segmented stacks has to be compiled for them, and such code is a little slower
// everywhere: were the baselines compiled the same way, every comparison would flatter us. So there
// are two programs of the same sources: tendril-experiments, compiled like any other, in which all
// baselines and reserved fibers run, and tendril-experiments-segmented, compiled and linked with
// tendril::segmented, in which the roles of segmented fibers run. Rejected: one program with both
// kinds of objects; functions that are inline in headers would be one or the other, as the linker
// happens to choose.
#pragma once

#include "bench/support/role.hpp"

#include <tendril/runtime.hpp>

#include <string>
#include <vector>

namespace bench {

/// Not a kind, and in no list: tasklets of which two never find room at once, so that who waits is copied out.
inline constexpr const char* tasklet_copied = "tasklet_copied";
/// Neither: tasklets that are made as small as can be as soon as they wait.
inline constexpr const char* tasklet_packed = "tasklet_packed";

/// Names of the stack kinds that this build offers.
std::vector<std::string> stack_variants();

struct absent_stack {
  std::string stack;
  std::string reason;
};

/// Those that it does not, among the kinds that experiments know.
std::vector<absent_stack> absent_stacks();

/// The empty string, or why there are no segmented stacks here.
const std::string& why_not_segmented();

/// Arguments of a role whose fibers have that kind of stack: impl, stack, and the program to run it in.
arguments fiber_arguments(const std::string& stack);

/// `args`, to be run in the program that is compiled for segmented stacks, if there is one.
arguments in_segmented_program(arguments args);

/// The kind of that name. Throws std::invalid_argument naming an unknown one.
tendril::stack_kind stack_kind_of(const std::string& stack);

/// Options of a runtime whose fibers have that kind of stack. Throws like stack_kind_of.
tendril::runtime_options runtime_with(const std::string& stack, unsigned workers);

}  // namespace bench
