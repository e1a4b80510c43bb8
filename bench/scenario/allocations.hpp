// SPDX-License-Identifier: Apache-2.0
//
// What the experiments' programs take from operator new, which they replace: malloc below it, and two numbers of
// the calling thread's, which no measurement can see. Not in it: malloc itself (exceptions, libuv), stacks, and
// frames that a coroutine model reuses.
#pragma once

#include <cstdint>

namespace bench {

struct allocation_counts {
  std::uint64_t calls = 0;
  std::uint64_t bytes = 0;
};

/// By the calling thread since its start.
allocation_counts allocations_of_thread() noexcept;

}  // namespace bench
