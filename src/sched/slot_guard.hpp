// SPDX-License-Identifier: Apache-2.0
//
// Two words below the stack of a tasklet that waits in its slot: who writes there has kept a pointer to a variable of
// a function that has returned, and meant this tasklet's stack or that of another one of the same slot.
//
//     slot.high -> | frames of the tasklet           |
//                  | registers that the switch saved | <- slot_low()
//                  | two words that only we know     |
//                  | free                            |
//
// They are written when its departure is committed, where its core is in hand anyway, and spot::guarded says so. They
// are looked at by who runs it next, or moves it out, and the bit is taken away: an image has none, for its
// addresses are another one's, who has his own. So one that waits is guarded from its departure until its slot is
// wanted or it runs, and others pay nothing: the bit makes the byte nonzero that tells who wants attention.
//
// The words depend on their address, so that a copy of a stack brings none along. There is room for them: what a
// switch calls has been deeper than that. A slot whose free pages are given back keeps the page that has them.
//
// Who may call what: who has the fiber, see waiter::places; its stack is in its slot, and nobody stands on it.
#pragma once

#include "base/sanitizer.hpp"
#include "sched/fiber_core.hpp"
#include "sched/pinned_stack.hpp"
#include "sched/slot_contract.hpp"

#include <cstddef>
#include <cstdint>

namespace tendril::detail {

inline constexpr std::size_t slot_guard_bytes = 16;

constexpr std::uint64_t slot_guard_word(std::uintptr_t address) noexcept {
  return address * 0x9E37'79B9'7F4A'7C15U ^ 0xD1B5'4A32'D192'ED03U;
}

#if TENDRIL_ASAN || TENDRIL_TSAN
// Frames that were left without returning have left red zones there; and its last user is another thread.
#define TENDRIL_SLOT_GUARD __attribute__((no_sanitize("address", "thread"), noinline)) inline
#else
#define TENDRIL_SLOT_GUARD inline
#endif

TENDRIL_SLOT_GUARD void write_slot_guard(std::byte* low) noexcept {
  auto* const words = reinterpret_cast<volatile std::uint64_t*>(low - slot_guard_bytes);
  const std::uint64_t word = slot_guard_word(reinterpret_cast<std::uintptr_t>(low));
  words[0] = word;
  words[1] = ~word;
}

TENDRIL_SLOT_GUARD bool slot_guard_intact(const std::byte* low) noexcept {
  const auto* const words = reinterpret_cast<const volatile std::uint64_t*>(low - slot_guard_bytes);
  const std::uint64_t word = slot_guard_word(reinterpret_cast<std::uintptr_t>(low));
  return words[0] == word && words[1] == ~word;
}

#undef TENDRIL_SLOT_GUARD

/// The departure of c, a tasklet, is about to be committed, and low is slot_low(c).
inline void guard_slot(fiber_core& c, std::byte* low) noexcept {
  write_slot_guard(low);
  c.enter(spot::guarded);
}

/// c is guarded.
inline void check_slot_guard(fiber_core& c) noexcept {
  c.leave(spot::guarded);
  if (!slot_guard_intact(slot_low(c))) [[unlikely]]
    report_below(c);
}

}  // namespace tendril::detail
