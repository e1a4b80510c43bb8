// SPDX-License-Identifier: Apache-2.0
//
// Calls that can neither park nor be made on another thread.
#pragma once

#include "sched/thread_pin.hpp"
#include "sched/thread_stay.hpp"

namespace tendril::detail {

/// Calls f, which blocks the thread; the worker is with another one meanwhile.
/// \switch yes
template <class F>
auto block_in_place(F&& f) {
  const thread_stay here;
  pin_thread();
  hand_over_to_block();
  const auto result = f();
  unpin_thread();
  return result;
}

}  // namespace tendril::detail
