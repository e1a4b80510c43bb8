// SPDX-License-Identifier: Apache-2.0
//
// Which slot a tasklet gets when it starts, and how many there are.
//
// Idea: a tasklet is bound to its slot for life, so who shares with whom is decided here, once. What costs is two that
// take turns; two of which one has been idle for long cost nothing. So in this order it gets
//
//   1. a slot that nobody is bound to, one used just before if possible,
//   2. one that is made for it, as long as there are fewer than slots_at_first,
//   3. one that is made for it, up to the bound, if of a few drawn at random all are in use,
//   4. the best of those: with few bound to it; empty, or its resident idle, rather than just parked, rather than about
//      to run.
//
// In use is a slot that has a resident without spot::idle. A tasklet has that mark from its start, until it comes back
// for the first time, and when the monitor has not seen it run since its last look (slots.cpp). So timers and idle
// connections make room before those that take part, a crowd that only waits makes no more slots, however large it is,
// and a hot set gets as many as it has members, as far as they come one after the other. The memory of slots that are
// empty is given back by the monitor; their addresses are kept, they are the first to be shared.
//
// Rejected: what a resident waits for, a timer or a descriptor or a lock, as the measure of who is wanted last: it is on
// a line of memory that nobody has touched for long, and wrong about busy connections. All slots from the beginning: a
// stack of seven kilobytes takes twelve there, two when it is folded. To bind a tasklet anew: there are pointers to its
// stack in its stack.
//
// Who may call what: a free_slots belongs to a worker, or is guarded by its user; the pool: any thread.
#pragma once

#include "base/spinlock.hpp"
#include "stack/slot_arena.hpp"

#include <atomic>
#include <cstdint>
#include <memory>

namespace tendril::detail {

struct slot;
struct slot_options;

/// A worker's slots that nobody is bound to, the last used first.
struct free_slots {
  static constexpr unsigned high_water = 64;

  slot* free = nullptr;
  unsigned count = 0;
  std::uint64_t random = 0x9E3779B97F4A7C15U;
};

class slot_pool {
 public:
  explicit slot_pool(const slot_options& options);
  ~slot_pool();
  slot_pool(const slot_pool&) = delete;
  slot_pool& operator=(const slot_pool&) = delete;

  slot_arena& arena() noexcept { return arena_; }
  const slot_arena& arena() const noexcept { return arena_; }

  /// Where a choice comes from, and so what is to be done about it under its lock, see take().
  enum class origin : std::uint8_t {
    listed,  ///< from a list of free ones
    made,    ///< it has never been used
    shared   ///< somebody is bound to it, or was when it was drawn
  };
  struct choice {
    slot* where;  ///< null: there is none, and none can be made
    origin from;
  };
  choice choose(free_slots& mine) noexcept;
  /// Another one, of those that there are.
  choice draw(free_slots& mine) noexcept { return {draw_best(mine).best, origin::shared}; }
  /// The chooser has its lock. False: it is exclusive since it was drawn.
  bool take(const choice& c) noexcept;
  /// Under the lock of a slot that nobody is bound to any more.
  void put_back(slot& s, free_slots& mine) noexcept;
  /// All of them, of a worker that ends.
  void take_back(free_slots& mine) noexcept;

  // Under the slot's lock, by the only one who is bound to it: slots.hpp, invariant 5.
  void keep(slot& s) noexcept;
  void end_exclusive(slot& s) noexcept;

  /// Whether a tasklet that starts would have to share, or cause more slots than at first.
  bool crowded(const free_slots& mine) const noexcept {
    return mine.free == nullptr && made() >= at_first_;
  }
  unsigned made() const noexcept { return made_.load(std::memory_order_relaxed); }
  /// Acquire: the slots below that number can be used.
  unsigned usable() const noexcept { return made_.load(std::memory_order_acquire); }
  slot& at(unsigned index) noexcept;
  /// Null: the address is in none that has been made.
  slot* find(const void* address) noexcept {
    const unsigned i = arena_.index_of(address);
    return i < usable() ? &at(i) : nullptr;
  }

 private:
  struct drawn {
    slot* best;
    bool all_in_use;
  };
  drawn draw_best(free_slots& mine) noexcept;
  slot* pop(free_slots& mine) noexcept;
  slot* make(unsigned most) noexcept;

  const unsigned limit_;
  const unsigned at_first_;
  slot_arena arena_;
  /// Room for `limit_`, of which the first made() are constructed: a runtime without tasklets, and nearly all are that,
  /// touches none of its pages.
  slot* const slots_;
  std::atomic<unsigned> made_{0};
  std::atomic<unsigned> kept_{0};  ///< exclusive ones
  spinlock lock_;
  slot* free_ = nullptr;  ///< from workers that had too many; under the lock, as is making one
};

}  // namespace tendril::detail
