// SPDX-License-Identifier: Apache-2.0
//
// The contract of a control switch between two stacks. Backends: x86_64/switch.S (our own),
// src/context/switch_boost.cpp (Boost.Context, for every other processor and as a cross-check).
//
// A switch preserves what the ABI makes callee-saved: the registers, the control bits of the
// floating-point units; and the limit of a segmented stack. The *sticky* exception flags of MXCSR are not callee-saved and are left
// alone, because on many processors loading a changed MXCSR stalls the pipeline: one fiber that had an
// inexact result would make every switch many times slower.
#pragma once

#include <cstdint>

namespace tendril::platform {

/// Whom to continue with when a stack's entry function is done. sp null: the stack was entered by
/// tendril_call, nothing on it was switched away from since, and transfer is the stack pointer that was saved
/// there: the call returns null.
struct next_context {
  void* sp;
  void* transfer;
};

using entry_function = next_context (*)(void* transfer);

/// What a body returns that tendril_call_body calls. stays null: its stack was switched away from since; rest is for
/// who ends it then.
struct body_end {
  void* stays;
  void* rest;
};

using body_function = body_end (*)(void* body);

extern "C" {
/// Saves the caller's context on its stack and its stack pointer in *save, continues at `to`, and
/// hands `transfer` to whoever continues there. Returns the transfer of whoever comes back.
void* tendril_switch(void** save, void* to, void* transfer) noexcept;

/// The same where `to` is known not to have run yet; faster.
void* tendril_switch_first(void** save, void* to, void* transfer) noexcept;

/// Saves the caller's context as tendril_switch does, and calls entry(transfer) on a stack whose frames begin
/// below `top` (16-byte aligned), with the given limit and the caller's control words. When entry comes
/// back without having been switched away from (see next_context), this is a call and no switch: null is
/// returned, and the control words are those that entry leaves. Else somebody switches to the saved context, and it returns what that one transfers.
void* tendril_call(void** save, void* top, std::uintptr_t limit, entry_function entry,
                   void* transfer) noexcept;

/// The same between two stacks without a limit, with a function and a return less on the way: run(body) is called there,
/// and its return is the return of this call, which returns null. If its stack was switched away from meanwhile,
/// ended(rest) is called on it in place of that, and says whom to continue with.
void* tendril_call_body(void** save, void* top, body_function run, void* body,
                        entry_function ended) noexcept;
}

/// What loading control words costs here when a sticky flag has changed: for tests to choose.
enum class control_word_cost : unsigned char { measure, dear, cheap };

/// Before the first switch, and as often as anybody likes: finds out how this processor switches best. A switch
/// works without it. Some microseconds.
void prepare_switch(control_word_cost cost = control_word_cost::measure) noexcept;

/// Lays out a context below `top` (16-byte aligned) that starts entry(transfer) at the first switch
/// to it, with default floating-point control words and the given limit (see split_stack.hpp; 0: none).
/// When entry returns, the stack is left for good. Returns the value for `to`.
void* make_context(void* top, entry_function entry, std::uintptr_t limit = 0) noexcept;

/// Gives the caller the control words that make_context() starts with: where another entry begins in place of the one
/// that has ended, on the same stack and without a switch.
void reset_control_words() noexcept;

}  // namespace tendril::platform
