// SPDX-License-Identifier: Apache-2.0
#include "stack/small_segments.hpp"

#include "platform/memory.hpp"
#include "stack/arena_table.hpp"
#include "stack/guard.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>

namespace tendril::detail {

/// What is remembered of a slab: 32 bytes for 30 segments.
struct small_segment_source::slab : list_node<> {
  explicit slab(arena* a) noexcept : owner(a) {}

  arena* owner;
  std::uint32_t free = 0;                   ///< bit i: segment i is free
  stack_guard guard = stack_guard::canary;  ///< written before any segment is handed out
  bool guarded = false;                     ///< whether guard_slab was there
};

/// At the start of a mapping of its own, followed by the records of the slabs.
struct small_segment_source::arena {
  small_segment_source* owner = nullptr;
  std::byte* base = nullptr;
  std::size_t bytes = 0;
  std::size_t bookkeeping_bytes = 0;
  std::size_t cut = 0;  ///< slabs below this one have been handed out once
  arena* next = nullptr;
  std::atomic<std::size_t> mprotect_guards{0};

  slab* slabs() noexcept { return reinterpret_cast<slab*>(this + 1); }
  std::size_t slab_count() const noexcept { return bytes / segment_slab_bytes; }
  slab& slab_at(const std::byte* inside) noexcept {
    return slabs()[static_cast<std::size_t>(inside - base) / segment_slab_bytes];
  }
  std::byte* base_of(const slab& s) noexcept {
    return base + static_cast<std::size_t>(&s - slabs()) * segment_slab_bytes;
  }
  bool contains(const std::byte* p) const noexcept {
    return static_cast<std::size_t>(p - base) < bytes;
  }
};

namespace {

/// The free segment to hand out next: one whose page is half used, if there is one.
unsigned best_free(std::uint32_t free) noexcept {
  constexpr std::uint32_t even = 0x5555'5555;
  const std::uint32_t used = ~free;
  const std::uint32_t neighbour_used = ((used & even) << 1) | ((used >> 1) & even);
  const std::uint32_t half = free & neighbour_used;
  return static_cast<unsigned>(std::countr_zero(half != 0 ? half : free));
}

}  // namespace

small_segment_source::small_segment_source(small_segment_options options)
    : mode_(options.guard ? *options.guard : choose_guard_mode(std::getenv("TENDRIL_STACK_GUARD"))),
      per_slab_(segments_per_slab(platform::page_size())),
      largest_arena_bytes_(std::bit_ceil(options.largest_arena_bytes)),
      next_arena_bytes_(std::bit_ceil(std::max(options.first_arena_bytes, arena_alignment))) {
  static_assert(sizeof(slab) == 32 && sizeof(arena) % alignof(slab) == 0);
  static_assert(segments_per_slab(2048) < 32, "a slab's bits fit in its word");
}

small_segment_source::~small_segment_source() {
  TENDRIL_CHECK(caches_.empty(), "a source of segments outlives its caches");
  TENDRIL_CHECK(counted_.free == counted_.created, "no segment is in use when its source ends");
  while (partial_.pop_front() != nullptr) {
  }
  while (emptied_.pop_front() != nullptr) {
  }
  while (arena* a = arenas_) {
    arenas_ = a->next;
    destroy_arena(a);
  }
}

unsigned small_segment_source::take(std::byte** bases, unsigned count) noexcept {
  unsigned n = 0;
  for (;;) {
    slab* fresh;
    {
      const std::lock_guard lock(mutex_);
      n += take_partial_locked(bases + n, count - n);
      if (n == count) return n;
      fresh = fresh_slab_locked();
      if (fresh == nullptr) return n;
    }
    // Outside the lock: microseconds, and nobody else knows this slab.
    if (!fresh->guarded) guard_slab(*fresh);
    const unsigned now = std::min(count - n, per_slab_);
    std::byte* const first = fresh->owner->base_of(*fresh) + platform::page_size();
    for (unsigned i = 0; i < now; ++i) bases[n++] = first + i * small_segment_bytes;
    const std::size_t page = platform::page_size();
    // May fail: then each page faults at its first touch.
    platform::populate_memory(first, (now * small_segment_bytes + page - 1) / page * page);
    fresh->free = all_free() & ~((std::uint32_t{1} << now) - 1);
    if (now == per_slab_) continue;
    const std::lock_guard lock(mutex_);
    counted_.free += per_slab_ - now;
    partial_.push_front(*fresh);
  }
}

unsigned small_segment_source::take_partial_locked(std::byte** bases, unsigned count) noexcept {
  unsigned n = 0;
  while (n < count && !partial_.empty()) {
    slab& s = *partial_.front();
    std::byte* const first = s.owner->base_of(s) + platform::page_size();
    while (n < count && s.free != 0) {
      const unsigned i = best_free(s.free);
      s.free &= ~(std::uint32_t{1} << i);
      bases[n++] = first + i * small_segment_bytes;
    }
    if (s.free == 0) partial_.pop_front();
  }
  counted_.free -= n;
  return n;
}

small_segment_source::slab* small_segment_source::fresh_slab_locked() noexcept {
  if (per_slab_ == 0) return nullptr;
  if (slab* s = emptied_.pop_front()) {  // its guard and page tables exist
    counted_.free -= per_slab_;
    return s;
  }
  arena* a = arenas_;
  if (a == nullptr || a->cut == a->slab_count()) a = make_arena_locked();
  if (a == nullptr) return nullptr;
  ++counted_.slabs;
  counted_.created += per_slab_;
  return ::new (a->slabs() + a->cut++) slab(a);
}

void small_segment_source::give(std::byte** bases, unsigned count) noexcept {
  std::sort(bases, bases + count);
  intrusive_list<slab> empty_now;
  {
    const std::lock_guard lock(mutex_);
    arena* a = nullptr;
    for (unsigned n = 0; n < count; ++n) {
      if (a == nullptr || !a->contains(bases[n])) a = arena_of(bases[n]);
      TENDRIL_CHECK(a != nullptr && a->owner == this,
                    "a small segment goes back to its own source");
      slab& s = a->slab_at(bases[n]);
      const auto offset = static_cast<std::size_t>(bases[n] - a->base_of(s));
      const std::size_t i = (offset - platform::page_size()) / small_segment_bytes;
      TENDRIL_CHECK(offset >= platform::page_size() && offset % small_segment_bytes == 0,
                    "a small segment goes back by its base");
      const std::uint32_t bit = std::uint32_t{1} << i;
      TENDRIL_CHECK((s.free & bit) == 0, "a small segment goes back once");
      if (s.free == 0) partial_.push_front(s);
      s.free |= bit;
      if (s.free == all_free()) {
        partial_.remove(s);
        empty_now.push_back(s);
      }
    }
    counted_.free += count;
  }
  if (!empty_now.empty()) discard(empty_now);
}

void small_segment_source::discard(intrusive_list<slab>& slabs) noexcept {
  const std::size_t page = platform::page_size();
  std::size_t n = 0;
  // They are in order of address. Neighbours go by one call, over the guards between them.
  for (slab* s = slabs.front(); s != nullptr;) {
    slab* last = s;
    slab* following = slabs.next(*s);
    for (++n; following == last + 1 && following->owner == s->owner; ++n) {
      last = following;
      following = slabs.next(*last);
    }
    std::byte* const low = s->owner->base_of(*s) + page;
    std::byte* const high = s->owner->base_of(*last) + segment_slab_bytes;
    platform::discard_memory(low, static_cast<std::size_t>(high - low));
    s = following;
  }
  const std::lock_guard lock(mutex_);
  emptied_.splice_back(slabs);
  counted_.returned += n;
}

bool small_segment_source::guard_intact(std::byte* base) const noexcept {
  std::byte* const low = slab_of(base);
  if (base != low + platform::page_size()) return true;
  arena* const a = arena_of(base);
  return a == nullptr || a->slab_at(base).guard != stack_guard::canary || canary_intact(low);
}

small_segment_source::arena* small_segment_source::arena_of(std::byte* inside) noexcept {
  return static_cast<arena*>(find_arena(inside, small_segment_class));
}

small_segment_source::arena* small_segment_source::make_arena_locked() noexcept {
  // Where address space is rationed (RLIMIT_AS, strict overcommit) a smaller one may still be had.
  arena* a = nullptr;
  for (std::size_t bytes = next_arena_bytes_; a == nullptr && bytes >= arena_alignment; bytes /= 2)
    a = map_arena(bytes);
  if (a == nullptr) return nullptr;
  a->owner = this;
  if (!add_arena(a->base, static_cast<unsigned>(std::countr_zero(a->bytes)), small_segment_class,
                 a)) {
    platform::release_memory(a->base, a->bytes);
    platform::release_memory(a, a->bookkeeping_bytes);
    return nullptr;
  }
  a->next = arenas_;
  arenas_ = a;
  next_arena_bytes_ = std::max(std::min(a->bytes * 2, largest_arena_bytes_), arena_alignment);
  ++counted_.arenas;
  counted_.address_space_bytes += a->bytes;
  return a;
}

small_segment_source::arena* small_segment_source::map_arena(std::size_t bytes) noexcept {
  auto* base = static_cast<std::byte*>(platform::reserve_memory(bytes, arena_alignment));
  if (base == nullptr) return nullptr;
  const std::size_t page = platform::page_size();
  const std::size_t bookkeeping =
      (sizeof(arena) + bytes / segment_slab_bytes * sizeof(slab) + page - 1) / page * page;
  void* record_memory = platform::reserve_memory(bookkeeping, page);
  if (record_memory == nullptr) {
    platform::release_memory(base, bytes);
    return nullptr;
  }
  platform::advise_huge_pages(base, bytes, platform::huge_pages::never);
  auto* a = ::new (record_memory) arena;
  a->base = base;
  a->bytes = bytes;
  a->bookkeeping_bytes = bookkeeping;
  return a;
}

void small_segment_source::destroy_arena(arena* a) noexcept {
  remove_arena(a->base);
  unpoison(a->base, a->bytes);  // the addresses may become anybody's
  platform::release_memory(a->base, a->bytes);
  forget_mprotect_guards(a->mprotect_guards.load(std::memory_order_relaxed));
  const std::size_t bytes = a->bookkeeping_bytes;
  a->~arena();
  platform::release_memory(a, bytes);
}

void small_segment_source::guard_slab(slab& s) noexcept {
  s.guard = install_slice_guard(s.owner->base_of(s), mode_);
  s.guarded = true;
  if (s.guard == stack_guard::canary) canaries_.fetch_add(1, std::memory_order_relaxed);
  if (s.guard == stack_guard::mprotect)
    s.owner->mprotect_guards.fetch_add(1, std::memory_order_relaxed);
}

void small_segment_source::attach(small_segment_cache& cache) noexcept {
  const std::lock_guard lock(caches_mutex_);
  caches_.push_back(cache);
}

void small_segment_source::detach(small_segment_cache& cache) noexcept {
  const std::lock_guard lock(caches_mutex_);
  caches_.remove(cache);
}

small_segment_stats small_segment_source::stats() const noexcept {
  small_segment_stats s;
  {
    const std::lock_guard lock(mutex_);
    s = counted_;
  }
  {
    const std::lock_guard lock(caches_mutex_);
    caches_.for_each(
        [&](const small_segment_cache& c) { s.warm += c.count_.load(std::memory_order_relaxed); });
  }
  // Segments that moved meanwhile may be counted twice.
  s.in_use = s.created > s.free + s.warm ? s.created - s.free - s.warm : 0;
  s.canaries = canaries_.load(std::memory_order_relaxed);
  return s;
}

small_segment_cache::small_segment_cache(small_segment_source& source,
                                         std::size_t watermark) noexcept
    : source_(source), watermark_(watermark / small_segment_bytes) {
  source_.attach(*this);
}

small_segment_cache::~small_segment_cache() {
  trim();
  source_.detach(*this);
}

std::byte* small_segment_cache::acquire_cold() noexcept {
  std::array<std::byte*, max_batch> bases;
  unsigned n = source_.take(bases.data(), std::min(source_.per_slab(), max_batch));
  if (n == 0) return nullptr;
  for (unsigned i = 0; i < n; ++i) {
    unpoison(bases[i], small_segment_bytes);
    write_segment_canary(bases[i]);
  }
  add(static_cast<std::ptrdiff_t>(n) - 1);
  while (--n != 0) {  // the lowest one leaves first
    poison(bases[n], link_offset);
    free_ = ::new (bases[n] + link_offset) link{free_};
  }
  return bases[0];
}

void small_segment_cache::check_guard(std::byte* base) const noexcept {
  if (!source_.guard_intact(base)) report_broken_segment(base);
}

void small_segment_cache::trim() noexcept { give_until(0); }

void small_segment_cache::trim_to_watermark() noexcept {
  // A portion more than necessary, so that the next release does not come here again.
  give_until(watermark_ - std::min(portion, watermark_ / 8));
}

void small_segment_cache::trim_portion() noexcept {
  const std::size_t count = count_.load(std::memory_order_relaxed);
  const std::size_t kept = watermark_ / 64;
  if (count > kept) give_until(std::max(kept, count - std::min(count, portion)));
}

void small_segment_cache::give_until(std::size_t left) noexcept {
  std::array<std::byte*, max_batch> bases;
  std::size_t count = count_.load(std::memory_order_relaxed);
  while (count > left) {
    unsigned n = 0;
    for (; n < bases.size() && count > left; --count) {
      link* const l = free_;
      free_ = l->next;
      bases[n++] = reinterpret_cast<std::byte*>(l) - link_offset;
    }
    add(-static_cast<std::ptrdiff_t>(n));
    source_.give(bases.data(), n);
  }
}

}  // namespace tendril::detail
