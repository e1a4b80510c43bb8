// SPDX-License-Identifier: Apache-2.0
#include "sched/core_pool.hpp"

#include "platform/memory.hpp"

#include <algorithm>
#include <mutex>
#include <new>
#include <vector>

namespace tendril::detail {
namespace {

struct slab {
  fiber_core* first;
  std::size_t count;
};

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
        slabs_.back().count = static_cast<std::size_t>(fresh_ - slabs_.back().first);
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

  void visit(void (*f)(fiber_core&, void*), void* argument) {
    std::vector<slab> slabs;
    {
      std::scoped_lock hold(mutex_);
      slabs = slabs_;
    }
    for (const slab& s : slabs)
      for (std::size_t i = 0; i != s.count; ++i) f(s.first[i], argument);
  }

 private:
  void grow() {
    const std::size_t bytes = next_slab_bytes_;
    slabs_.reserve(slabs_.size() + 1);
    void* const memory = bytes >= huge_page_bytes
                             ? ::operator new (bytes, std::align_val_t{huge_page_bytes})
                             : ::operator new (bytes, std::align_val_t{alignof(fiber_core)});
    if (bytes >= huge_page_bytes)
      platform::advise_huge_pages(memory, bytes, platform::huge_pages::allowed);
    fresh_ = static_cast<fiber_core*>(memory);
    fresh_end_ = fresh_ + bytes / sizeof(fiber_core);
    slabs_.push_back({fresh_, 0});
    next_slab_bytes_ = std::min(bytes * 4, huge_page_bytes * 4);
  }

  static constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

  std::mutex mutex_;
  fiber_core* free_ = nullptr;
  fiber_core* fresh_ = nullptr;
  fiber_core* fresh_end_ = nullptr;
  std::size_t next_slab_bytes_ = std::size_t{64} << 10;
  std::vector<slab> slabs_;
};

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
  core_pool::instance().visit(visit, argument);
}

}  // namespace tendril::detail
