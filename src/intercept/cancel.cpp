// SPDX-License-Identifier: Apache-2.0
#include "intercept/cancel.hpp"

#include <tendril/cancelable_calls.hpp>

#include "sched/worker_thread.hpp"

#include <utility>

namespace tendril::detail {

bool calls_cancelable() noexcept {
  const fiber_core* const c = current_fiber();
  return c != nullptr && c->the_frame()->block.flow.calls_cancelable;
}

bool set_calls_cancelable(bool on) noexcept {
  fiber_core* const c = current_fiber();
  return c != nullptr && std::exchange(c->the_frame()->block.flow.calls_cancelable, on);
}

}  // namespace tendril::detail
