// SPDX-License-Identifier: Apache-2.0
//
// Contract: the two system calls that every request makes, without blocking and without detours. The C
// library's versions are cancellation points: in a process with several threads each call registers and
// unregisters itself with pthread_cancel, about 1 % of what serving a small request costs. Fibers are not
// cancelled that way.
#pragma once

#include <cstddef>

namespace tendril::platform {

/// Bytes received, 0 at the end of the stream, or an errno negated (-EAGAIN: nothing there).
long receive_now(int socket, void* to, std::size_t bytes) noexcept;

/// Bytes sent, or an errno negated (-EAGAIN: the buffer is full). Never raises SIGPIPE, unless `signals`.
long send_now(int socket, const void* from, std::size_t bytes, bool signals = false) noexcept;

}  // namespace tendril::platform
