// SPDX-License-Identifier: Apache-2.0
#include "stack/segmented.hpp"

#include "base/check.hpp"
#include "platform/memory.hpp"
#include "platform/trace.hpp"
#include "stack/segment_canary.hpp"
#include "stack/small_segment_layout.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>

namespace tendril::detail {
namespace {

using platform::standard_segment_shift;
using platform::thread_stacks;

thread_local segment_supply* supply = nullptr;

constexpr std::size_t unit = std::size_t{1} << platform::smallest_segment_shift;
constexpr std::size_t most_spares = 64;
constexpr std::size_t refill = 4;
/// Below the scheduler context's frames, which are shallow while a fiber runs.
constexpr std::size_t scheduler_room = std::size_t{16} << 10;
constexpr std::size_t slow_room = std::size_t{64} << 10;

/// Memory for alloca. Freed when a frame above the one it was made for is seen to be the deepest.
struct dynamic_block {
  dynamic_block* next;
  void* sp;
  std::size_t bytes;
  std::size_t padding;  ///< what follows is aligned to 16
};

std::size_t bytes_of(const segment* s) noexcept { return std::size_t{1} << s->shift; }

std::byte* end_of(segment* s) noexcept { return reinterpret_cast<std::byte*>(s + 1); }

stack_slice slice_of(segment* s) noexcept {
  const unsigned size_class = s->shift - smallest_class_shift;
  return slice_at(end_of(s) - bytes_of(s), size_class, platform::page_size());
}

segment* write_header(std::byte* base, unsigned shift, std::byte* low, std::byte* top) noexcept {
  auto* const s = reinterpret_cast<segment*>(base + (std::size_t{1} << shift)) - 1;
  ::new (s) segment{};
  const std::size_t reserve = segment_reserve(shift);
  const auto limit = (reinterpret_cast<std::uintptr_t>(low) + reserve + platform::limit_tag_mask) &
                     ~platform::limit_tag_mask;
  top = std::min(top, reinterpret_cast<std::byte*>(s));
  s->first_sp =
      reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(top) & ~std::uintptr_t{63});
  s->room = reinterpret_cast<std::uintptr_t>(s->first_sp) - limit;
  s->limit = limit | platform::segment_tag(shift);
  s->shift = static_cast<std::uint8_t>(shift);
  s->total = static_cast<std::uint32_t>((std::size_t{1} << shift) / unit);
  return s;
}

/// Null when the system has no memory.
segment* acquire(unsigned shift) noexcept {
  if (shift <= class_shift(size_class_count - 1)) {
    const unsigned size_class = shift - smallest_class_shift;
    const stack_slice slice = supply->take_segment(size_class);
    if (!slice) return nullptr;
    return write_header(slice_base(slice.low, size_class), shift, slice.low, slice.high);
  }
  // A single frame larger than the largest class: a mapping of its own.
  const std::size_t bytes = std::size_t{1} << shift;
  auto* const base = static_cast<std::byte*>(platform::reserve_memory(bytes, bytes));
  if (base == nullptr) return nullptr;
  const std::size_t guard = platform::page_size();
  if (!platform::install_guard(base, guard)) platform::protect_none(base, guard);
  std::byte* const low = base + guard;
  return write_header(base, shift, low, base + bytes);
}

void free_dynamic_space(segment* s) noexcept {
  auto* block = static_cast<dynamic_block*>(std::exchange(s->dynamic, nullptr));
  while (block != nullptr) {
    dynamic_block* const gone = block;
    block = gone->next;
    std::free(gone);
  }
}

void release(segment* s) noexcept {
  free_dynamic_space(s);
  thread_stacks& mine = platform::tendril_thread_stacks;
  if (s->shift == standard_segment_shift && mine.spares < most_spares) {
    s->next = mine.spare;
    mine.spare = s;
    ++mine.spares;
  } else if (s->shift > class_shift(size_class_count - 1)) {
    platform::release_memory(end_of(s) - bytes_of(s), bytes_of(s));
  } else {
    const unsigned size_class = s->shift - smallest_class_shift;
    supply->give_segment(slice_of(s), size_class);
  }
}

void release_after(segment* s) noexcept {
  segment* next = std::exchange(s->next, nullptr);
  while (next != nullptr) {
    segment* const gone = next;
    next = gone->next;
    release(gone);
  }
}

/// A prologue cannot throw: there is nobody to catch, and no frame yet to unwind.
[[noreturn]] void end_process(const char* text) noexcept {
  std::fprintf(stderr, "tendril: %s: %s\n", describe_this_caller().text, text);
  platform::write_trace(1);
  std::abort();
}

[[noreturn]] void report_limit(std::size_t total, std::size_t frame) noexcept {
  char text[300];
  std::snprintf(
      text, sizeof text,
      "its segmented stack would grow to %zu KiB for a frame of %zu bytes, past the limit of "
      "%zu KiB (runtime_options::max_stack_bytes): endless recursion, or a limit to raise",
      total >> 10, frame, supply->segment_limit() >> 10);
  end_process(text);
}

[[noreturn]] void report_no_memory(const char* what, std::size_t bytes) noexcept {
  char text[300];
  std::snprintf(
      text, sizeof text,
      "no memory for %s of %zu KiB: the system gave no more address space or mappings (see "
      "vm.max_map_count, vm.overcommit_memory, RLIMIT_AS)",
      what, bytes >> 10);
  end_process(text);
}

void refill_spares() noexcept {
  thread_stacks& mine = platform::tendril_thread_stacks;
  while (mine.spares < refill) {
    segment* const s = acquire(standard_segment_shift);
    if (s == nullptr) return;
    s->next = mine.spare;
    mine.spare = s;
    ++mine.spares;
  }
}

}  // namespace

