// SPDX-License-Identifier: Apache-2.0
//
// The first, small segments of segmented fibers: 2 KiB each, aligned to that. A million parked fibers
// take 2,048 bytes of stack each and 6 bytes of tables.
//
// Idea: slabs of 64 KiB (small_segment_layout.hpp) are cut from arenas of address space, with a page
// that faults at the bottom of each. The source knows of each slab which segments are free, a word in a
// table beside the arena; it takes from slabs that are partly used before others, there from pages of
// which a half is used, and gives the memory of a slab back when its last segment has returned. Workers
// hold what they used last in a list of their own, the links in the free segments.
//
//                take, 30 at once              acquire
//     source --------------------------> cache --------> in use
//       ^                                 | ^               |
//       '--- past the watermark, 64 at ---' '--- release ---'
//            once; whole slabs' memory
//            goes back to the system
//
// Invariants
//  1. A segment is in exactly one place: not yet cut, free in its slab's word, in one cache, in use.
//  2. A slab is on partial_ when some, on emptied_ when all of its segments are free, else on no list;
//     while its guard is set up or its memory given back it is on none and has one owner.
//  3. A slab on emptied_ has no memory but its guard.
//  4. The source never touches a segment's memory; a segment in a cache has an intact canary.
//
// Who may call what: the source from any thread, a mutex inside, held over no system call but the mapping
// of a new arena. A cache: its owner alone, its counter is read by stats(). A segment may be released
// into another cache of the same source than the one it came from. Source ends after its caches.
//
// A slab's pages are populated as they are first handed out: one call costs a tenth less than the
// faults it saves. They are nearly all of the cost: a segment that is taken for the first time costs
// 720 ns of processor time, 23 when its page is there, 2 out of the cache.
//
// Rejected: links or bits inside the slab (would commit a page of one that is empty); giving single pages
// back (half a microsecond each, and a fault of 1.5 at the next use); huge pages (340 ns a page instead
// of 1,390, guards included, but one fiber takes 2 MiB, the guards' memory stays allocated where RSS
// does not show it, and so does that of a slab given back, until its 31 neighbours are as well).
#pragma once

#include "base/check.hpp"
#include "base/intrusive_list.hpp"
#include "base/sanitizer.hpp"
#include "stack/segment_canary.hpp"
#include "stack/small_segment_layout.hpp"

#include <tendril/stack.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <new>
#include <optional>

namespace tendril::detail {

class small_segment_cache;

/// Segments, unless it says otherwise. The parts are read one after the other.
struct small_segment_stats {
  std::size_t created = 0;   ///< in all slabs ever cut
  std::size_t in_use = 0;    ///< held by fibers
  std::size_t warm = 0;      ///< free, kept by a worker
  std::size_t free = 0;      ///< free, in the source
  std::size_t slabs = 0;     ///< of 64 KiB
  std::size_t returned = 0;  ///< times a slab's memory was given back
  std::size_t canaries = 0;  ///< slabs without a guard page
  std::size_t arenas = 0;
  std::size_t address_space_bytes = 0;
};

struct small_segment_options {
  /// nullopt: what TENDRIL_STACK_GUARD says, else the best the system has.
  std::optional<stack_guard> guard = std::nullopt;
  std::size_t first_arena_bytes = std::size_t{64} << 20;  ///< powers of two
  std::size_t largest_arena_bytes = std::size_t{1} << 30;
};

class small_segment_source {
 public:
  /// \throws std::system_error  TENDRIL_STACK_GUARD has a value that cannot be obeyed
  explicit small_segment_source(small_segment_options options = {});
  ~small_segment_source();  ///< nothing is in use
  small_segment_source(const small_segment_source&) = delete;
  small_segment_source& operator=(const small_segment_source&) = delete;

  /// Writes the bases of up to `count` segments; returns how many: 0 when the system has no address
  /// space left. Their contents are unspecified; they have no canary yet.
  unsigned take(std::byte** bases, unsigned count) noexcept;
  /// Takes segments back. Sorts `bases`.
  void give(std::byte** bases, unsigned count) noexcept;

  /// Whether any slab has nothing but a canary for a guard.
  bool has_canaries() const noexcept { return canaries_.load(std::memory_order_relaxed) != 0; }
  /// False when the segment is the lowest of such a slab and was run over.
  bool guard_intact(std::byte* base) const noexcept;

  unsigned per_slab() const noexcept { return per_slab_; }
  small_segment_stats stats() const noexcept;

