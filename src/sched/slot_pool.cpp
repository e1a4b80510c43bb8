// SPDX-License-Identifier: Apache-2.0
#include "sched/slot_pool.hpp"

#include "base/check.hpp"
#include "sched/slot_contract.hpp"
#include "sched/slots.hpp"

#include <algorithm>
#include <mutex>
#include <utility>

namespace tendril::detail {
namespace {

std::uint64_t next_random(std::uint64_t& state) noexcept {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

}  // namespace

slot_pool::slot_pool(const slot_options& options)
    : limit_(options.most),
      at_first_(std::min(options.at_first, options.most)),
      arena_(options.size_class, options.most, options.guard),
      slots_(std::allocator<slot>().allocate(limit_)) {}

slot_pool::~slot_pool() {
  for (unsigned i = 0; i != made(); ++i)
    TENDRIL_ASSERT(slots_[i].bound.load(std::memory_order_relaxed) == 0,
                   "slots outlive their tasklets");
  for (slot* s = free_; s != nullptr; s = s->next_free) {
    [[maybe_unused]] const bool listed_once = std::exchange(s->listed, false);
    TENDRIL_ASSERT(listed_once, "a free slot is in one list, once");
  }
  std::destroy_n(slots_, made());
  std::allocator<slot>().deallocate(slots_, limit_);
}

slot& slot_pool::at(unsigned index) noexcept { return slots_[index]; }

slot_pool::choice slot_pool::choose(free_slots& mine) noexcept {
  if (slot* const s = pop(mine)) return {s, origin::listed};
  if (slot* const s = make(at_first_)) return {s, origin::made};
  const drawn d = draw_best(mine);
  if (d.all_in_use)
    if (slot* const s = make(limit_)) return {s, origin::made};
  return {d.best, origin::shared};
}

bool slot_pool::take(const choice& c) noexcept {
  // Only who takes it off its list says so: one that is shared meanwhile must not be listed twice.
  if (c.from == origin::listed) c.where->listed = false;
  return !c.where->exclusive.load(std::memory_order_relaxed);
}

slot_pool::drawn slot_pool::draw_best(free_slots& mine) noexcept {
  const unsigned n = usable();
  drawn d{nullptr, true};
  if (n == 0) return d;
  std::uint32_t best_cost = 0;
  for (int draw = 0; draw != 8; ++draw) {
    slot& s = slots_[next_random(mine.random) % n];
    if (s.exclusive.load(std::memory_order_relaxed)) continue;
    const fiber_core* const r = s.resident.load(std::memory_order_relaxed);
    // Those who share a slot meet more often the more they are; one that is about to run is met at once.
    std::uint32_t cost = s.bound.load(std::memory_order_relaxed) * 4;
    const bool runs = r != nullptr && !r->park.looks_parked();
    if (runs) cost += 8;
    else if (r != nullptr && !looks_idle(*r)) cost += 2;
    else d.all_in_use = false;
    if (d.best == nullptr || cost < best_cost) {
      d.best = &s;
      best_cost = cost;
    }
  }
  return d;
}

void slot_pool::keep(slot& s) noexcept {
  unsigned kept = kept_.load(std::memory_order_relaxed);
  do {
    if (kept >= at_first_ / 4) return;
  } while (!kept_.compare_exchange_weak(kept, kept + 1, std::memory_order_relaxed));
  s.exclusive.store(true, std::memory_order_relaxed);
}
void slot_pool::end_exclusive(slot& s) noexcept {
  if (!s.exclusive.load(std::memory_order_relaxed)) return;
  s.exclusive.store(false, std::memory_order_relaxed);
  kept_.fetch_sub(1, std::memory_order_relaxed);
}

/// Null: there are `most`, or the system has no address space left.
slot* slot_pool::make(unsigned most) noexcept {
  if (made() >= most) return nullptr;
  const std::lock_guard hold(lock_);
  const unsigned index = made();
  if (index >= most) return nullptr;
  const stack_slice slice = arena_.cut();
  if (!slice) return nullptr;
  if (index == 0)
    extend_slot_hull(slice_base(slice.low, arena_.size_class()),
                     arena_.most() * class_bytes(arena_.size_class()));
  slot& s = *std::construct_at(slots_ + index);
  s.slice = slice;
  made_.store(index + 1, std::memory_order_release);  // pairs with usable()'s acquire
  return &s;
}

/// It stays `listed` until it is taken by who took it off the list: others that retire from it meanwhile do not list it
/// again. Who finds it by draw() leaves it in its list.
slot* slot_pool::pop(free_slots& mine) noexcept {
  if (slot* const s = mine.free) {
    mine.free = s->next_free;
    --mine.count;
    return s;
  }
  const std::lock_guard hold(lock_);
  slot* const s = free_;
  if (s != nullptr) free_ = s->next_free;
  return s;
}

void slot_pool::put_back(slot& s, free_slots& mine) noexcept {
  if (std::exchange(s.listed, true)) return;
  if (mine.count < free_slots::high_water) {
    s.next_free = mine.free;
    mine.free = &s;
    ++mine.count;
    return;
  }
  const std::lock_guard hold(lock_);
  s.next_free = free_;
  free_ = &s;
}

void slot_pool::take_back(free_slots& mine) noexcept {
  const std::lock_guard hold(lock_);
  while (slot* const s = mine.free) {
    mine.free = s->next_free;
    s->next_free = free_;
    free_ = s;
  }
  mine.count = 0;
}

}  // namespace tendril::detail
