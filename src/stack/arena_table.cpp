// SPDX-License-Identifier: Apache-2.0
#include "stack/arena_table.hpp"

#include "base/check.hpp"
#include "base/static_tables.hpp"
#include "platform/memory.hpp"

#include <atomic>
#include <cstdint>

namespace tendril::detail {
namespace {

// A word:  base (multiple of 2 MiB) | 21 ... 12 unused | 11 ... 6 log2 of the size | 5 ... 0 class
constexpr std::uintptr_t base_mask = ~(std::uintptr_t{arena_alignment} - 1);
constexpr std::uintptr_t empty = 0;
constexpr std::uintptr_t claimed = 1;  // no base: never matches an address
constexpr std::size_t capacity = 16384;

struct entry {
  std::atomic<std::uintptr_t> word{empty};
  std::atomic<void*> owner{nullptr};
};

constinit entry entries[capacity];
const static_table entries_noted(entries);
constinit std::atomic<std::size_t> used{0};

constexpr std::uintptr_t encode(std::uintptr_t base, unsigned shift, unsigned size_class) noexcept {
  return base | (std::uintptr_t{shift} << 6) | size_class;
}
constexpr unsigned shift_of(std::uintptr_t word) noexcept { return (word >> 6) & 63; }
constexpr unsigned class_of(std::uintptr_t word) noexcept { return word & 63; }

struct hit {
  std::uintptr_t word = empty;
  entry* at = nullptr;
};

hit lookup(std::uintptr_t address) noexcept {
  // Acquire, here and of each word: pairs with add_arena. A reader that holds an address of an arena
  // learned it after that arena's add_arena returned, so it sees the entry.
  const std::size_t n = used.load(std::memory_order_acquire);
  for (std::size_t i = 0; i < n; ++i) {
    const std::uintptr_t word = entries[i].word.load(std::memory_order_acquire);
    const std::uintptr_t base = word & base_mask;
    if (base != 0 && address - base < (std::uintptr_t{1} << shift_of(word)))
      return {word, &entries[i]};
  }
  return {};
}

}  // namespace

bool find_stack(const void* address, found_stack& out) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  const hit h = lookup(at);
  if (h.at == nullptr) return false;
  const unsigned size_class = class_of(h.word);
  auto* low = reinterpret_cast<std::byte*>(h.word & base_mask);
  std::byte* const inside = low + (at - (h.word & base_mask));
  const std::size_t page = platform::page_size();
  if (size_class == small_segment_class) {
    std::byte* const slab = slab_of(inside);
    std::byte* const lowest = slab + page;
    std::byte* const segment =
        inside < lowest ? lowest
                        : inside - static_cast<std::size_t>(inside - lowest) % small_segment_bytes;
    out.slice = {segment, segment + small_segment_bytes};
    out.guard_low = segment == lowest ? slab : segment;
  } else {
    if (between_groups(at, size_class)) return false;
    std::byte* const base = slice_base(inside, size_class);
    out.slice = slice_at(base, size_class, page);
    out.guard_low = base;
  }
  out.size_class = size_class;
  out.arena_low = low;
  out.arena_high = low + (std::uintptr_t{1} << shift_of(h.word));
  return true;
}

bool add_arena(std::byte* base, unsigned shift, unsigned size_class, void* owner) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(base);
  TENDRIL_CHECK(at % arena_alignment == 0 &&
                    (size_class == small_segment_class || at % arena_grain(size_class) == 0),
                "arenas are aligned");
  for (std::size_t i = 0; i < capacity; ++i) {
    entry& e = entries[i];
    std::uintptr_t expected = empty;
    if (e.word.load(std::memory_order_relaxed) != empty) continue;
    // Acquire: pairs with remove_arena's release, so that the former owner's store stays before ours.
    if (!e.word.compare_exchange_strong(expected, claimed, std::memory_order_acquire,
                                        std::memory_order_relaxed)) {
      continue;
    }
    e.owner.store(owner, std::memory_order_relaxed);  // published by the word
    // used first: a reader that could see the word must also look this far.
    std::size_t n = used.load(std::memory_order_relaxed);
    while (n < i + 1 && !used.compare_exchange_weak(n, i + 1, std::memory_order_release,
                                                    std::memory_order_relaxed)) {
    }
    e.word.store(encode(at, shift, size_class), std::memory_order_release);
    return true;
  }
  return false;
}

void remove_arena(std::byte* base) noexcept {
  const hit h = lookup(reinterpret_cast<std::uintptr_t>(base));
  TENDRIL_CHECK(h.at != nullptr, "only arenas that were added are removed");
  h.at->word.store(empty, std::memory_order_release);
}

void* find_arena(const void* address, unsigned size_class) noexcept {
  const hit h = lookup(reinterpret_cast<std::uintptr_t>(address));
  if (h.at == nullptr || class_of(h.word) != size_class) return nullptr;
  return h.at->owner.load(std::memory_order_relaxed);
}

}  // namespace tendril::detail
