// SPDX-License-Identifier: Apache-2.0
//
// What the sanitizers must be told about memory that changes its purpose. (What they must be told
// about switching stacks lives in src/context.)
#pragma once

#include <tendril/detail/sanitizers.hpp>

#include <cstddef>

#if TENDRIL_ASAN
#include <sanitizer/asan_interface.h>
#define TENDRIL_NO_SANITIZE_ADDRESS __attribute__((no_sanitize("address")))
#else
#define TENDRIL_NO_SANITIZE_ADDRESS
#endif

namespace tendril::detail {

/// Any access is an error until it is unpoisoned: for memory that has no owner.
inline void poison([[maybe_unused]] const void* low, [[maybe_unused]] std::size_t bytes) noexcept {
#if TENDRIL_ASAN
  __asan_poison_memory_region(low, bytes);
#endif
}

/// Also after use as a stack. Frames that were left without returning (a fiber's last switch, a longjmp, an exit inside a
/// callback) leave their red zones poisoned; the next user of the memory would be blamed for them.
inline void unpoison([[maybe_unused]] const void* low,
                     [[maybe_unused]] std::size_t bytes) noexcept {
#if TENDRIL_ASAN
  __asan_unpoison_memory_region(low, bytes);
#endif
}

}  // namespace tendril::detail
