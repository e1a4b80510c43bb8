// SPDX-License-Identifier: Apache-2.0
#include "stack/stack_source.hpp"

#include "base/check.hpp"
#include "base/sanitizer.hpp"
#include "platform/memory.hpp"
#include "stack/arena_table.hpp"
#include "stack/guard.hpp"
#include "stack/stack_cache.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <new>

namespace tendril::detail {

/// What is remembered of a slice. A million parked fibers pay for each byte here.
struct stack_source::slice_record {
  std::uint32_t next_free = 0;
  stack_guard guard = stack_guard::canary;  ///< written by who cut the slice, before handing it out
};

namespace {
constexpr std::uint32_t no_slice = UINT32_MAX;
constexpr std::uint32_t group_slices = 1U << group_shift;
}  // namespace

/// At the start of a mapping of its own, followed by the slices' records. Not in front of the slices:
/// a stack that was overrun upwards would destroy it.
struct stack_source::arena {
  stack_source* owner = nullptr;
  std::byte* base = nullptr;
  std::size_t bytes = 0;
  std::size_t bookkeeping_bytes = 0;
  unsigned size_class = 0;
  std::uint32_t slices = 0;  ///< with those that groups leave out
  std::uint32_t cut = 0;     ///< slices below this one have been handed out once
  std::uint32_t first_free = no_slice;
  bool on_recycled = false;
  arena* next_made = nullptr;
  arena* next_recycled = nullptr;
  std::atomic<std::size_t> mprotect_guards{0};

