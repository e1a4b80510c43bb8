// SPDX-License-Identifier: Apache-2.0
#include "sched/slots.hpp"

#include "base/check.hpp"
#include "base/sanitizer.hpp"
#include "sched/pinned_stack.hpp"
#include "sched/slot_contract.hpp"
#include "sched/slot_guard.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace tendril::detail {
namespace {

/// Of all slots together, images of at most about so many bytes that are in use now and then are not folded.
constexpr std::size_t whole_bytes = std::size_t{256} << 20;

/// In strict mode: so much of what is free below a stack is spoiled, too. It was used by functions that have returned.
constexpr std::size_t spoiled_below = 1024;

[[noreturn]] void no_memory_for(const fiber_core& c, std::size_t bytes) noexcept {
  std::fprintf(stderr,
               "tendril: no memory to copy the stack of tasklet '%s' (id %llu, %zu bytes) out of "
               "its slot\n",
               name_of(&c), static_cast<unsigned long long>(c.id.load(std::memory_order_relaxed)),
               bytes);
  std::abort();
}

}  // namespace

slot_table::slot_table(const slot_options& options)
    : strict_(options.strict),
      entry_(options.entry),
      evict_after_(options.evict_after),
      pack_after_(options.pack_after),
      most_whole_(
          std::clamp(whole_bytes / options.most, std::size_t{64} << 10, std::size_t{16} << 20)),
      pool_(options),
      deep_(std::make_unique<std::atomic<std::uint64_t>[]>(65'536 / 64)) {}

/// Gives f, which starts, its slot, whose lock the result holds; nothing: there is none.
std::unique_lock<spinlock> slot_table::bind(tasklet_frame& f, slot_cache& mine) noexcept {
  for (;;) {
    const slot_pool::choice c = pool_.choose(mine);
    if (c.where == nullptr) return {};
    slot& s = *c.where;
    std::unique_lock hold(s.lock);
    if (!pool_.take(c)) continue;
    s.bound.store(s.bound.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    f.home = &s;
    f.slice = s.slice;
    return hold;
  }
}

// ---- Moving, under the slot's lock -----------------------------------------------------------

/// True: r, the resident, is parked and held.
bool slot_table::hold_resident(slot& s, fiber_core& r, made_runnable& out) noexcept {
  if (!r.park.try_hold()) return false;
  if (is_tasklet(r.stack_class) && r.affinity != affinity_thread && !r.is_at(spot::away) &&
      r.the_frame() != nullptr && tasklet_frame_of(r).home == &s && !tasklet_frame_of(r).stays)
      [[likely]]
    return true;
  // Another fiber in the core of one that has ended here (invariant 3); or one whose thread is blocked on its stack;
  // or others use that (stack_hold.hpp).
  if (r.park.release_hold()) out.second = &r;
  return false;
}

void slot_table::move_out(slot& s, fiber_core& r, slot_cache& mine, image_size size) noexcept {
  tasklet_frame& f = tasklet_frame_of(r);
  std::byte* const low = slot_low(r);
  std::byte* const top = s.slice.high;
  TENDRIL_ASSERT(low > s.slice.low && low < top, "a resident stands in its slot");
  if (f.generation != s.generation) [[unlikely]]
    report_damaged(r, "its slot has had another resident since; memory of the runtime is damaged");
  if (r.is_at(spot::guarded)) check_slot_guard(r);
  if (!f.image.capture_again(low, top, size)) [[unlikely]] {
    dequeue(s, f);
    if (!f.image.capture(low, top, size)) no_memory_for(r, static_cast<std::size_t>(top - low));
  }
  if (static_cast<std::size_t>(top - low) >= deep_bytes) [[unlikely]]
    note_deep(f.kind);
  r.slot_wanted.store(false, std::memory_order_relaxed);
  // Release: who visits images while the monitor moves residents out (parked.hpp) finds this one's bytes.
  r.enter(spot::away, std::memory_order_release);
  s.resident.store(nullptr, std::memory_order_relaxed);
  mine.captures.add();
  mine.bytes_copied.add(static_cast<std::size_t>(top - low));
  stack_image::block& b = *f.image.whole();
  b.since = clock_.load(std::memory_order_relaxed);
  if (b.owner == nullptr) [[unlikely]]
    enqueue(s, f, mine);
  if (strict_) {
    std::byte* const from =
        low - std::min(spoiled_below, static_cast<std::size_t>(low - s.slice.low));
    spoil_stack(from, top);
    s.spoiled = from;
  }
}

__attribute__((noinline)) void slot_table::note_deep(std::uint16_t kind) noexcept {
  deep_[kind / 64].fetch_or(std::uint64_t{1} << (kind % 64), std::memory_order_relaxed);
  any_deep_.store(true, std::memory_order_relaxed);
}

/// c is the resident from now on.
void slot_table::settle(slot& s, fiber_core& c) noexcept {
  if (strict_) {
    if (std::byte* const spoiled = std::exchange(s.spoiled, nullptr))
      if (const std::byte* const written = find_unspoiled(spoiled, s.slice.high)) [[unlikely]]
        report_written(s, written);
    unspoil_stack(s.slice.low, s.slice.high);
  }
  tasklet_frame_of(c).generation = ++s.generation;
  s.seen = slot::sight::busy;
  s.resident.store(&c, std::memory_order_relaxed);
}

/// The image of f, just captured.
__attribute__((noinline)) void slot_table::enqueue(slot& s, tasklet_frame& f,
                                                   slot_cache& mine) noexcept {
  stack_image::block& b = *f.image.whole();
  b.owner = &f;
  b.again = 0;
  b.unlike = 0;
  s.images.push(b);
  // Twice, so that it ends where several small ones are followed by large ones.
  for (int turn = 0; turn != 2 && s.images.bytes > s.images.limit; ++turn)
    if (next_unused(s.images, false) != nullptr) fold_oldest(s, mine);
}

/// The block of f is about to be freed, or is in no use.
__attribute__((noinline)) void slot_table::dequeue(slot& s, tasklet_frame& f) noexcept {
  stack_image::block* const b = f.image.whole();
  if (b == nullptr || b->owner == nullptr) return;
  (b->unlike != 0 ? s.unlike : s.images).remove(*b);
  b->owner = nullptr;
}

/// Brings an image to the old end of the queue that has not been used since it came into it, or to its other end. Null:
/// there was none among a few, and others are to be looked at another time. Blocks whose bytes are in the slot are no images
/// now: they go to the other end, too, or, to `drop` them, out of the queue until they are.
stack_image::block* slot_table::next_unused(image_queue& q, bool drop) noexcept {
  for (int looks = 0; looks != 4 && q.oldest != nullptr; ++looks) {
    stack_image::block& b = *q.oldest;
    const bool away = static_cast<tasklet_frame*>(b.owner)->core->is_at(spot::away);
    if (away && b.again == 0) return &b;
    q.remove(b);
    b.again = 0;
    if (away || !drop) q.push(b);
    else b.owner = nullptr;
  }
  return nullptr;
}

/// False: it is like no other and stays whole.
bool slot_table::fold_oldest(slot& s, slot_cache& mine) noexcept {
  stack_image::block& b = *s.images.oldest;
  s.images.remove(b);
  tasklet_frame& f = *static_cast<tasklet_frame*>(b.owner);
  const std::size_t before = f.image.bytes();
  if (!f.image.fold(patterns_, image_owner_of(f))) {
    b.unlike = 1;
    s.unlike.push(b);
    return false;
  }
  mine.folds.add();
  mine.fold_input.add(before);
  mine.fold_output.add(f.image.small_bytes());
  return true;
}

/// One that cannot be packed either is not looked at again.
void slot_table::pack_oldest(slot& s, slot_cache& mine) noexcept {
  stack_image::block& b = *s.unlike.oldest;
  s.unlike.remove(b);
  tasklet_frame& f = *static_cast<tasklet_frame*>(b.owner);
  b.owner = nullptr;
  const std::size_t before = f.image.bytes();
  if (!f.image.pack()) return;
  mine.packs.add();
  mine.pack_input.add(before);
  mine.pack_output.add(f.image.small_bytes());
}

void slot_table::put_in(slot& s, fiber_core& c, slot_cache& mine) noexcept {
  tasklet_frame& f = tasklet_frame_of(c);
  settle(s, c);
  if (f.started) {
    if (f.image.folded()) {
      mine.unfolds.add();
      s.images.learn(f.image.bytes(), most_whole_);
    } else if (f.image.packed()) {
      mine.unpacks.add();
    }
    mine.restores.add();
    mine.bytes_copied.add(f.image.restore(s.slice.high, image_owner_of(f)));
  } else {
    unpoison(s.slice.low, static_cast<std::size_t>(s.slice.high - s.slice.low));
    c.ctx.make(s.slice.low, s.slice.high, entry_);
    f.started = true;
    c.enter(spot::idle);  // until it comes back: slot_pool.hpp
  }
  if (strict_ || s.waiting_first != nullptr) c.slot_wanted.store(true, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_release);
  c.leave(spot::away);
  std::atomic_signal_fence(std::memory_order_release);
  if (f.image.is_small()) f.image.drop();  // after that: see stack_image::replace()
}

fiber_core* slot_table::next_waiting(slot& s) noexcept {
  fiber_core* const c = s.waiting_first;
  if (c == nullptr) return nullptr;
  s.waiting_first = c->next;
  if (s.waiting_first == nullptr) s.waiting_last = nullptr;
  c->next = nullptr;
  return c;
}

// ---- Entering and leaving --------------------------------------------------------------------

/// In one piece with what it calls: of a miss at a kilobyte, 88 ns, calls and saved registers here were 2 to 4.
[[gnu::flatten]] slot_table::entrance slot_table::enter(fiber_core& c, slot_cache& mine,
                                                        made_runnable& out) noexcept {
  tasklet_frame& f = tasklet_frame_of(c);
  const std::unique_lock lock = f.home == nullptr ? bind(f, mine) : std::unique_lock(f.home->lock);
  if (!lock) return entrance::no_slot;
  slot& s = *f.home;
  if (fiber_core* const r = s.resident.load(std::memory_order_relaxed)) {
    bool held = hold_resident(s, *r, out);
    if (!held) {
      // The wish first, then the hold: see the head. Harmless if r has ended.
      r->slot_wanted.store(true, std::memory_order_relaxed);
      held = hold_resident(s, *r, out);
    }
    if (!held) {
      c.next = nullptr;
      (s.waiting_last != nullptr ? s.waiting_last->next : s.waiting_first) = &c;
      s.waiting_last = &c;
      mine.conflicts.add();
      return entrance::waits;
    }
    move_out(s, *r, mine);
    if (r->park.release_hold()) out.first = r;
  }
  put_in(s, c, mine);
  return entrance::in;
}

bool slot_table::enter_now(fiber_core& c, slot_cache& mine, made_runnable& out) noexcept {
  tasklet_frame& f = tasklet_frame_of(c);
  slot_pool::choice chosen = pool_.choose(mine);
  for (int draws = 0;; chosen = pool_.draw(mine)) {
    constexpr int most_draws = 16;
    if (chosen.where == nullptr) return false;
    slot& s = *chosen.where;
    {
      const std::lock_guard hold(s.lock);
      fiber_core* const r = s.resident.load(std::memory_order_relaxed);
      if (pool_.take(chosen) && (r == nullptr || hold_resident(s, *r, out))) {
        if (r != nullptr) {
          move_out(s, *r, mine);
          if (r->park.release_hold()) out.first = r;
        }
        const std::uint32_t bound = s.bound.load(std::memory_order_relaxed) + 1;
        s.bound.store(bound, std::memory_order_relaxed);
        if (chosen.from != slot_pool::origin::shared && bound == 1) pool_.keep(s);
        f.home = &s;
        f.slice = s.slice;
        settle(s, c);
        f.started = true;
        return true;
      }
    }
    if (out.second != nullptr) return false;  // one at a time, and this is rare
    if (++draws == most_draws) return false;
  }
}

void slot_table::leave(fiber_core& c, slot_cache& mine, made_runnable& out) noexcept {
  slot& s = *tasklet_frame_of(c).home;
  const std::lock_guard hold(s.lock);
  pool_.end_exclusive(s);
  if (tasklet_frame_of(c).stays) return;  // it leaves at a later departure, for it stays wanted
  fiber_core* const next = next_waiting(s);
  if (next == nullptr && !strict_) {
    c.slot_wanted.store(false, std::memory_order_relaxed);
    return;
  }
  move_out(s, c, mine);
  if (next == nullptr) return;
  put_in(s, *next, mine);
  out.first = next;
}

void slot_table::leave_parked(slot& s, slot_cache& mine, made_runnable& out) noexcept {
  const std::lock_guard hold(s.lock);
  fiber_core* const r = s.resident.load(std::memory_order_relaxed);
  if (r == nullptr || s.waiting_first == nullptr || !hold_resident(s, *r, out)) return;
  move_out(s, *r, mine);
  if (r->park.release_hold()) out.second = r;
  fiber_core* const next = next_waiting(s);
  put_in(s, *next, mine);
  out.first = next;
}

bool slot_table::succeed(tasklet_frame& f, fiber_core& c) noexcept {
  slot& s = *f.home;
  TENDRIL_CHECK(pool_.arena().guard_intact(s.slice), "a tasklet has run over the end of its slot");
  const std::lock_guard hold(s.lock);
  if (strict_ || s.waiting_first != nullptr) return false;
  pool_.end_exclusive(s);
  if (f.image.whole() != nullptr) dequeue(s, f);
  tasklet_frame& successor = tasklet_frame_of(c);
  successor.home = &s;
  successor.slice = s.slice;
  successor.started = true;
  settle(s, c);
  c.enter(spot::idle);  // as in put_in()
  c.leave(spot::away);
  return true;
}

void slot_table::retire(tasklet_frame& f, slot_cache& mine, made_runnable& out) noexcept {
  slot& s = *f.home;
  TENDRIL_CHECK(pool_.arena().guard_intact(s.slice), "a tasklet has run over the end of its slot");
  const std::lock_guard hold(s.lock);
  s.resident.store(nullptr, std::memory_order_relaxed);
  pool_.end_exclusive(s);
  if (f.image.whole() != nullptr) dequeue(s, f);
  const std::uint32_t left = s.bound.load(std::memory_order_relaxed) - 1;
  s.bound.store(left, std::memory_order_relaxed);
  if (strict_) poison(s.slice.low, static_cast<std::size_t>(s.slice.high - s.slice.low));
  if (fiber_core* const next = next_waiting(s)) {
    put_in(s, *next, mine);
    out.first = next;
  } else if (left == 0) {
    pool_.put_back(s, mine);
  }
}

}  // namespace tendril::detail
