// SPDX-License-Identifier: Apache-2.0
//
// What the monitor does to slots: it finds out who is idle, and makes small what has been idle for long.
//
// In rounds over all slots, a few a second. Time is a coarse clock that it sets. That a resident has not run since the
// last look is known by a mark that is cleared when it is picked (spot::idle, beside spot::away), so that nothing is
// paid by who is not idle. The mark is made while the resident is held, as everything else that is done to it.
//
//     resident --- idle for evict_after ---> image, of exact size --- in the next round ---> folded
//     empty    --- for evict_after --------> its pages given back      like no other: packed, pack_after later
//
// An image at a time, and a portion of all each time that the monitor looks (scheduler::tend_slots): who wants to enter a
// slot meanwhile waits for one image, and a million that turn cold at once take no core for themselves.
#include "sched/slots.hpp"

#include <algorithm>
#include <mutex>

namespace tendril::detail {

/// True: it would have something to do later, if nothing changes.
bool slot_table::tend_stack(slot& s, std::uint32_t now, slot_cache& mine,
                            made_runnable& out) noexcept {
  using sight = slot::sight;
  const bool evicts = evict_after_ != slot_options::never;
  fiber_core* const r = s.resident.load(std::memory_order_relaxed);
  if (r == nullptr) {
    if (!evicts || s.seen == sight::bare || strict_) return false;
    if (s.seen != sight::empty) {
      s.seen = sight::empty;
      s.idle_since = now;
    } else if (now - s.idle_since >= evict_after_ && image_visit::none_before()) {
      pool_.arena().discard(s.slice);
      s.seen = sight::bare;
      mine.discards.add();
      return false;
    }
    return true;
  }
  // Who runs, or is a shell, will be looked at when that has changed.
  if (!r->park.looks_parked()) {
    s.seen = sight::busy;
    return false;
  }
  if (s.seen != sight::resident_idle || !looks_idle(*r)) {
    if (!hold_resident(s, *r, out)) {
      s.seen = sight::busy;
      return false;
    }
    r->enter(spot::idle);
    if (r->park.release_hold()) out.first = r;
    s.seen = sight::resident_idle;
    s.idle_since = now;
    return evicts;
  }
  if (!evicts) return false;
  if (now - s.idle_since < evict_after_) return true;
  const std::uint32_t since = s.idle_since;
  if (!hold_resident(s, *r, out)) {
    s.seen = sight::busy;
    return false;
  }
  move_out(s, *r, mine, image_size::exact);
  if (stack_image::block* const b = tasklet_frame_of(*r).image.whole()) b->since = since;
  mine.evictions.add();
  if (r->park.release_hold()) out.first = r;
  s.seen = sight::empty;  // as long as it was idle
  return true;
}

std::size_t slot_table::tend_image(slot& s, std::uint32_t now, slot_cache& mine) noexcept {
  if (s.images.oldest != nullptr && evict_after_ != slot_options::never) {
    const stack_image::block* const b = next_unused(s.images, true);
    if (b != nullptr && now - b->since >= evict_after_) {
      const std::size_t bytes = b->bytes;
      fold_oldest(s, mine);
      // They do not take turns any more.
      s.images.limit -= std::min(bytes, s.images.limit - image_queue::least);
      return bytes;
    }
    if (s.images.oldest != nullptr) aging_ = true;
  }
  if (s.unlike.oldest != nullptr && pack_after_ != slot_options::never) {
    const stack_image::block* const b = next_unused(s.unlike, true);
    if (b != nullptr && now - b->since >= pack_after_) {
      const std::size_t bytes = b->bytes;
      pack_oldest(s, mine);
      return bytes;
    }
    if (s.unlike.oldest != nullptr) aging_ = true;
  }
  return 0;
}

/// An image at a time: who wants to enter the slot meanwhile waits for one.
std::size_t slot_table::tend(std::uint32_t now, slot_cache& mine, made_runnable& out) noexcept {
  clock_.store(now, std::memory_order_relaxed);
  if (next_ == end_) {
    const std::uint32_t pause = std::min({evict_after_, pack_after_, std::uint32_t{3000}}) / 4;
    if (end_ != 0 && now - round_began_ < pause) return done;
    if (end_ != 0) settled_ = !aging_;
    next_ = 0;
    end_ = pool_.usable();
    round_began_ = now;
    aging_ = false;
    if (end_ == 0) return done;
  }
  slot& s = pool_.at(next_);
  const std::lock_guard hold(s.lock);
  const std::size_t bytes = tend_image(s, now, mine);
  if (bytes != 0) return bytes;
  if (tend_stack(s, now, mine, out)) aging_ = true;
  if (++next_ == end_) settled_ = !aging_;
  return 0;
}

}  // namespace tendril::detail
