// SPDX-License-Identifier: Apache-2.0
//
// A fiber that is pinned to its OS thread: frames that belong to it lie on the thread's own stack (a foreign
// function called there, and what that calls back), or its code holds something of the thread's.
//
// While its count of pins is above zero the fiber is not switched away from. What would park it blocks
// the thread instead: unless another took it before, the worker is given to a spare thread at once, which
// is counted (runtime_stats::pinned_parks) and reported once for each place. Everything else, from its
// name to its deadlines and stop requests, stays the fiber's.
#pragma once

#include "sched/worker_thread.hpp"

namespace tendril::detail {

/// One pin more for the calling fiber. On a plain thread: nothing. Never switches.
inline void pin_thread() noexcept {
  worker_thread* const t = this_worker_thread();
  if (t != nullptr && t->current != nullptr) ++t->pins;
}

/// One pin less. When it was the last and the thread has lost its worker, the fiber moves off at once, unless
/// it is hot: then at its next call that may switch, as it would have without the pin.
///
/// \switch  then
void unpin_thread() noexcept;

/// How often the calling fiber is pinned; zero on plain threads.
inline unsigned thread_pins() noexcept {
  const worker_thread* const t = this_worker_thread();
  return t != nullptr && t->current != nullptr ? t->pins & ~worker_thread::hot : 0;
}

}  // namespace tendril::detail
