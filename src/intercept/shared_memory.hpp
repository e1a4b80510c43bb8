// SPDX-License-Identifier: Apache-2.0
//
// Whether memory is such that other processes may have it, too.
#pragma once

namespace tendril::detail {

/// Whether the address is in a mapping that is shared (MAP_SHARED). False where the system does not tell. Asks the
/// kernel: some microseconds, where it must be read from a list some dozens.
bool is_shared_memory(const void* address) noexcept;

}  // namespace tendril::detail
