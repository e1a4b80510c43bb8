// SPDX-License-Identifier: Apache-2.0
//
// Finding the memory of fibers that do not run, while threads are stopped at any instruction: what is behind
// <tendril/inspect.hpp>, which says what is reported and when one may ask.
//
// Fibers are found through the core pool, whose table of slabs can be read at any moment; what a fiber has is found
// from its core. Which of core, frame and stack exist is told by three words, changed in this order:
//
//   ops     set before the callable is made, null after it has moved to the fiber's stack or was destroyed
//   frame   set when the stack is laid out, null before it is given back
//   alive   in flags: set when the fiber is queued, cleared after frame
//
//   ops               the callable is in the core, or being made there, or on the heap: report it
//   frame, alive      report what the saved stack pointer says, if that lies in the fiber's stack at all. While it
//                     runs, the pointer is of its last departure, and segments that were left since may be unmapped.
//                     A tasklet with spot::away is its image: the bit is set once that is complete, and cleared
//                     once the slot is
//   else              a free core, one that has ended, or the shell of a call (hot_start.hpp)
//
// Epochs. A started fiber that is found parked gets flag::old and loses its mark (core_pool.hpp); others keep
// theirs. Who may go on running without being picked, and so without clearing the flag, is not parked: hosts, hot
// fibers, runnable ones. The exception is a pinned fiber that has blocked its thread, see park_in_place(). So:
//
//  1. A core that holds anything is marked, or it is old and has not run since it was reported.
//  2. old is set and cleared on either side of the mark, so that 1 holds between any two instructions: mark, then
//     clear old; set old, then unmark.
//
// Who may call what: the walks as inspect.hpp says; note_run() whoever is about to run a fiber that is his.
#pragma once

#include "sched/fiber_core.hpp"
#include "stack/slice_layout.hpp"

#include <tendril/inspect.hpp>

#include <atomic>

namespace tendril::detail {

struct worker_thread;

/// Whether anybody has asked for epochs yet.
extern std::atomic<bool> epochs_used;

void note_new_slow(fiber_core* c) noexcept;
void note_run_slow(fiber_core* c) noexcept;

/// A core is about to hold something.
inline void note_new(fiber_core* c) noexcept {
  if (epochs_used.load(std::memory_order_relaxed)) [[unlikely]]
    note_new_slow(c);
}
/// c is about to run.
inline void note_run(fiber_core* c) noexcept {
  if (c->is_at(spot::idle)) c->leave(spot::idle);
  if ((c->flags.load(std::memory_order_relaxed) & flag::old) != 0) [[unlikely]]
    note_run_slow(c);
}

/// Of a new runtime: all its fibers will be new.
void forget_epoch(unsigned table_index) noexcept;

}  // namespace tendril::detail
