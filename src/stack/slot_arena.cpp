// SPDX-License-Identifier: Apache-2.0
#include "stack/slot_arena.hpp"

#include "base/sanitizer.hpp"
#include "platform/memory.hpp"
#include "stack/arena_table.hpp"
#include "stack/guard.hpp"

#include <algorithm>
#include <bit>

namespace tendril::detail {

slot_arena::slot_arena(unsigned size_class, unsigned most, stack_guard mode) noexcept
    : size_class_(size_class), most_(std::bit_ceil(most)), mode_(mode) {
  // The table of arenas knows them by multiples of its alignment.
  const auto least = static_cast<unsigned>(arena_alignment >> class_shift(size_class));
  most_ = std::max(most_, least);
}

slot_arena::~slot_arena() {
  if (base_ == nullptr) return;
  remove_arena(base_);
  unpoison(base_, extent_);
  platform::release_memory(base_, extent_);
  forget_mprotect_guards(mprotect_guards_);
}

stack_slice slot_arena::cut() noexcept {
  const std::size_t bytes = class_bytes(size_class_);
  if (base_ == nullptr) {
    const std::size_t extent = bytes * most_;
    void* const memory = platform::reserve_memory(extent, std::max(arena_alignment, bytes));
    if (memory == nullptr) return {};
    if (!add_arena(static_cast<std::byte*>(memory), static_cast<unsigned>(std::countr_zero(extent)),
                   size_class_, this)) {
      platform::release_memory(memory, extent);
      return {};
    }
    platform::advise_huge_pages(memory, extent, platform::huge_pages::never);
    base_ = static_cast<std::byte*>(memory);
    first_ = reinterpret_cast<std::uintptr_t>(memory);
    extent_ = extent;
  }
  if (cut_ == most_) return {};
  std::byte* const base = base_ + bytes * cut_++;
  switch (install_slice_guard(base, mode_)) {
    case stack_guard::madvise:
      break;
    case stack_guard::mprotect:
      ++mprotect_guards_;
      break;
    case stack_guard::canary:
      canaries_ = true;
      break;
  }
  return slice_at(base, size_class_, platform::page_size());
}

void slot_arena::discard(const stack_slice& slice) const noexcept {
  std::byte* const base = slice_base(slice.low, size_class_);
  platform::discard_memory(slice.low,
                           static_cast<std::size_t>(base + class_bytes(size_class_) - slice.low));
}

bool slot_arena::guard_intact(const stack_slice& slice) const noexcept {
  return !canaries_ || canary_intact(slice_base(slice.low, size_class_));
}

}  // namespace tendril::detail
