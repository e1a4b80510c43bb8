// SPDX-License-Identifier: Apache-2.0
//
// Calls as code makes them that knows nothing of fibers: this file's source is compiled without split
// stacks whatever the rest of the program is compiled with.
#pragma once

#include <array>

/// What is measured: integers and pointers in, one out. More arguments than the function takes do no
/// harm in the calling conventions of the processors that Tendril knows.
using foreign_function = long (*)(long, long, long, long, long, long);
using foreign_arguments = std::array<long, 6>;

/// One call.
long plain_call(foreign_function f, const foreign_arguments& a);

/// `count` calls; returns the last result.
long plain_loop(foreign_function f, const foreign_arguments& a, long count);
