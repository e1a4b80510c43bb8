// SPDX-License-Identifier: Apache-2.0
//
// Violations of the tasklets' contract (docs/tasklets.md), as far as they can be seen without paying for it: somebody
// uses what is on the stack of a tasklet that waits.
//
// Looked at where a wait takes its slow path anyway:
//  - who waits on an object that is in the slot of another one;
//  - who finds a lock taken that is in the slot of another one that does not run: often it is no lock any more;
//  - who wakes a tasklet that waits on an object in its own slot. That wait alone is none: a stop request, a deadline
//    may end it. So it is marked (flag::own_place), and the waker finds the mark, in a word that it reads anyway.
// And where the bytes are moved:
//  - in strict mode, what was spoiled is no more: somebody has written to an empty slot;
//  - just below the stack of one that waits in its slot, somebody has written (slot_guard.hpp), as is also seen when it
//    runs again;
//  - an image, or the slot it goes to, is not the one it was.
// Under AddressSanitizer a strict slot is poisoned, and its report of who touches it gets the names of the fibers.
//
// All of them end the process, like any broken contract. Not seen: reads and writes of plain variables in a slot that
// has another resident, or in one that is not strict. There is nobody to see them.
#pragma once

#include "sched/fiber_core.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tendril::detail {

struct slot;

/// An interval with all slots of the process in it: what is outside need not be looked at more closely. Grows
/// only; torn or late reads lose a report.
struct slot_hull {
  std::atomic<std::uintptr_t> low{0};
  std::atomic<std::uintptr_t> bytes{0};
};
extern constinit slot_hull all_slots;

inline bool may_be_in_a_slot(const void* address) noexcept {
  return reinterpret_cast<std::uintptr_t>(address) - all_slots.low.load(std::memory_order_relaxed) <
         all_slots.bytes.load(std::memory_order_relaxed);
}
/// A slot_table has reserved these addresses.
void extend_slot_hull(const std::byte* low, std::size_t bytes) noexcept;

/// The caller is about to wait on an object there, linked in its list. True: it is in its own slot, and marked.
bool check_wait_place(waiter* self, const void* place, const char* operation) noexcept;
void unmark_own_place(waiter* self) noexcept;

/// For a wait_node's list.
class wait_place {
 public:
  wait_place(waiter* self, const void* place, const char* operation) noexcept
      : self_(may_be_in_a_slot(place) && check_wait_place(self, place, operation) ? self
                                                                                  : nullptr) {}
  ~wait_place() {
    if (self_ != nullptr) [[unlikely]]
      unmark_own_place(self_);
  }
  wait_place(const wait_place&) = delete;
  wait_place& operator=(const wait_place&) = delete;

 private:
  waiter* const self_;
};

/// The caller has found a lock there taken.
void check_lock_place(const void* lock) noexcept;

inline bool waits_in_its_slot(const fiber_core& c) noexcept {
  return (c.flags.load(std::memory_order_relaxed) & flag::own_place) != 0;
}
/// The caller has unparked c, of which this is true and which nobody has scheduled yet.
void check_wake(const fiber_core& c) noexcept;

/// In strict mode: [at, at + 1) of an empty slot was written to.
[[noreturn]] void report_written(const slot& s, const std::byte* at) noexcept;

/// c, which waited in its slot, has no intact canaries below its stack (slot_guard.hpp).
[[noreturn]] void report_below(const fiber_core& c) noexcept;

/// What was captured of c is damaged, or its slot is in a state that cannot be.
[[noreturn]] void report_damaged(const fiber_core& c, const char* what) noexcept;

}  // namespace tendril::detail
