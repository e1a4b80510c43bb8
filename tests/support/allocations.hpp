// SPDX-License-Identifier: Apache-2.0
//
// Counting the calls of operator new, and letting them fail, in a test program that links
// support/allocations.cpp.
#pragma once

#include <cstdint>

namespace tendril::test {

/// By all threads since the program's start.
std::uint64_t allocations() noexcept;

/// The next one on the calling thread throws std::bad_alloc.
void fail_next_allocation() noexcept;

}  // namespace tendril::test
