// SPDX-License-Identifier: Apache-2.0
//
// Memory of fiber cores: slabs that are never given back while the process lives, because a late
// unpark may touch a core after its fiber's end (see fiber_core.hpp). Each worker thread has a cache; the
// rest is one list behind a lock. Slabs grow from 64 KiB to 2 MiB; the large ones are aligned and
// advised as huge pages, since a million fibers otherwise pay for a page fault every 32 cores.
#pragma once

#include "sched/fiber_core.hpp"

#include <cstddef>

namespace tendril::detail {

/// Owner-thread only.
class core_cache {
 public:
  core_cache() = default;
  core_cache(const core_cache&) = delete;
  core_cache& operator=(const core_cache&) = delete;
  ~core_cache();

  /// \throws std::bad_alloc
  fiber_core* get() {
    if (head_ == nullptr) refill();
    fiber_core* const c = head_;
    head_ = c->next;
    --count_;
    return c;
  }
  void put(fiber_core* c) noexcept {
    c->next = head_;
    head_ = c;
    if (++count_ > high_water) spill();
  }

 private:
  static constexpr std::size_t batch = 128;
  static constexpr std::size_t high_water = 4096;
  void refill();
  void spill() noexcept;

  fiber_core* head_ = nullptr;
  std::size_t count_ = 0;
};

/// For plain threads.
fiber_core* get_core_from_pool();
void put_core_to_pool(fiber_core* c) noexcept;

/// Calls visit(core, argument) for every core there is, alive or not, while others use them: read
/// flags first, and nothing but atomics. Takes no lock and no memory.
void for_each_core(void (*visit)(fiber_core&, void*), void* argument);

/// Whether a core is at this address. Takes no lock.
bool is_core(const void* address) noexcept;

// Marks, for epochs (parked.hpp): a byte for each core, so that marking one needs no room that could run out, and
// one for each block of cores, so that unmarked ones cost next to nothing to pass by. A thread that is stopped at
// any instruction leaves them as they are before or after.

/// Any thread. A mark that is made twice is one mark.
void mark_core(fiber_core* c) noexcept;
/// While nobody marks. visit returns whether the core keeps its mark.
void for_each_marked_core(bool (*visit)(fiber_core&, void*), void* argument);
/// While nobody marks: gives every core the mark that visit returns, which is told whether it has one.
void mark_every_core(bool (*visit)(fiber_core&, bool marked, void*), void* argument);

}  // namespace tendril::detail
