// SPDX-License-Identifier: Apache-2.0
#include "sched/core_pool.hpp"

#include "base/check.hpp"
#include "base/static_tables.hpp"
#include "platform/memory.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

namespace tendril::detail {
namespace {

constexpr std::size_t marks_in_block = 512;

struct slab {
  fiber_core* first = nullptr;
  std::size_t capacity = 0;
  std::atomic<std::size_t> count{0};  ///< cores that have been constructed
  std::uint8_t* marks = nullptr;      ///< one a core; zeros until it is marked
  std::uint8_t* blocks = nullptr;     ///< one for each marks_in_block of them
};

/// A table of fixed size, so that it can be read at any moment: 8 MiB a slab but for the first ones, good for
/// 268 million fibers. Entries below slab_count are complete, all but their count.
constexpr std::size_t most_slabs = 4096;
constinit std::array<slab, most_slabs> slabs;
const static_table slabs_noted(slabs);
constinit std::atomic<std::size_t> slab_count{0};

class core_pool {
 public:
  // Never destroyed: threads may end after static destruction has begun.
  static core_pool& instance() {
    static core_pool& pool = *new core_pool;
    return pool;
  }

  /// A chain of up to `wanted` cores; at least one.
  fiber_core* take(std::size_t wanted, std::size_t& got) {
    std::scoped_lock hold(mutex_);
    if (free_ == nullptr && fresh_ == fresh_end_) grow();
    fiber_core* chain = nullptr;
    for (got = 0; got < wanted; ++got) {
      fiber_core* c = free_;
      if (c != nullptr) {
        free_ = c->next;
      } else if (fresh_ != fresh_end_) {
        // Constructed here and not in grow(): a slab's pages are touched when they are needed.
        c = ::new (static_cast<void*>(fresh_++)) fiber_core;
        slab& last = slabs[slab_count.load(std::memory_order_relaxed) - 1];
        last.count.store(static_cast<std::size_t>(fresh_ - last.first),
                         std::memory_order_release);  // pairs with for_each_core(): constructed
      } else {
        break;
      }
      c->next = chain;
      chain = c;
    }
    return chain;
  }

  void give(fiber_core* chain, fiber_core* last) noexcept {
    std::scoped_lock hold(mutex_);
    last->next = free_;
    free_ = chain;
  }

 private:
  void grow() {
    const std::size_t n = slab_count.load(std::memory_order_relaxed);
    if (n == most_slabs) throw std::bad_alloc();
    const std::size_t bytes = next_slab_bytes_;
    slab& s = slabs[n];
    s.capacity = bytes / sizeof(fiber_core);
    const std::size_t blocks = (s.capacity + marks_in_block - 1) / marks_in_block;
    // Zeros that are not touched: without epochs the marks take no memory.
    auto* const marks = static_cast<std::uint8_t*>(std::calloc(blocks * (marks_in_block + 1), 1));
    if (marks == nullptr) throw std::bad_alloc();
    void* memory;
    try {
      memory = bytes >= huge_page_bytes
                   ? ::operator new (bytes, std::align_val_t{huge_page_bytes})
                   : ::operator new (bytes, std::align_val_t{alignof(fiber_core)});
    } catch (...) {
      std::free(marks);
      throw;
    }
    if (bytes >= huge_page_bytes)
      platform::advise_huge_pages(memory, bytes, platform::huge_pages::allowed);
    s.marks = marks;
    s.blocks = marks + blocks * marks_in_block;
    s.first = static_cast<fiber_core*>(memory);
    slab_count.store(n + 1, std::memory_order_release);  // pairs with the readers: the entry
    fresh_ = s.first;
    fresh_end_ = fresh_ + s.capacity;
    next_slab_bytes_ = std::min(bytes * 4, huge_page_bytes * 4);
  }

  static constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

