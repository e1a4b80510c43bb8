// SPDX-License-Identifier: Apache-2.0
#include "stack/stack_cache.hpp"

#include "platform/memory.hpp"
#include "stack/overflow.hpp"

#include <algorithm>
#include <limits>

namespace tendril::detail {
namespace {

/// How many slices are cut at once: few of large ones, so that a runtime with one 8 MiB stack does not
/// guard sixteen.
unsigned refill_count(unsigned size_class, unsigned most) noexcept {
  constexpr std::size_t refill_bytes = std::size_t{4} << 20;
  const std::size_t fit = refill_bytes / class_bytes(size_class);
  return static_cast<unsigned>(std::clamp<std::size_t>(fit, 1, most));
}

}  // namespace

stack_cache::stack_cache(stack_source& source, std::size_t watermark) noexcept
    : source_(source), guard_bytes_(platform::page_size()) {
  constexpr std::size_t largest = std::numeric_limits<std::ptrdiff_t>::max();
  watermark_ = static_cast<std::ptrdiff_t>(std::min(watermark, largest));
  room_ = watermark_;
  source_.attach(*this);
}

stack_cache::~stack_cache() {
  if (source_.closed()) {
    source_.detach(*this);
    return;
  }
  trim();
  for (unsigned c = 0; c < class_count; ++c) {
    lane& l = lanes_[c];
    const std::uint32_t n = l.cold_count.load(std::memory_order_relaxed);
    if (n == 0) continue;
    source_.give(c, l.cold.data(), n, stack_source::memory::untouched);
    l.cold_count.store(0, std::memory_order_relaxed);
  }
  source_.detach(*this);
}

stack_slice stack_cache::acquire_cold(unsigned size_class) noexcept {
  lane& l = lanes_[size_class];
  std::uint32_t n = l.cold_count.load(std::memory_order_relaxed);
  if (n == 0) {
    n = source_.take(size_class, l.cold.data(), refill_count(size_class, max_cold));
    if (n == 0) return {};
  }
  l.cold_count.store(n - 1, std::memory_order_relaxed);
  const stack_slice slice = slice_at(l.cold[n - 1], size_class, guard_bytes_);
  unpoison(slice.low, static_cast<std::size_t>(slice.high - slice.low));
  return slice;
}

void stack_cache::trim() noexcept {
  for (unsigned c = 0; c < class_count; ++c) {
    while (lanes_[c].warm != nullptr) give_batch(c, std::numeric_limits<std::ptrdiff_t>::max());
  }
}

void stack_cache::trim_to_watermark() noexcept {
  // A portion more than necessary, so that the next release does not come here again.
  give_back(std::min(portion_bytes, watermark_ / 8));
}

void stack_cache::trim_portion() noexcept {
  give_back(std::min(room_ + portion_bytes, watermark_ - kept_bytes()));
}

void stack_cache::give_back(std::ptrdiff_t enough) noexcept {
  while (room_ < enough) {
    unsigned most = 0;
    std::size_t most_bytes = 0;
    for (unsigned c = 0; c < class_count; ++c) {
      const std::size_t bytes =
          lanes_[c].warm_count.load(std::memory_order_relaxed) * class_bytes(c);
      if (bytes > most_bytes) {
        most = c;
        most_bytes = bytes;
      }
    }
    if (most_bytes == 0) return;
    give_batch(most, enough);
  }
}

void stack_cache::give_batch(unsigned size_class, std::ptrdiff_t room) noexcept {
  lane& l = lanes_[size_class];
  const auto bytes = static_cast<std::ptrdiff_t>(class_bytes(size_class));
  std::array<std::byte*, stack_source::max_batch> bases;
  unsigned n = 0;
  while (n < bases.size() && l.warm != nullptr && (room_ < room)) {
    link* const w = l.warm;
    l.warm = w->next;
    bases[n++] = slice_base(reinterpret_cast<std::byte*>(w), size_class);
    room_ += bytes;
  }
  add(l.warm_count, -static_cast<std::int32_t>(n));
  if (n != 0) source_.give(size_class, bases.data(), n, stack_source::memory::touched);
}

void stack_cache::check_canary(const stack_slice& slice, unsigned size_class) const noexcept {
  if (!source_.guard_intact(slice, size_class)) report_broken_canary(slice);
}

void stack_cache::add_to(stack_stats& stats) const noexcept {
  for (const lane& l : lanes_) {
    stats.warm += l.warm_count.load(std::memory_order_relaxed);
    stats.cold += l.cold_count.load(std::memory_order_relaxed);
  }
}

}  // namespace tendril::detail
