// SPDX-License-Identifier: Apache-2.0
//
// Pending deadlines of one worker: a hierarchical timing wheel (Varghese and Lauck, 1987).
//
// Time is counted in ticks of 2^16 ns (65.5 us) of the steady clock. A deadline is rounded up to a tick
// and now is rounded down, so that nothing fires early. Six levels of 256 slots:
//
//     tick of a deadline   | 5 | 4 | 3 | 2 | 1 | 0 |      8 bits a group, 48 bits: all that
//     elapsed_             | 5 | 4 | 3 | 2 | 1 | 0 |      64-bit nanoseconds can express
//                                    ^
//     the highest group in which they differ is the level; the deadline's digit there is the slot
//
// Invariants
//  1. elapsed_ only grows; what was due at it has left the wheel.
//  2. At level L > 0 a timer's digit is greater than that of elapsed_, and the groups above L are equal;
//     at level 0 it is greater or equal. So everything on a lower level is due before everything on a
//     higher one, occupied slots never wrap, and the next one is found by two countr_zero.
//  3. advance() walks from occupied slot to occupied slot; one of a higher level, when its time begins,
//     is dealt out to lower ones (cascade). A timer cascades at most five times.
//  4. A bit of occupied_ is set exactly while its slot holds a timer.
//
// Every node lies on a page of its own, a fiber's stack: to touch one again is a miss of the cache and of
// the TLB, 0.3 us. Hence the wide levels: what is due within 16 ms never cascades, within 4 s once, and
// then shortly before it fires, together with no more than fit in the caches until they do. With 64 slots
// a level sleepers of up to a second cascaded twice, a quarter of a second's worth of them at a time.
//
// So many levels that no deadline has to be clamped to the end of the wheel; 24 KiB a worker. A heap was
// rejected: O(log n) to arm, and most timers here are I/O timeouts that are cancelled long before they
// fire, which costs two pointer writes here.
//
// Not thread-safe: a fiber that has moved cancels its timer in the wheel of another worker, so each
// worker guards its wheel by a spinlock. advance() with pop_due() lets it do so in short portions, and
// run what a timer wakes with the lock released.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/intrusive_list.hpp"

namespace tendril::detail {

struct timer_tag;

/// One deadline. The memory is the caller's, and must stay until the timer has fired or was cancelled;
/// typically it is part of a fiber's control block, and classes derive from it to find their way back.
class timer_node : public list_node<timer_tag> {
 public:
  /// Armed, and neither fired nor cancelled. Guarded like the wheel.
  bool pending() const noexcept { return linked(); }

 private:
  friend class timer_wheel;

  std::uint64_t tick_ = 0;
  std::uint32_t place_ = 0;  // level * 256 + slot, or place_never
};

class timer_wheel {
 public:
  using time_point = std::chrono::steady_clock::time_point;

  static constexpr std::chrono::nanoseconds tick_length{1 << 16};

  explicit timer_wheel(time_point now) noexcept;
  /// Forgets what is still pending; the nodes are free again.
  ~timer_wheel();
  timer_wheel(const timer_wheel&) = delete;
  timer_wheel& operator=(const timer_wheel&) = delete;

  /// node must not be pending. A deadline in the past fires at the next advance(); time_point::max()
  /// never does, but is cancelled like any other. O(1).
  void arm(timer_node& node, time_point deadline) noexcept;

  /// True when the node was pending here: it will not fire. False: it has fired, or pop_due() has given
  /// it out, or it was never armed. O(1).
  bool cancel(timer_node& node) noexcept;

  /// When to call advance() next: never later than the first deadline, rounded up to a tick, but perhaps
  /// earlier (when a slot of a higher level begins). nullopt: nothing will ever fire. O(1).
  std::optional<time_point> next_deadline() const noexcept;

  /// Moves all that is due at now from the wheel to the due list, ordered by tick. True when that list
  /// is not empty. When nothing is due it costs a few instructions. A now before an earlier now is that
  /// earlier one.
  bool advance(time_point now) noexcept;

  /// Takes the first node off the due list; nullptr when there is none.
  timer_node* pop_due() noexcept;
  /// Takes up to `most`; returns how many.
  std::size_t pop_due(timer_node** nodes, std::size_t most) noexcept;

  /// Advances and calls back(timer_node&) for each timer that was due at now; returns how many. The
  /// callback may arm any node that is not pending, its own included, and cancel any other; what it
  /// arms fires in a later call, even if it is due already. It must not throw.
  template <class Callback>
  std::size_t expire(time_point now, Callback&& back) {
    std::size_t fired = 0;
    if (advance(now)) {
      while (timer_node* const node = pop_due()) {
        ++fired;
        back(*node);
      }
    }
    return fired;
  }

  /// Timers pending, those on the due list included.
  std::size_t size() const noexcept { return size_; }

 private:
  using list = intrusive_list<timer_node, timer_tag>;

  static constexpr unsigned digit_bits = 8;
  static constexpr unsigned slots = 1U << digit_bits;
  static constexpr unsigned levels = 6;
  static constexpr unsigned word_bits = 64;
  static constexpr unsigned places = levels * slots;
  static constexpr std::uint32_t place_never = places;

  class look_ahead;

  void put(timer_node& node) noexcept;
  void set_occupied(unsigned place) noexcept;
  void set_empty(unsigned place) noexcept;
  unsigned first_place() const noexcept;
  std::uint64_t begin_of(unsigned place) const noexcept;

  std::uint64_t elapsed_;             // in ticks
  std::uint32_t occupied_words_ = 0;  // bit w: occupied_[w] is not zero
  std::size_t size_ = 0;
  // Bit p: slots_[p] holds a timer. Lower levels come first, and in each the earlier slots.
  std::array<std::uint64_t, places / word_bits> occupied_{};
  list due_;
  list never_;
  std::array<list, places> slots_;
};

}  // namespace tendril::detail
