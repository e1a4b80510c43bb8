// SPDX-License-Identifier: Apache-2.0
//
// For calls of libc's that close a descriptor by themselves.
#pragma once

namespace tendril::detail {

/// To be called before libc closes the number: whoever is parked on it gets EBADF. False: somebody else is closing it
/// right now. Any thread.
bool before_closing(int fd) noexcept;

}  // namespace tendril::detail