  slice_record* records() noexcept { return reinterpret_cast<slice_record*>(this + 1); }
  // A shift is less than a slice, so that the index is that of the aligned place that a slice would have.
  std::uint32_t index_of(const std::byte* slice) const noexcept {
    return static_cast<std::uint32_t>(static_cast<std::size_t>(slice - base) >>
                                      class_shift(size_class));
  }
  std::byte* slice(std::uint32_t index) const noexcept {
    std::byte* const place = base + (std::size_t{index} << class_shift(size_class));
    return place + group_spread(reinterpret_cast<std::uintptr_t>(place), size_class);
  }
  /// The next one that has not been cut.
  std::byte* cut_slice() noexcept {
    std::byte* const next = slice(cut++);
    if (is_spread(size_class) && (cut & (group_slices - 1)) == group_slices - 1) ++cut;
    return next;
  }
  bool contains(const std::byte* p) const noexcept {
    return static_cast<std::size_t>(p - base) < bytes;
  }
};

stack_source::stack_source(stack_source_options options)
    : mode_(options.guard ? *options.guard : choose_guard_mode(std::getenv("TENDRIL_STACK_GUARD"))),
      largest_arena_bytes_(std::bit_ceil(options.largest_arena_bytes)) {
  static_assert(sizeof(slice_record) <= 8);
  static_assert(sizeof(arena) % alignof(slice_record) == 0);
  for (size_class_state& state : classes_) {
    state.next_arena_bytes = std::bit_ceil(options.first_arena_bytes);
  }
}

stack_source::~stack_source() {
  TENDRIL_CHECK(caches_.empty(), "a stack_source outlives its caches");
  for (size_class_state& state : classes_) {
    while (arena* a = state.made) {
      state.made = a->next_made;
      destroy_arena(a);
    }
  }
}

unsigned stack_source::take(unsigned size_class, std::byte** bases, unsigned count) noexcept {
  TENDRIL_ASSERT(count <= max_batch, "a batch has a limit");
  size_class_state& state = classes_[size_class];
  std::array<arena*, max_batch> from;
  unsigned n = 0;
  unsigned first_new;
  {
    const std::lock_guard lock(state.mutex);
    // Used ones first: their guards and page tables exist.
    while (n < count && state.recycled != nullptr) {
      arena* a = state.recycled;
      const std::uint32_t index = a->first_free;
      a->first_free = a->records()[index].next_free;
      if (a->first_free == no_slice) {
        state.recycled = a->next_recycled;
        a->on_recycled = false;
      }
      bases[n++] = a->slice(index);
      --state.free;
    }
    first_new = n;
    while (n < count) {
      arena* a = state.growing;
      if (a == nullptr || a->cut == a->slices) {
        a = make_arena_locked(state, size_class);
        if (a == nullptr) break;
      }
      from[n] = a;
      bases[n++] = a->cut_slice();
      ++state.created;
    }
  }
  // Outside the lock: half a microsecond each, and nobody else knows these slices.
  if (n != first_new) guard_slices(from.data() + first_new, bases + first_new, n - first_new);
  return n;
}

void stack_source::give(unsigned size_class, std::byte** bases, unsigned count,
                        memory state_of) noexcept {
  const std::size_t bytes = class_bytes(size_class);
  std::sort(bases, bases + count);
  if (state_of == memory::touched) {
    // Neighbours are given back by one call: fibers that were started together often end together,
    // and the call costs far more than the pages. Guards inside the run survive.
    for (unsigned i = 0; i < count;) {
      unsigned end = i + 1;
      while (end < count && bases[end] == bases[end - 1] + bytes) ++end;
      platform::discard_memory(bases[i], (end - i) * bytes);
      i = end;
    }
    trimmed_.fetch_add(count, std::memory_order_relaxed);
  }

  size_class_state& state = classes_[size_class];
  const std::lock_guard lock(state.mutex);
  arena* a = nullptr;
  for (unsigned i = 0; i < count; ++i) {
    if (a == nullptr || !a->contains(bases[i])) {
      a = static_cast<arena*>(find_arena(bases[i], size_class));
      TENDRIL_CHECK(a != nullptr && a->owner == this,
                    "a slice goes back to its own source under its own class");
    }
    const std::uint32_t index = a->index_of(bases[i]);
    a->records()[index].next_free = a->first_free;
    a->first_free = index;
    if (!a->on_recycled) {
      a->on_recycled = true;
      a->next_recycled = state.recycled;
      state.recycled = a;
    }
  }
  state.free += count;
}

bool stack_source::guard_intact(const stack_slice& slice, unsigned size_class) const noexcept {
  std::byte* base = slice_base(slice.low, size_class);
  auto* a = static_cast<arena*>(find_arena(base, size_class));
  if (a == nullptr) return false;
  return a->records()[a->index_of(base)].guard != stack_guard::canary || canary_intact(base);
}

stack_source::arena* stack_source::make_arena_locked(size_class_state& state,
                                                     unsigned size_class) noexcept {
  const std::size_t smallest = std::max(arena_alignment, arena_grain(size_class));
  // Where address space is rationed (RLIMIT_AS, strict overcommit) a smaller one may still be had.
  arena* a = nullptr;
  std::size_t bytes = std::max(state.next_arena_bytes, smallest);
  for (; a == nullptr && bytes >= smallest; bytes /= 2) a = map_arena(size_class, bytes);
  if (a == nullptr) return nullptr;
  a->owner = this;
  if (!add_arena(a->base, static_cast<unsigned>(std::countr_zero(a->bytes)), size_class, a)) {
    platform::release_memory(a->base, a->bytes);
    platform::release_memory(a, a->bookkeeping_bytes);
    return nullptr;
  }
  a->next_made = state.made;
  state.made = a;
  state.growing = a;
  state.next_arena_bytes = std::max(std::min(a->bytes * 2, largest_arena_bytes_), smallest);
  ++state.arenas;
  state.address_space += a->bytes;
  return a;
}

stack_source::arena* stack_source::map_arena(unsigned size_class, std::size_t bytes) noexcept {
  const std::size_t alignment = std::max(arena_alignment, arena_grain(size_class));
  auto* base = static_cast<std::byte*>(platform::reserve_memory(bytes, alignment));
  if (base == nullptr) return nullptr;
  const std::size_t slices = bytes >> class_shift(size_class);
  const std::size_t page = platform::page_size();
  const std::size_t bookkeeping =
      (sizeof(arena) + slices * sizeof(slice_record) + page - 1) / page * page;
  void* record_memory = platform::reserve_memory(bookkeeping, page);
  if (record_memory == nullptr) {
    platform::release_memory(base, bytes);
    return nullptr;
  }
  platform::advise_huge_pages(base, bytes, platform::huge_pages::never);
  auto* a = ::new (record_memory) arena;
  // The records start life when their slice is cut; the mapping is zero until then.
  a->base = base;
  a->bytes = bytes;
  a->bookkeeping_bytes = bookkeeping;
  a->size_class = size_class;
  a->slices = static_cast<std::uint32_t>(slices);
  return a;
}

void stack_source::destroy_arena(arena* a) noexcept {
  remove_arena(a->base);
  unpoison(a->base, a->bytes);  // the addresses may become anybody's
  platform::release_memory(a->base, a->bytes);
  forget_mprotect_guards(a->mprotect_guards.load(std::memory_order_relaxed));
  const std::size_t bytes = a->bookkeeping_bytes;
  a->~arena();
  platform::release_memory(a, bytes);
}

void stack_source::guard_slices(arena** of, std::byte** bases, unsigned count) noexcept {
  std::array<stack_guard, max_batch> got;
  install_slice_guards(bases, count, mode_, got.data());
  for (unsigned i = 0; i != count; ++i) {
    arena* const a = of[i];
    ::new (&a->records()[a->index_of(bases[i])]) slice_record{no_slice, got[i]};
    if (got[i] == stack_guard::canary) canaries_.fetch_add(1, std::memory_order_relaxed);
    if (got[i] == stack_guard::mprotect) a->mprotect_guards.fetch_add(1, std::memory_order_relaxed);
  }
}

void stack_source::attach(stack_cache& cache) noexcept {
  const std::lock_guard lock(caches_mutex_);
  caches_.push_back(cache);
}

void stack_source::detach(stack_cache& cache) noexcept {
  const std::lock_guard lock(caches_mutex_);
  caches_.remove(cache);
}

stack_stats stack_source::stats() const noexcept {
  stack_stats s;
  for (const size_class_state& state : classes_) {
    const std::lock_guard lock(state.mutex);
    s.created += state.created;
    s.cold += state.free;
    s.arenas += state.arenas;
    s.address_space_bytes += state.address_space;
  }
  {
    const std::lock_guard lock(caches_mutex_);
    caches_.for_each([&](const stack_cache& c) { c.add_to(s); });
  }
  // The parts were read one after the other; slices that moved meanwhile may be counted twice.
  const std::size_t free = s.warm + s.cold;
  s.in_use = s.created > free ? s.created - free : 0;
  s.trimmed = trimmed_.load(std::memory_order_relaxed);
  s.canaries = canaries_.load(std::memory_order_relaxed);
  s.guard = mode_;
  return s;
}

}  // namespace tendril::detail
