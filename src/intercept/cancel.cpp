// SPDX-License-Identifier: Apache-2.0
#include "intercept/cancel.hpp"

#include <tendril/cancelable_calls.hpp>

#include "sched/worker_thread.hpp"

namespace tendril::detail {

bool calls_cancelable() noexcept {
  const fiber_core* const c = current_fiber();
  return c != nullptr && (c->flags.load(std::memory_order_relaxed) & flag::calls_cancelable) != 0;
}

bool set_calls_cancelable(bool on) noexcept {
  fiber_core* const c = current_fiber();
  if (c == nullptr) return false;
  const auto before = on ? c->flags.fetch_or(flag::calls_cancelable, std::memory_order_relaxed)
                         : c->flags.fetch_and(~flag::calls_cancelable, std::memory_order_relaxed);
  return (before & flag::calls_cancelable) != 0;
}

}  // namespace tendril::detail