thread_segments::thread_segments(segment_supply& from) noexcept {
  platform::stack_bounds own;
  if (platform::this_thread_stack(own)) set_up(from, own, nullptr);
}

thread_segments::thread_segments(segment_supply& from, const platform::stack_bounds& own,
                                 std::byte* here) noexcept {
  if (own.low != nullptr) set_up(from, own, here);
}

void thread_segments::set_up(segment_supply& from, const platform::stack_bounds& own,
                             std::byte* here) noexcept {
  if (here == nullptr) here = static_cast<std::byte*>(__builtin_frame_address(0));
  thread_stacks& mine = platform::tendril_thread_stacks;
  former_ = mine;
  former_supply_ = supply;
  ready_ = true;
  supply = &from;
  const auto below = [](std::byte* p, std::size_t n) {
    return reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(p) - n) &
                                        ~std::uintptr_t{63});
  };
  constexpr std::size_t reserve = std::size_t{32} << 10;
  if (here >= own.low && here < own.high) {
    mine.slow_top = below(here, scheduler_room);
    mine.native_top = below(mine.slow_top, slow_room);
  } else if (former_.native == nullptr) {
    // On a stack that somebody else has made: how deep the thread's own is in use is not known.
    mine.native_top = own.low + reserve + slow_room;
    mine.slow_top = mine.native_top + slow_room;
  } else if (former_.native->next != nullptr) {
    // The fiber ran off the native stack, of which only the reserve is left.
    mine.native_top = own.low + reserve;
  }
  mine.spare = nullptr;
  mine.spares = 0;
  const auto limit =
      (reinterpret_cast<std::uintptr_t>(own.low) + reserve) & ~platform::limit_tag_mask;
  native_.limit = limit | platform::native_tag;
  native_.first_sp = mine.native_top;
  native_.room = reinterpret_cast<std::uintptr_t>(mine.native_top) - limit;
  native_.pinned = 1;
  mine.native = &native_;
  mine.native_limit = native_.limit;
}

thread_segments::~thread_segments() {
  if (!ready_) return;
  release_after(&native_);
  thread_stacks& mine = platform::tendril_thread_stacks;
  while (segment* const s = mine.spare) {
    mine.spare = s->next;
    supply->give_segment(slice_of(s), standard_segment_shift - smallest_class_shift);
  }
  mine = former_;
  supply = former_supply_;
}

