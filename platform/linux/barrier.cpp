// SPDX-License-Identifier: Apache-2.0
//
// membarrier(2), private and expedited: interrupts the processors that run threads of this process and
// no others, a few microseconds. The call without registration (MEMBARRIER_CMD_GLOBAL) takes
// milliseconds, as it waits for every processor of the system.
#include "platform/barrier.hpp"

#include <sys/syscall.h>
#include <unistd.h>

namespace tendril::platform {
namespace {

// linux/membarrier.h; older headers lack them.
constexpr int command_private_expedited = 1 << 3;
constexpr int command_register_private_expedited = 1 << 4;

std::atomic<bool> failing{false};

}  // namespace

bool prepare_heavy_barrier() noexcept {
  // Lasts for the process; a fork's child inherits it.
  static const bool registered =
      ::syscall(SYS_membarrier, command_register_private_expedited, 0, 0) == 0;
  return registered && !failing.load(std::memory_order_relaxed);
}

bool heavy_barrier() noexcept {
  return !failing.load(std::memory_order_relaxed) &&
         ::syscall(SYS_membarrier, command_private_expedited, 0, 0) == 0;
}

void fail_heavy_barriers(bool fail) noexcept { failing.store(fail, std::memory_order_relaxed); }

}  // namespace tendril::platform
