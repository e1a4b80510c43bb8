// SPDX-License-Identifier: Apache-2.0
//
// The slices of a runtime that no worker holds: arenas of one size class each, and what is free in
// them. Workers take and give batches through their stack_cache.
//
// Idea: an arena is one reservation of address space, 64 MiB at first and twice the last one up to
// 1 GiB, cut into slices from the bottom up. A slice is guarded when it is cut, once for good. A free
// slice has given its memory back; the list of free slices is kept beside the arena, 8 bytes a slice,
// because a link stored in the slice would commit a page again.
//
// Invariants
//  1. A slice is in exactly one place: not yet cut, in its arena's free list, in one cache, in use.
//  2. What is in a free list has no memory of its own but its guard.
//  3. At most one arena of a class (growing) has uncut slices; one with free slices is on recycled.
//  4. Arenas stay until the source ends: a million fibers that ended leave address space and page
//     tables (128 bytes a stack of 64 KiB) behind, and nothing else.
//
// Who may call what: everything from any thread; a mutex per class inside, held over no system call
// but the mapping of a new arena. The destructor: when all caches are gone and no slice is in use.
//
// Rejected: one mapping a stack (32,745 guarded ones are all a process may have); a lock-free free
// list (a batch of 16 or 64 under a mutex costs 2 ns a slice already); giving arenas back when they
// are empty (fragmentation keeps nearly all of them half full anyway).
#pragma once

#include "base/cacheline.hpp"
#include "base/intrusive_list.hpp"
#include "stack/slice_layout.hpp"

#include <tendril/stack.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>

namespace tendril::detail {

class stack_cache;

struct stack_source_options {
  /// nullopt: what TENDRIL_STACK_GUARD says, else the best the system has.
  std::optional<stack_guard> guard = std::nullopt;
  std::size_t first_arena_bytes = std::size_t{64} << 20;  ///< powers of two
  std::size_t largest_arena_bytes = std::size_t{1} << 30;
};

class stack_source {
 public:
  /// The most slices one call moves.
  static constexpr unsigned max_batch = 64;

  /// \throws std::system_error  TENDRIL_STACK_GUARD has a value that cannot be obeyed
  explicit stack_source(stack_source_options options = {});
  ~stack_source();
  stack_source(const stack_source&) = delete;
  stack_source& operator=(const stack_source&) = delete;

  /// Writes the bases of up to `count` guarded slices without memory; returns how many: 0 when the
  /// system has no address space left.
  unsigned take(unsigned size_class, std::byte** bases, unsigned count) noexcept;

  enum class memory { touched, untouched };
  /// Takes slices back, and from touched ones their memory. Sorts `bases`.
  void give(unsigned size_class, std::byte** bases, unsigned count, memory state) noexcept;

  /// No slice is in use, and none will be: caches that end from now on leave theirs where they are, since
  /// the arenas will be unmapped whole.
  void close() noexcept { closed_.store(true, std::memory_order_relaxed); }
  bool closed() const noexcept { return closed_.load(std::memory_order_relaxed); }

  /// Whether any slice has nothing but a canary. Relaxed: who holds such a slice got it after the
  /// counter was raised.
  bool has_canaries() const noexcept { return canaries_.load(std::memory_order_relaxed) != 0; }
  /// False when the slice's stack has run over a canary. Always true with a guard page: a stack that
  /// ran into one did not live to be asked.
  bool guard_intact(const stack_slice& slice, unsigned size_class) const noexcept;

  stack_guard guard_mode() const noexcept { return mode_; }
  stack_stats stats() const noexcept;

 private:
  friend class stack_cache;

  struct slice_record;
  struct arena;

  struct alignas(cacheline_bytes) size_class_state {
    mutable std::mutex mutex;
    arena* made = nullptr;      ///< all arenas of the class
    arena* growing = nullptr;   ///< the one slices are cut from
    arena* recycled = nullptr;  ///< those with free slices
    std::size_t next_arena_bytes = 0;
    std::size_t arenas = 0;
    std::size_t address_space = 0;
    std::size_t created = 0;
    std::size_t free = 0;
  };

  arena* make_arena_locked(size_class_state& state, unsigned size_class) noexcept;
  static arena* map_arena(unsigned size_class, std::size_t bytes) noexcept;
  void destroy_arena(arena* a) noexcept;
  void guard_slices(arena** of, std::byte** bases, unsigned count) noexcept;

  void attach(stack_cache& cache) noexcept;
  void detach(stack_cache& cache) noexcept;

  stack_guard mode_;
  std::size_t largest_arena_bytes_;
  std::atomic<std::size_t> canaries_{0};
  std::atomic<std::size_t> trimmed_{0};
  std::atomic<bool> closed_{false};
  std::array<size_class_state, class_count> classes_;

  mutable std::mutex caches_mutex_;
  mutable intrusive_list<stack_cache> caches_;  ///< for statistics only
};

}  // namespace tendril::detail