  std::mutex mutex_;
  fiber_core* free_ = nullptr;
  fiber_core* fresh_ = nullptr;
  fiber_core* fresh_end_ = nullptr;
  std::size_t next_slab_bytes_ = std::size_t{64} << 10;
};

/// The slab of the core at that address, and its number there. Null: no core is there.
slab* slab_at(const void* address, std::size_t& index) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  // The later, the larger.
  for (std::size_t n = slab_count.load(std::memory_order_acquire); n-- != 0;) {
    slab& s = slabs[n];
    const std::uintptr_t offset = at - reinterpret_cast<std::uintptr_t>(s.first);
    index = offset / sizeof(fiber_core);
    if (index < s.count.load(std::memory_order_acquire) && offset % sizeof(fiber_core) == 0)
      return &s;
  }
  return nullptr;
}

void set_mark(std::uint8_t& mark, bool on) noexcept {
  std::atomic_ref(mark).store(on ? 1 : 0, std::memory_order_relaxed);
}

}  // namespace

core_cache::~core_cache() {
  if (head_ == nullptr) return;
  fiber_core* last = head_;
  while (last->next != nullptr) last = last->next;
  core_pool::instance().give(head_, last);
}

void core_cache::refill() {
  std::size_t got = 0;
  head_ = core_pool::instance().take(batch, got);
  count_ = got;
}

void core_cache::spill() noexcept {
  fiber_core* const chain = head_;
  fiber_core* last = chain;
  for (std::size_t i = 1; i != high_water / 2; ++i) last = last->next;
  head_ = last->next;
  count_ -= high_water / 2;
  core_pool::instance().give(chain, last);
}

fiber_core* get_core_from_pool() {
  std::size_t got = 0;
  return core_pool::instance().take(1, got);
}

void put_core_to_pool(fiber_core* c) noexcept { core_pool::instance().give(c, c); }

void for_each_core(void (*visit)(fiber_core&, void*), void* argument) {
  const std::size_t n = slab_count.load(std::memory_order_acquire);
  for (std::size_t i = 0; i != n; ++i) {
    const std::size_t count = slabs[i].count.load(std::memory_order_acquire);
    for (std::size_t k = 0; k != count; ++k) visit(slabs[i].first[k], argument);
  }
}

bool is_core(const void* address) noexcept {
  std::size_t index = 0;
  return slab_at(address, index) != nullptr;
}

void mark_core(fiber_core* c) noexcept {
  std::size_t index = 0;
  slab* const s = slab_at(c, index);
  TENDRIL_CHECK(s != nullptr, "fibers' cores come from the pool");
  set_mark(s->marks[index], true);
  set_mark(s->blocks[index / marks_in_block], true);
}

void for_each_marked_core(bool (*visit)(fiber_core&, void*), void* argument) {
  const std::size_t n = slab_count.load(std::memory_order_acquire);
  for (std::size_t i = 0; i != n; ++i) {
    slab& s = slabs[i];
    const std::size_t blocks = (s.capacity + marks_in_block - 1) / marks_in_block;
    for (std::size_t b = 0; b != blocks; ++b) {
      if (s.blocks[b] == 0) continue;
      bool any = false;
      for (std::size_t k = b * marks_in_block; k != (b + 1) * marks_in_block;) {
        std::uint64_t eight = 0;
        std::memcpy(&eight, &s.marks[k], sizeof eight);
        if (eight == 0) {
          k += sizeof eight;
          continue;
        }
        for (const std::size_t end = k + sizeof eight; k != end; ++k) {
          if (s.marks[k] == 0) continue;
          if (visit(s.first[k], argument)) any = true;
          else set_mark(s.marks[k], false);
        }
      }
      if (!any) set_mark(s.blocks[b], false);
    }
  }
}

void mark_every_core(bool (*visit)(fiber_core&, bool, void*), void* argument) {
  const std::size_t n = slab_count.load(std::memory_order_acquire);
  for (std::size_t i = 0; i != n; ++i) {
    slab& s = slabs[i];
    const std::size_t count = s.count.load(std::memory_order_acquire);
    for (std::size_t k = 0; k != count; ++k) {
      const bool had = s.marks[k] != 0;
      const bool has = visit(s.first[k], had, argument);
      if (has) set_mark(s.blocks[k / marks_in_block], true);
      if (has != had) set_mark(s.marks[k], has);
    }
  }
}

}  // namespace tendril::detail
