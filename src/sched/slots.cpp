// SPDX-License-Identifier: Apache-2.0
#include "sched/slots.hpp"

#include "base/check.hpp"
#include "base/sanitizer.hpp"
#include "sched/pinned_stack.hpp"
#include "sched/slot_contract.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <utility>

namespace tendril::detail {
namespace {

/// Of all slots together, images of at most about so many bytes that are in use now and then are not folded.
constexpr std::size_t whole_bytes = std::size_t{256} << 20;

[[noreturn]] void no_memory_for(const fiber_core& c, std::size_t bytes) noexcept {
  std::fprintf(stderr,
               "tendril: no memory to copy the stack of tasklet '%s' (id %llu, %zu bytes) out of "
               "its slot\n",
               name_of(&c), static_cast<unsigned long long>(c.id.load(std::memory_order_relaxed)),
               bytes);
  std::abort();
}

std::uint64_t next_random(std::uint64_t& state) noexcept {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

}  // namespace

slot_table::slot_table(const slot_options& options)
    : strict_(options.strict),
      limit_(options.most),
      entry_(options.entry),
      evict_after_(options.evict_after),
      pack_after_(options.pack_after),
      most_whole_(
          std::clamp(whole_bytes / options.most, std::size_t{64} << 10, std::size_t{16} << 20)),
      arena_(options.size_class, options.most, options.guard),
      slots_(std::make_unique<slot[]>(limit_)),
      deep_(std::make_unique<std::atomic<std::uint64_t>[]>(65'536 / 64)) {}

slot_table::~slot_table() {
  for (unsigned i = 0; i != cut(); ++i)
    TENDRIL_ASSERT(slots_[i].bound.load(std::memory_order_relaxed) == 0,
                   "slots outlive their tasklets");
  for (slot* s = free_; s != nullptr; s = s->next_free) {
    [[maybe_unused]] const bool listed_once = std::exchange(s->listed, false);
    TENDRIL_ASSERT(listed_once, "a free slot is in one list, once");
  }
}

// ---- Which slot ------------------------------------------------------------------------------

/// listed: it is from a list of free ones.
slot* slot_table::choose(slot_cache& mine, bool& listed) noexcept {
  listed = true;
  if (slot* const s = pop_free(mine)) return s;
  listed = false;
  if (slot* const s = cut_one()) return s;
  return share(mine);
}

/// Gives f, which starts, its slot, whose lock the result holds; nothing: there is none.
std::unique_lock<spinlock> slot_table::bind(tasklet_frame& f, slot_cache& mine) noexcept {
  for (;;) {
    bool listed;
    slot* const s = choose(mine, listed);
    if (s == nullptr) return {};
    std::unique_lock hold(s->lock);
    // Only who takes it off its list says so: one that is shared meanwhile must not be listed twice.
    if (listed) s->listed = false;
    if (s->exclusive.load(std::memory_order_relaxed)) continue;  // since it was drawn
    s->bound.store(s->bound.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    f.home = s;
    f.slice = s->slice;
    return hold;
  }
}

/// Under the slot's lock, by the only one who is bound to it: invariant 5.
void slot_table::keep(slot& s) noexcept {
  unsigned kept = kept_.load(std::memory_order_relaxed);
  do {
    if (kept >= limit_ / 4) return;
  } while (!kept_.compare_exchange_weak(kept, kept + 1, std::memory_order_relaxed));
  s.exclusive.store(true, std::memory_order_relaxed);
}
void slot_table::end_exclusive(slot& s) noexcept {
  if (!s.exclusive.load(std::memory_order_relaxed)) return;
  s.exclusive.store(false, std::memory_order_relaxed);
  kept_.fetch_sub(1, std::memory_order_relaxed);
}

slot* slot_table::cut_one() noexcept {
  if (cut_.load(std::memory_order_relaxed) == limit_) return nullptr;
  const std::lock_guard hold(free_lock_);
  if (cut_.load(std::memory_order_relaxed) == limit_) return nullptr;
  const stack_slice slice = arena_.cut();
  if (!slice) return nullptr;
  if (cut_.load(std::memory_order_relaxed) == 0)
    extend_slot_hull(slice_base(slice.low, size_class()),
                     arena_.most() * class_bytes(size_class()));
  slot& s = slots_[cut_.load(std::memory_order_relaxed)];
  s.slice = slice;
  cut_.fetch_add(1, std::memory_order_release);  // pairs with share()'s acquire
  return &s;
}

/// It stays `listed` until it is bound by who took it: others that retire from it meanwhile do not list it again. Who
/// finds it by share() leaves it in its list.
slot* slot_table::pop_free(slot_cache& mine) noexcept {
  if (slot* const s = mine.free) {
    mine.free = s->next_free;
    --mine.count;
    return s;
  }
  const std::lock_guard hold(free_lock_);
  slot* const s = free_;
  if (s != nullptr) free_ = s->next_free;
  return s;
}

/// Under the slot's lock.
void slot_table::push_free(slot& s, slot_cache& mine) noexcept {
  if (std::exchange(s.listed, true)) return;
  if (mine.count < slot_cache::high_water) {
    s.next_free = mine.free;
    mine.free = &s;
    ++mine.count;
    return;
  }
  const std::lock_guard hold(free_lock_);
  s.next_free = free_;
  free_ = &s;
}

void slot_table::take_back(slot_cache& mine) noexcept {
  const std::lock_guard hold(free_lock_);
  while (slot* const s = mine.free) {
    mine.free = s->next_free;
    s->next_free = free_;
    free_ = s;
  }
  mine.count = 0;
}

slot* slot_table::share(slot_cache& mine) noexcept {
  const unsigned n = cut_.load(std::memory_order_acquire);
  if (n == 0) return nullptr;
  slot* best = nullptr;
  std::uint32_t best_cost = 0;
  for (int draw = 0; draw != 8; ++draw) {
    slot& s = slots_[next_random(mine.random) % n];
    if (s.exclusive.load(std::memory_order_relaxed)) continue;
    const fiber_core* const r = s.resident.load(std::memory_order_relaxed);
    // Those who share a slot meet more often the more they are; one that is about to run is met at once, and one
    // that has been idle for long will be wanted last.
    std::uint32_t cost = s.bound.load(std::memory_order_relaxed) * 4;
    if (r != nullptr) {
      if (!r->park.looks_parked()) cost += 8;
      else if ((r->flags.load(std::memory_order_relaxed) & flag::idle) == 0) cost += 2;
    }
    if (best == nullptr || cost < best_cost) {
      best = &s;
      best_cost = cost;
    }
  }
  return best;
}

// ---- Moving, under the slot's lock -----------------------------------------------------------

/// True: r, the resident, is parked and held.
bool slot_table::hold_resident(slot& s, fiber_core& r, made_runnable& out) noexcept {
  if (!r.park.try_hold()) return false;
  if (is_tasklet(r.stack_class) && r.affinity != affinity_thread &&
      (r.flags.load(std::memory_order_relaxed) & flag::away) == 0 && r.the_frame() != nullptr &&
      tasklet_frame_of(r).home == &s && !tasklet_frame_of(r).stays) [[likely]]
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
  if (!f.image.capture(low, top, size)) no_memory_for(r, static_cast<std::size_t>(top - low));
  if (static_cast<std::size_t>(top - low) >= deep_bytes) [[unlikely]]
    note_deep(f.kind);
  if ((r.flags.load(std::memory_order_relaxed) & flag::slot_wanted) != 0)
    r.flags.fetch_and(~flag::slot_wanted, std::memory_order_relaxed);
  // Release: who visits images while the monitor moves residents out (parked.hpp) finds this one's bytes.
  r.flags.fetch_or(flag::away, std::memory_order_release);
  s.resident.store(nullptr, std::memory_order_relaxed);
  mine.captures.add();
  mine.bytes_copied.add(static_cast<std::size_t>(top - low));
  stack_image::block& b = *f.image.whole();
  b.owner = &f;
  b.since = clock_.load(std::memory_order_relaxed);
  s.images.push(b);
  // Twice, so that it ends where several small ones are followed by large ones.
  for (int turn = 0; turn != 2 && s.images.bytes > s.images.limit; ++turn) fold_oldest(s, mine);
  if (strict_) {
    spoil_stack(low, top);
    s.spoiled = low;
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

/// False: it is like no other and stays whole.
bool slot_table::fold_oldest(slot& s, slot_cache& mine) noexcept {
  stack_image::block& b = *s.images.oldest;
  s.images.remove(b);
  tasklet_frame& f = *static_cast<tasklet_frame*>(b.owner);
  const std::size_t before = f.image.bytes();
  if (!f.image.fold(patterns_, image_owner_of(f))) {
    b.unlike = true;
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

/// A whole image is to change: it is in no list.
void slot_table::forget(slot& s, const stack_image::block& b) noexcept {
  if (b.owner == nullptr) return;
  (b.unlike ? s.unlike : s.images).remove(b);
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
    } else {
      forget(s, *f.image.whole());
    }
    mine.restores.add();
    mine.bytes_copied.add(f.image.restore(s.slice.high, image_owner_of(f)));
  } else {
    unpoison(s.slice.low, static_cast<std::size_t>(s.slice.high - s.slice.low));
    c.ctx.make(s.slice.low, s.slice.high, entry_);
    f.started = true;
  }
  if (strict_ || s.waiting_first != nullptr)
    c.flags.fetch_or(flag::slot_wanted, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_release);
  c.flags.fetch_and(~flag::away, std::memory_order_relaxed);
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

slot_table::entrance slot_table::enter(fiber_core& c, slot_cache& mine,
                                       made_runnable& out) noexcept {
  tasklet_frame& f = tasklet_frame_of(c);
  const std::unique_lock lock = f.home == nullptr ? bind(f, mine) : std::unique_lock(f.home->lock);
  if (!lock) return entrance::no_slot;
  slot& s = *f.home;
  if (fiber_core* const r = s.resident.load(std::memory_order_relaxed)) {
    bool held = hold_resident(s, *r, out);
    if (!held) {
      // The wish first, then the hold: see the head. Harmless if r has ended.
      r->flags.fetch_or(flag::slot_wanted, std::memory_order_relaxed);
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
  bool listed = true;
  slot* s = pop_free(mine);
  if (s == nullptr) {
    listed = false;
    s = cut_one();
  }
  bool fresh = s != nullptr;
  for (int draw = 0;; ++draw) {
    constexpr int most_draws = 16;
    if (s == nullptr && (draw == most_draws || (s = share(mine)) == nullptr)) return false;
    const std::lock_guard hold(s->lock);
    if (std::exchange(listed, false)) s->listed = false;
    fiber_core* const r = s->resident.load(std::memory_order_relaxed);
    if (!s->exclusive.load(std::memory_order_relaxed) &&
        (r == nullptr || hold_resident(*s, *r, out))) {
      if (r != nullptr) {
        move_out(*s, *r, mine);
        if (r->park.release_hold()) out.first = r;
      }
      const std::uint32_t bound = s->bound.load(std::memory_order_relaxed) + 1;
      s->bound.store(bound, std::memory_order_relaxed);
      if (fresh && bound == 1) keep(*s);
      f.home = s;
      f.slice = s->slice;
      settle(*s, c);
      f.started = true;
      return true;
    }
    if (out.second != nullptr) return false;  // one at a time, and this is rare
    s = nullptr;
    fresh = false;
  }
}

void slot_table::leave(fiber_core& c, slot_cache& mine, made_runnable& out) noexcept {
  slot& s = *tasklet_frame_of(c).home;
  const std::lock_guard hold(s.lock);
  end_exclusive(s);
  if (tasklet_frame_of(c).stays) return;  // it leaves at a later departure, for it stays wanted
  fiber_core* const next = next_waiting(s);
  if (next == nullptr && !strict_) {
    c.flags.fetch_and(~flag::slot_wanted, std::memory_order_relaxed);
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

// ---- What has been idle for long --------------------------------------------------------------

/// True: it would have something to do later, if nothing changes.
bool slot_table::tend_stack(slot& s, std::uint32_t now, slot_cache& mine,
                            made_runnable& out) noexcept {
  using sight = slot::sight;
  if (evict_after_ == slot_options::never) return false;
  fiber_core* const r = s.resident.load(std::memory_order_relaxed);
  if (r == nullptr) {
    if (s.seen == sight::bare || strict_) return false;
    if (s.seen != sight::empty) {
      s.seen = sight::empty;
      s.idle_since = now;
    } else if (now - s.idle_since >= evict_after_ && image_visit::none_before()) {
      arena_.discard(s.slice);
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
  if (s.seen != sight::resident_idle ||
      (r->flags.load(std::memory_order_relaxed) & flag::idle) == 0) {
    r->flags.fetch_or(flag::idle, std::memory_order_relaxed);
    s.seen = sight::resident_idle;
    s.idle_since = now;
    return true;
  }
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
  if (const stack_image::block* const b = s.images.oldest;
      b != nullptr && evict_after_ != slot_options::never) {
    if (now - b->since >= evict_after_) {
      const std::size_t bytes = b->bytes;
      fold_oldest(s, mine);
      // They do not take turns any more.
      s.images.limit -= std::min(bytes, s.images.limit - image_queue::least);
      return bytes;
    }
    aging_ = true;
  }
  if (const stack_image::block* const b = s.unlike.oldest;
      b != nullptr && pack_after_ != slot_options::never) {
    if (now - b->since >= pack_after_) {
      const std::size_t bytes = b->bytes;
      pack_oldest(s, mine);
      return bytes;
    }
    aging_ = true;
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
    end_ = cut_.load(std::memory_order_acquire);
    round_began_ = now;
    aging_ = false;
    if (end_ == 0) return done;
  }
  slot& s = slots_[next_];
  const std::lock_guard hold(s.lock);
  const std::size_t bytes = tend_image(s, now, mine);
  if (bytes != 0) return bytes;
  if (tend_stack(s, now, mine, out)) aging_ = true;
  if (++next_ == end_) settled_ = !aging_;
  return 0;
}

void slot_table::retire(slot& s, slot_cache& mine, made_runnable& out) noexcept {
  TENDRIL_CHECK(arena_.guard_intact(s.slice), "a tasklet has run over the end of its slot");
  const std::lock_guard hold(s.lock);
  s.resident.store(nullptr, std::memory_order_relaxed);
  end_exclusive(s);
  const std::uint32_t left = s.bound.load(std::memory_order_relaxed) - 1;
  s.bound.store(left, std::memory_order_relaxed);
  if (strict_) poison(s.slice.low, static_cast<std::size_t>(s.slice.high - s.slice.low));
  if (fiber_core* const next = next_waiting(s)) {
    put_in(s, *next, mine);
    out.first = next;
  } else if (left == 0) {
    push_free(s, mine);
  }
}

}  // namespace tendril::detail
