// SPDX-License-Identifier: Apache-2.0
//
// For waits during which others use the waiter's stack: a function on the thread pool, whose captures are
// references into it.
//
// While the scope lasts, a tasklet stays in its slot; those bound to the same slot wait. So what is waited for must
// come without them: no fiber may have a part in it, for it could be one of those. Waits for fibers keep nothing on
// the stack that others use; waits for another library's I/O do, but a slot for each idle connection would soon be
// all slots (asio.hpp says what to do instead).
//
// Rejected: copying what is referred to (a callable does not tell what it captured); a stack of its own for the call
// (the references lead to the frames above it, too).
#pragma once

#include "sched/slots.hpp"
#include "sched/worker.hpp"

#include <utility>

namespace tendril::detail {

class stack_hold {
 public:
  stack_hold() noexcept {
    fiber_core* const c = current_fiber();
    if (c == nullptr || !is_tasklet(c->stack_class)) return;
    place_ = &tasklet_frame_of(*c).stays;
    before_ = std::exchange(*place_, true);
  }
  /// Who wants the slot gets it at the tasklet's next departure, for which slot_wanted has been left.
  ~stack_hold() {
    if (place_ != nullptr) *place_ = before_;
  }
  stack_hold(const stack_hold&) = delete;
  stack_hold& operator=(const stack_hold&) = delete;

 private:
  bool* place_ = nullptr;
  bool before_ = false;
};

}  // namespace tendril::detail
