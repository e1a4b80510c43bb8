// SPDX-License-Identifier: Apache-2.0
//
// Where fibers have blocked their workers' threads, how often and for how long: what the monitors of all runtimes
// have found in this process.
//
// A block is seen first when it has lasted for a while, and begins then with that while. To its end it is looked at
// again at each of the monitors' rounds: it has ended when the thread is no longer in the same system call, made at the
// same place. (Another one at the same place in between is not told from it.)
#pragma once

#include "sched/crew.hpp"

#include <tendril/intercept.hpp>

#include <chrono>
#include <vector>

namespace tendril::detail {

/// Found by a monitor. Again for a block that goes on: nothing.
void note_block(const blocked_fiber& who, std::chrono::nanoseconds so_far) noexcept;

/// One of the monitors' rounds: what has ended?
void follow_blocks() noexcept;

/// With those that go on, as long as they have lasted.
std::vector<interception::blocked_place> all_blocked_places();

}  // namespace tendril::detail
