// SPDX-License-Identifier: Apache-2.0
//
// Reading what a pointer of the program's points to, if it points to anything: the kernel would say EFAULT, and so do
// we. For what has to be known before the kernel is called.
#pragma once

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

namespace tendril::detail {

/// Copies what may not be there; false: the kernel says EFAULT. Where it does not let us ask: true, copied
/// blindly. Leaves errno alone.
[[gnu::noinline]] inline bool copy_in(void* to, const void* from, std::size_t bytes) noexcept {
  const iovec here{to, bytes};
  const iovec there{const_cast<void*>(from), bytes};
  const int errno_before = errno;
  const ssize_t n = ::process_vm_readv(::getpid(), &here, 1, &there, 1, 0);
  const bool nothing_there = n >= 0 || errno == EFAULT;
  errno = errno_before;
  if (n == static_cast<ssize_t>(bytes)) return true;
  if (nothing_there) return false;
  std::memcpy(to, from, bytes);
  return true;
}

}  // namespace tendril::detail