segment* make_first_segment(stack_slice slice, std::size_t bytes, std::size_t frame_bytes,
                            void* owner) noexcept {
  segment* const end = segment_at_end(slice, bytes);
  std::byte* top = std::min(slice.high, reinterpret_cast<std::byte*>(end)) - frame_bytes;
  // The caller's frame and all that follows begins at another cache set: slices have their own colour.
  if (bytes == small_segment_bytes) top -= small_segment_colour(end_of(end) - bytes);
  segment* const s = write_header(end_of(end) - bytes,
                                  static_cast<unsigned>(std::countr_zero(bytes)), slice.low, top);
  s->owner = owner;
  return s;
}

void visit_dynamic_space(const segment* s, range_visitor visit) {
  for (const auto* b = static_cast<const dynamic_block*>(s->dynamic); b != nullptr; b = b->next)
    visit(b + 1, reinterpret_cast<const std::byte*>(b + 1) + b->bytes);
}

void free_what_follows(segment* first) noexcept {
  release_after(first);
  free_dynamic_space(first);
}

extern "C" {

segment* tendril_next_segment(std::uintptr_t limit, std::size_t bytes) noexcept {
  segment* const from = platform::segment_of(limit);
  release_after(from);  // too small, if there is one
  // Room: the block without guard, reserve, colour and header.
  const std::size_t lost = platform::page_size() + (std::size_t{32} << 10) +
                           colour_count * colour_step + sizeof(segment) + 64;
  const unsigned fit = static_cast<unsigned>(std::bit_width(bytes + lost - 1));
  const unsigned grown = from->shift == 0 ? standard_segment_shift : from->shift + 1U;
  constexpr unsigned largest = class_shift(size_class_count - 1);
  const unsigned shift = std::max({standard_segment_shift, std::min(grown, largest), fit});
  const std::size_t total = from->total * unit + (std::size_t{1} << shift);
  if (total > supply->segment_limit() || bytes > (std::size_t{1} << 40)) report_limit(total, bytes);
  if (shift == standard_segment_shift) refill_spares();
  segment* next = nullptr;
  thread_stacks& mine = platform::tendril_thread_stacks;
  if (shift == standard_segment_shift && mine.spare != nullptr) {
    next = mine.spare;
    mine.spare = next->next;
    --mine.spares;
  } else {
    next = acquire(shift);
  }
  if (next == nullptr) report_no_memory("a stack segment", std::size_t{1} << shift);
  next->next = nullptr;
  next->previous = from;
  next->owner = from->owner;
  next->total = static_cast<std::uint32_t>(total / unit);
  next->pinned = from->pinned;
  from->next = next;
  if (from == mine.native) mine.native_limit = 0;
  return next;
}

void* tendril_dynamic_space(std::uintptr_t limit, std::size_t bytes, void* sp) noexcept {
  segment* const s = platform::segment_of(limit);
  // What was made for deeper frames, which have returned, goes first.
  auto** link = reinterpret_cast<dynamic_block**>(&s->dynamic);
  while (dynamic_block* const block = *link) {
    if (block->sp < sp) {
      *link = block->next;
      std::free(block);
    } else {
      link = &block->next;
    }
  }
  auto* const block = bytes > PTRDIFF_MAX - sizeof(dynamic_block)
                          ? nullptr
                          : static_cast<dynamic_block*>(std::malloc(sizeof(dynamic_block) + bytes));
  if (block == nullptr) report_no_memory("an alloca or variable-length array", bytes);
  *block = {static_cast<dynamic_block*>(s->dynamic), sp, bytes, 0};
  s->dynamic = block;
  return block + 1;
}

void tendril_release_segments(std::uintptr_t limit) noexcept {
  segment* const s = platform::segment_of(limit);
  if (bytes_of(s) == small_segment_bytes)
    check_segment_canary_word(end_of(s) - small_segment_bytes);
  release_after(s);
}
}

}  // namespace tendril::detail
