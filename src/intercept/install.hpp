// SPDX-License-Identifier: Apache-2.0
//
// The core's side of platform/intercept.hpp.
#pragma once

#include "platform/intercept.hpp"

namespace tendril::detail {

/// libc's own functions. Only for code that hooks call.
const platform::real_calls& real() noexcept;

/// There is a front, and it has our hooks.
bool is_in_place() noexcept;
/// Hooks that count, or those that do not, from the next call on.
void count_calls(bool on) noexcept;

/// True in a child that shares our memory or is a copy of it, and has not been told so: vfork(), a bare clone().
/// It must neither park nor touch what is its parent's. A system call: for slow paths.
bool in_other_process() noexcept;

/// Whether the caller is a fiber that can park here and now: for hooks that are called on every thread.
bool caller_parks() noexcept;

/// libc has returned a descriptor for a file just opened: for code that hooks call. If anything is known of the number,
/// then who closed it before did so behind our back.
void descriptor_opened(int fd) noexcept;
inline int told(int fd) noexcept {
  if (fd >= 0) descriptor_opened(fd);
  return fd;
}

/// Wakes fibers that are in line for a lock which has been released. Any thread.
void lock_released(const void* lock, platform::release_kind kind) noexcept;
/// A thread waits for a condition with that mutex, and libc releases it without telling. Any thread.
void lock_waited_with(const void* mutex) noexcept;

}  // namespace tendril::detail
