// SPDX-License-Identifier: Apache-2.0
#include "stack/segment_ranges.hpp"

#include <algorithm>
#include <cstdint>

namespace tendril::detail {
namespace {

const std::byte* header_of(const segment* s) noexcept {
  return reinterpret_cast<const std::byte*>(s);
}

/// The lowest byte that may be read; below it may be a guard page.
const std::byte* low_of(const segment* s) noexcept {
  const std::uintptr_t limit = s->limit & ~platform::limit_tag_mask;
  return reinterpret_cast<const std::byte*>(limit - segment_reserve(s->shift));
}

constexpr std::size_t frame_below = 32;  // what __morestack pushes under its rbp
constexpr std::size_t limit_below = 16;

/// How far down `outer` is in use, which `inner` was entered from, whose words from sp on are looked at.
const std::byte* lowest_frame(const segment* outer, const segment* inner, const std::byte* sp) {
  const auto least = reinterpret_cast<std::uintptr_t>(low_of(outer)) + frame_below;
  const auto end = reinterpret_cast<std::uintptr_t>(header_of(outer));
  std::uintptr_t lowest = end;
  const auto from = (reinterpret_cast<std::uintptr_t>(sp) + 7) & ~std::uintptr_t{7};
  for (auto at = reinterpret_cast<const std::uintptr_t*>(from);
       reinterpret_cast<const std::byte*>(at + 1) <= header_of(inner); ++at) {
    const std::uintptr_t rbp = *at;
    if (rbp < least || rbp >= lowest || rbp % 8 != 0) continue;
    if (*reinterpret_cast<const std::uintptr_t*>(rbp - limit_below) == outer->limit) lowest = rbp;
  }
  return lowest != end ? reinterpret_cast<const std::byte*>(lowest - frame_below) : low_of(outer);
}

}  // namespace

segment* find_segment(segment* first, const void* address) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (segment* s = first; s != nullptr; s = s->next)
    if (at >= reinterpret_cast<std::uintptr_t>(low_of(s)) &&
        at < reinterpret_cast<std::uintptr_t>(s))
      return s;
  return nullptr;
}

void visit_segments(const segment* inner, const std::byte* sp, range_visitor visit) {
  for (const segment* s = inner; s != nullptr;) {
    visit(sp, s + 1);
    visit_dynamic_space(s, visit);
    const segment* const outer = s->previous;
    if (outer != nullptr && outer->owner == nullptr) break;  // the thread's own stack
    if (outer != nullptr) sp = lowest_frame(outer, s, sp);
    s = outer;
  }
}

void visit_interrupted_segments(const segment* inner, const std::byte* sp, range_visitor visit) {
  visit(sp, inner + 1);
  visit_dynamic_space(inner, visit);
  for (const segment* s = inner->previous; s != nullptr && s->owner != nullptr; s = s->previous) {
    visit(low_of(s), s + 1);
    visit_dynamic_space(s, visit);
  }
}

void visit_whole_segments(const segment* first, range_visitor visit) {
  for (const segment* s = first; s != nullptr; s = s->next) {
    visit(low_of(s), s + 1);
    visit_dynamic_space(s, visit);
  }
}

}  // namespace tendril::detail
