// SPDX-License-Identifier: Apache-2.0
//
// Giving up the processor for a moment, as a thread, while another thread holds a spin lock.
#pragma once

namespace tendril::detail {

/// Not std::this_thread::yield: where libc's calls are intercepted, that lets other *fibers* run, in the middle of
/// whatever spins here.
void yield_thread() noexcept;

}  // namespace tendril::detail