 private:
  friend class small_segment_cache;

  struct slab;
  struct arena;

  unsigned take_partial_locked(std::byte** bases, unsigned count) noexcept;
  slab* fresh_slab_locked() noexcept;
  arena* make_arena_locked() noexcept;
  static arena* map_arena(std::size_t bytes) noexcept;
  static void destroy_arena(arena* a) noexcept;
  void guard_slab(slab& s) noexcept;
  void discard(intrusive_list<slab>& slabs) noexcept;
  std::uint32_t all_free() const noexcept { return (std::uint32_t{1} << per_slab_) - 1; }
  static arena* arena_of(std::byte* inside) noexcept;

  void attach(small_segment_cache& cache) noexcept;
  void detach(small_segment_cache& cache) noexcept;

  const stack_guard mode_;
  const unsigned per_slab_;
  const std::size_t largest_arena_bytes_;
  std::atomic<std::size_t> canaries_{0};

  mutable std::mutex mutex_;
  intrusive_list<slab> partial_;  ///< the one used last in front
  intrusive_list<slab> emptied_;
  arena* arenas_ = nullptr;  ///< slabs are cut from the first one
  std::size_t next_arena_bytes_;
  small_segment_stats counted_;  ///< what is not counted by caches

  mutable std::mutex caches_mutex_;
  mutable intrusive_list<small_segment_cache> caches_;  ///< for statistics only
};

class small_segment_cache : public list_node<> {  // the source's list, under its lock
 public:
  /// 131,072 segments, as many as a stack_cache keeps stacks of 64 KiB.
  static constexpr std::size_t default_watermark = std::size_t{256} << 20;

  explicit small_segment_cache(small_segment_source& source,
                               std::size_t watermark = default_watermark) noexcept;
  /// Gives everything back.
  ~small_segment_cache();
  small_segment_cache(const small_segment_cache&) = delete;
  small_segment_cache& operator=(const small_segment_cache&) = delete;

  /// The base of a segment, its canary written, all else unspecified; null when the system has no
  /// address space left.
  std::byte* acquire() noexcept {
    link* const l = free_;
    if (l == nullptr) [[unlikely]]
      return acquire_cold();
    free_ = l->next;
    add(-1);
    std::byte* const base = reinterpret_cast<std::byte*>(l) - link_offset;
    unpoison(base, small_segment_bytes);
    return base;
  }

  /// The segment's fiber has left it for good. Ends the process if it was run over.
  void release(std::byte* base) noexcept {
    TENDRIL_ASSERT(reinterpret_cast<std::uintptr_t>(base) % small_segment_bytes == 0,
                   "a small segment is released by its base");
    check_small_segment_canary(base);
    if (source_.has_canaries()) [[unlikely]]
      check_guard(base);
    // A pointer into the stack of a fiber that has ended is reported from here on.
    poison(base, link_offset);
    unpoison(base + link_offset, sizeof(link));
    free_ = ::new (base + link_offset) link{free_};
    add(1);
    if (count_.load(std::memory_order_relaxed) > watermark_) [[unlikely]]
      trim_to_watermark();
  }

  /// Gives all free segments back.
  void trim() noexcept;

  /// For a worker that has had nothing to do for a while: whether more is kept than a worker at rest
  /// should hold (1/64 of the watermark), and giving some of that back, half a millisecond's worth.
  bool worth_trimming() const noexcept {
    return count_.load(std::memory_order_relaxed) > watermark_ / 64;
  }
  void trim_portion() noexcept;

 private:
  friend class small_segment_source;

  struct link {
    link* next;
  };
  static constexpr std::size_t link_offset = small_segment_bytes - sizeof(link);
  static constexpr unsigned max_batch = 64;
  static constexpr std::size_t portion = 2048;  ///< segments: 4 MiB

  void add(std::ptrdiff_t n) noexcept {
    count_.store(count_.load(std::memory_order_relaxed) + static_cast<std::size_t>(n),
                 std::memory_order_relaxed);
  }

  std::byte* acquire_cold() noexcept;
  void check_guard(std::byte* base) const noexcept;
  void trim_to_watermark() noexcept;
  void give_until(std::size_t left) noexcept;

  small_segment_source& source_;
  link* free_ = nullptr;
  // Written by the owner alone, so plain loads and stores do; atomic because stats() reads it.
  std::atomic<std::size_t> count_{0};
  std::size_t watermark_;  ///< segments
};

}  // namespace tendril::detail
