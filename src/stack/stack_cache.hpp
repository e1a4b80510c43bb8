// SPDX-License-Identifier: Apache-2.0
//
// A worker's own stacks: what makes a fiber's stack cost two nanoseconds.
//
// Idea: a released slice goes on top of a list of its size class and is the next to be acquired: its
// top is in the cache of this core, and its first page is committed (a first touch costs 2 us). The
// link lies in the slice itself, in the line where the next fiber's first frame will be. Nothing else
// is read or written but this object.
//
//     take, 16 at once           acquire                release
//    source ----------> cold ----------> in use <------------.
//      ^                                   |  ^              |
//      |                           release v  | acquire      |
//      '------- past the watermark, 64 ---- warm ------------'
//               at once, memory given back
//
// Memory is not given back at every release or park: a madvise and the next first touch cost a
// thousand times the switch. It is when more than `watermark` bytes of address space are warm; then
// the class that has most of it gives.
//
// Who may call what: the owning thread only; counters may be read by stack_source::stats. A slice may
// be released into another cache of the same source than the one it came from.
#pragma once

#include "base/check.hpp"
#include "base/sanitizer.hpp"
#include "stack/slice_layout.hpp"
#include "stack/stack_source.hpp"

#include <tendril/stack.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

namespace tendril::detail {

class stack_cache : public list_node<> {  // the source's list, under its lock
 public:
  static constexpr std::size_t default_watermark = std::size_t{8} << 30;

  explicit stack_cache(stack_source& source, std::size_t watermark = default_watermark) noexcept;
  /// Gives everything back, unless the source is closed.
  ~stack_cache();
  stack_cache(const stack_cache&) = delete;
  stack_cache& operator=(const stack_cache&) = delete;

  /// A slice of the class; an empty one when the system has no memory left. Its contents are
  /// unspecified.
  stack_slice acquire(unsigned size_class) noexcept {
    lane& l = lanes_[size_class];
    link* const w = l.warm;
    if (w == nullptr) [[unlikely]]
      return acquire_cold(size_class);
    l.warm = w->next;
    add(l.warm_count, -1);
    room_ += static_cast<std::ptrdiff_t>(class_bytes(size_class));
    auto* const at = reinterpret_cast<std::byte*>(w);
    const stack_slice slice{w->low, at + sizeof(link)};
    unpoison(slice.low, static_cast<std::size_t>(slice.high - slice.low));
    return slice;
  }

  /// The slice's fiber has left it for good. With canaries: ends the process if the stack overflowed.
  void release(stack_slice slice, unsigned size_class) noexcept {
    TENDRIL_ASSERT(slice == slice_at(slice_base(slice.low, size_class), size_class, guard_bytes_),
                   "a slice is released as it was acquired, under its own class");
    if (source_.has_canaries()) [[unlikely]]
      check_canary(slice, size_class);
    std::byte* const at = slice.high - sizeof(link);
    // A pointer into the stack of a fiber that has ended is reported from here on.
    poison(slice.low, static_cast<std::size_t>(at - slice.low));
    unpoison(at, sizeof(link));
    lane& l = lanes_[size_class];
    l.warm = ::new (at) link{l.warm, nullptr};
    // By itself: one wide store of both would first put them together, in memory.
    std::atomic_ref(l.warm->low).store(slice.low, std::memory_order_relaxed);
    add(l.warm_count, 1);
    room_ -= static_cast<std::ptrdiff_t>(class_bytes(size_class));
    if (room_ < 0) [[unlikely]]
      trim_to_watermark();
  }

  /// Gives the memory of all warm slices back.
  void trim() noexcept;

  /// For a worker that has had nothing to do for a while: whether more is kept warm than a worker at
  /// rest should hold (1/64 of the watermark), and giving some of that back, half a millisecond's worth.
  bool worth_trimming() const noexcept { return room_ < watermark_ - kept_bytes(); }
  void trim_portion() noexcept;

 private:
  friend class stack_source;

  struct link {
    link* next;
    std::byte* low;  ///< of the slice
  };

  static constexpr unsigned max_cold = 16;

  struct lane {
    link* warm = nullptr;
    // Written by the owner alone, so plain loads and stores do; atomic because stats() reads them.
    std::atomic<std::uint32_t> warm_count{0};
    std::atomic<std::uint32_t> cold_count{0};
    std::array<std::byte*, max_cold> cold;  ///< bases; a link in them would commit their top page
  };

  static void add(std::atomic<std::uint32_t>& count, std::int32_t n) noexcept {
    count.store(count.load(std::memory_order_relaxed) + static_cast<std::uint32_t>(n),
                std::memory_order_relaxed);
  }

  static constexpr std::ptrdiff_t portion_bytes = std::ptrdiff_t{64}
                                                  << 20;  // 1,024 stacks of 64 KiB
  std::ptrdiff_t kept_bytes() const noexcept { return watermark_ / 64; }

  stack_slice acquire_cold(unsigned size_class) noexcept;
  void give_back(std::ptrdiff_t enough) noexcept;
  void trim_to_watermark() noexcept;
  /// Moves warm slices of the class to the source until there is `room`; at most a batch.
  void give_batch(unsigned size_class, std::ptrdiff_t room) noexcept;
  void check_canary(const stack_slice& slice, unsigned size_class) const noexcept;
  void add_to(stack_stats& stats) const noexcept;

  stack_source& source_;
  std::size_t guard_bytes_;
  std::ptrdiff_t room_;  ///< warm bytes that may still come
  std::ptrdiff_t watermark_;
  std::array<lane, class_count> lanes_;
};

}  // namespace tendril::detail
