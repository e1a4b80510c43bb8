// SPDX-License-Identifier: Apache-2.0
//
// The stack a fiber runs on: which kind, how large, and what all stacks of a runtime take.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/sanitizers.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace tendril {

/// How a fiber gets its stack.
enum class stack_kind : std::uint8_t {
  /// A fixed range of address space; the kernel commits a page when it is first touched. Runs any
  /// code; calls into foreign code cost nothing. Takes one page (4 KiB) while parked shallow.
  reserved,
  /// Small segments linked on demand, 2 KiB at first, for code compiled and linked with the CMake target
  /// tendril::segmented. Grows to runtime_options::max_stack_bytes. Takes 2 KiB while parked shallow. Calls
  /// into other code run on a larger segment; see docs/segmented-stacks.md and native_call.
  segmented,
  /// A shared slot: while it waits, others may run at the same addresses, and what it uses is kept on the heap.
  /// Takes as much memory while parked as its live frames have bytes. For code that keeps the contract: while
  /// a tasklet waits nobody else holds a pointer into its stack. See docs/tasklets.md.
  tasklet,
  /// No wish, the default. Fibers then get what their runtime's options say; a runtime's fibers what the
  /// environment variable TENDRIL_STACK = reserved, segmented or tasklet says when it starts; else reserved.
  /// With a size, reserved whatever those say: a size is a wish for a stack of its own.
  inherited,
};

/// Frames are several times larger under AddressSanitizer and ThreadSanitizer.
inline constexpr std::size_t default_stack_bytes =
    (TENDRIL_ASAN || TENDRIL_TSAN) ? std::size_t{256} << 10 : std::size_t{64} << 10;

/// \code
///   tendril::fiber_options o;
///   o.stack.bytes = 1 << 20;   // deep recursion ahead
/// \endcode
struct stack_options {
  stack_kind kind = stack_kind::inherited;
  /// 0: the kind's default: default_stack_bytes, or 2,048 for the first segment of a segmented stack, which
  /// may have 2,048 bytes to 8 MiB and grows by itself. What follows is about reserved stacks.
  ///
  /// Address space, not memory: what is never touched is never committed. Rounded up to 16 KiB times
  /// a power of two, at most 8 MiB. Of this a guard page at the bottom and up to 2 KiB at the top
  /// (fibers' tops are spread over cache sets; 320 bytes if it has more than 64 KiB) are not the fiber's.
  /// libpq, libcurl and getaddrinfo want 64 to 256 KiB.
  ///
  /// A fiber that runs into its guard page ends the process with a message that names the fiber. One
  /// frame larger than a page may step over the guard without touching it and damage another stack:
  /// compile code with large frames with -fstack-clash-protection, which touches every page.
  std::size_t bytes = 0;
};

/// Whether fibers of this program can have stacks of that kind. Segmented: the processor, the build of the
/// library and the linker of the program must all know them. Inherited: always. \threads any
TENDRIL_API bool stack_kind_available(stack_kind kind) noexcept;

/// The slots that the tasklets of a runtime share. A tasklet is bound to the addresses of one slot for life; it is copied
/// out only when another one needs them.
struct tasklet_options {
  /// At most so many, 1 to 65,536. Tasklets beyond share. Each takes the pages that were ever used of it.
  ///
  /// TENDRIL_TASKLETS=slots=N in the environment overrides it.
  std::size_t slots = 4096;
  /// As many are made as tasklets are alive at once up to this number, which counts as `slots` where it is larger; more
  /// only while those that are in them are in use: have waited and come back, a second ago at the most.
  std::size_t slots_at_first = 1024;
  /// Address space of a slot, in bytes; 0: default_stack_bytes. Rounded and used up as stack_options::bytes says. A
  /// tasklet that asks for more than a slot has gets a reserved stack of its own.
  std::size_t slot_bytes = 0;
  /// To find violations of the contract: a tasklet is copied out whenever it waits, and the bytes that it leaves
  /// are overwritten with 0xDB; under AddressSanitizer, any use of them is reported. TENDRIL_TASKLETS=strict
  /// turns it on.
  bool strict = false;
  /// A tasklet that has waited in its slot for this long, or a little longer, is copied out, in the background, and
  /// the memory of a slot that nobody has been in for this long is given back to the system. nanoseconds::max():
  /// never. See also runtime_options::pack_cold_after.
  std::chrono::nanoseconds evict_idle_after = std::chrono::seconds(10);
};

/// Counted over one runtime.
struct tasklet_stats {
  std::size_t slots = 0;           ///< made
  std::uint64_t captures = 0;      ///< stacks copied out of their slots
  std::uint64_t restores = 0;      ///< and back
  std::uint64_t bytes_copied = 0;  ///< in both directions
  std::uint64_t conflicts =
      0;  ///< times one had to wait for a slot whose resident was about to run
  /// Fibers that asked to be tasklets and got a stack of their own: because they wanted more than a slot has, because
  /// there was no slot for a call, or because others with the same callable had 64 KiB or more on their stacks when
  /// they were copied.
  std::uint64_t own_stacks = 0;

  // Copies that nobody has wanted for a while are kept as what differs from others like them.
  std::size_t patterns = 0;             ///< what copies are compared with: kept now
  std::uint64_t folds = 0;              ///< copies made small
  std::uint64_t unfolds = 0;            ///< of these, wanted again
  std::uint64_t fold_input_bytes = 0;   ///< of all copies that were made small: before
  std::uint64_t fold_output_bytes = 0;  ///< and after

  // What is done in the background, see tasklet_options::evict_idle_after and runtime_options::pack_cold_after.
  std::uint64_t evictions = 0;         ///< of the captures: of tasklets that had been idle for long
  std::uint64_t discards = 0;          ///< times that the memory of an empty slot was given back
  std::uint64_t packs = 0;             ///< copies packed
  std::uint64_t unpacks = 0;           ///< of these, wanted again
  std::uint64_t pack_input_bytes = 0;  ///< of all copies that were packed: before
  std::uint64_t pack_output_bytes = 0;  ///< and after
};

/// What marks the end of a stack. Chosen at start: the first that the kernel offers; the environment
/// variable TENDRIL_STACK_GUARD = madvise, mprotect or canary forces one.
enum class stack_guard : std::uint8_t {
  madvise,   ///< MADV_GUARD_INSTALL (Linux 6.13): page-table entries, any number of them
  mprotect,  ///< an inaccessible page; each takes two of the process's vm.max_map_count mappings
  canary,    ///< nothing stops an overflow; it is found when the fiber ends, and ends the process
};

/// Counted over one runtime. A snapshot: the parts are read one after the other.
struct stack_stats {
  std::size_t created =
      0;  ///< stacks ever made; they are kept and used again until the runtime ends
  std::size_t in_use = 0;    ///< held by fibers
  std::size_t warm = 0;      ///< free, memory still committed, kept by one worker
  std::size_t cold = 0;      ///< free, memory given back to the system or never used
  std::size_t trimmed = 0;   ///< times a stack's memory was given back
  std::size_t canaries = 0;  ///< stacks that have neither kind of guard page
  std::size_t arenas = 0;    ///< mappings that stacks are cut from
  std::size_t address_space_bytes = 0;
  stack_guard guard = stack_guard::madvise;  ///< the mode new stacks are guarded in
};

}  // namespace tendril
