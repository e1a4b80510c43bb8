// SPDX-License-Identifier: Apache-2.0
//
// Contract: address space. Pages are reserved without being backed, are committed by the first
// touch, and can be given back to the system while the range stays reserved.
//
// Everything is thread-safe and noexcept; failure is a return value. Ranges are whole pages.
// Rejected: handing out the mapping as an owning object. Arenas own ranges of which they give back
// and guard parts, so the owner has to know addresses anyway.
#pragma once

#include <cstddef>

namespace tendril::platform {

/// The size of a page; async-signal-safe.
std::size_t page_size() noexcept;

/// Readable, writable, zero, not backed, not counted against the commit limit (where the system's
/// overcommit policy allows). `alignment` is a power of two. Null when the system refuses.
void* reserve_memory(std::size_t bytes, std::size_t alignment) noexcept;

/// Ends a reservation, guards in it included.
void release_memory(void* low, std::size_t bytes) noexcept;

/// Gives the pages' memory back: the range stays reserved and reads as zero again. Guards survive.
void discard_memory(void* low, std::size_t bytes) noexcept;

/// Backs the range now instead of at the first touch. Best effort: false where the system cannot.
bool populate_memory(void* low, std::size_t bytes) noexcept;

enum class huge_pages { never, allowed };

/// Whether the system may back the range with huge pages on its own. A fiber's stack must not be:
/// its first touched byte would commit megabytes.
void advise_huge_pages(void* low, std::size_t bytes, huge_pages advice) noexcept;

/// Whether guards that need no mapping of their own exist. Probed once, by installing one.
bool guards_supported() noexcept;

/// Makes the range fault on any access until it is released, within its mapping. Memory in it is
/// given back. False when unsupported or the system refuses.
bool install_guard(void* low, std::size_t bytes) noexcept;

/// install_guard for one page at each address, by a single call where the system has one for that.
/// Returns how many of the first are guarded.
unsigned install_guards(std::byte* const* pages, unsigned count) noexcept;

/// Makes the range fault by splitting its mapping in up to three. False when the system refuses,
/// which it does at max_map_count().
bool protect_none(void* low, std::size_t bytes) noexcept;

/// The most mappings a process may have; SIZE_MAX where there is no limit.
std::size_t max_map_count() noexcept;

/// The mappings the process has now. Walks all of them: about a microsecond each.
std::size_t map_count() noexcept;

struct stack_bounds {
  std::byte* low = nullptr;
  std::byte* high = nullptr;
};
/// The calling thread's own stack, its guard excluded. False where the system does not tell.
bool this_thread_stack(stack_bounds& out) noexcept;

/// Whether the byte's page is backed by memory of its own.
bool is_resident(const void* address) noexcept;

/// For tests: of the following calls of reserve_memory, lets `succeed` through and fails the `fail`
/// after them. (0, 0) ends it.
void fail_reservations(std::size_t succeed, std::size_t fail) noexcept;

/// For tests: install_guard, install_guards and protect_none fail until it is called with false.
void fail_guards(bool fail) noexcept;

}  // namespace tendril::platform
