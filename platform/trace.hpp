// SPDX-License-Identifier: Apache-2.0
//
// Contract: saying where the process is when it may not be able to do anything else. After
// prime_trace() everything here is async-signal-safe.
#pragma once

#include <cstddef>

namespace tendril::platform {

/// Writes to standard error, unbuffered; what cannot be written is lost.
void write_error(const char* text, std::size_t size) noexcept;

/// Does now what the first trace would need the heap and the dynamic loader for.
void prime_trace() noexcept;

/// The return addresses on the calling stack, innermost first; how many there are.
std::size_t capture_trace(const void** addresses, std::size_t most) noexcept;

/// Writes the calling stack to standard error, a frame a line, innermost first, leaving out the
/// innermost `skip`. In a signal handler this goes on into the interrupted stack.
void write_trace(unsigned skip) noexcept;

}  // namespace tendril::platform
