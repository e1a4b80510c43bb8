// SPDX-License-Identifier: Apache-2.0
#include "base/yield.hpp"

#include <sys/syscall.h>
#include <unistd.h>

namespace tendril::detail {

void yield_thread() noexcept { ::syscall(SYS_sched_yield); }

}  // namespace tendril::detail
