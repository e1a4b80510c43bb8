// SPDX-License-Identifier: Apache-2.0
//
// The guard at the bottom of a slice: which mode is used, and setting one up.
//
//   madvise    the page-table entries of the page are marked; the arena stays one mapping, so any
//              number of stacks is guarded. 0.6 us, 0.5 in a batch (Linux 6.15). Linux 6.13.
//   mprotect   the page becomes a mapping of its own: two more mappings a stack. The process may have
//              vm.max_map_count (65,530) of them, and whoever asks for the last one (malloc, dlopen,
//              thread creation) fails, so we stop at 3/4 of it.
//   canary     the page is left readable and is never part of a stack, so it stays all zero unless a
//              stack overflowed. Looked at when the slice is released.
//
// A canary is usually a pattern that is written. Zeros are better here: writing would commit a page a
// stack (doubling a parked fiber), and the whole page can be compared, so that a large frame whose
// untouched locals lie over the pattern does not escape: the return addresses below it are not zero.
//
// Each slice falls back on its own, in the order above: a system that refuses one guard (locked
// memory, for instance) may still grant the next. Guards are never taken away before their arena.
#pragma once

#include <tendril/stack.hpp>

#include <cstddef>
#include <optional>
#include <string_view>

namespace tendril::detail {

/// What TENDRIL_STACK_GUARD asks for; `text` null or empty: the best the system has.
///
/// \throws std::system_error  errc::invalid_option, naming the value and the allowed ones; also for
///                            madvise where the kernel has no guards
stack_guard choose_guard_mode(const char* text);

std::string_view to_string(stack_guard) noexcept;

/// Guards one page, or as much of that as the system allows: `mode` or what follows it in the list.
/// The first canary that nobody asked for prints a warning, once a process.
stack_guard install_slice_guard(std::byte* page, stack_guard mode) noexcept;

/// The same for several; fills `got`.
void install_slice_guards(std::byte* const* pages, unsigned count, stack_guard mode,
                          stack_guard* got) noexcept;

/// Tells that `count` guards of kind mprotect went away with their arena.
void forget_mprotect_guards(std::size_t count) noexcept;

/// Whether the canary page is untouched.
bool canary_intact(const std::byte* page) noexcept;

/// For tests: pretends that vm.max_map_count is this; nullopt: the real one.
void set_map_limit(std::optional<std::size_t>) noexcept;

}  // namespace tendril::detail
