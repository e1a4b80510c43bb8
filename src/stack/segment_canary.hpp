// SPDX-License-Identifier: Apache-2.0
//
// The pattern in the lowest 64 bytes of a small segment. Below it lies another fiber's segment, with
// its header first, and no guard page: code that runs past the reserve must be found before the damage
// is taken for something else.
//
// Unlike the zeros under a slice (guard.hpp) it is written, since the page is in use anyway; once, when
// a segment leaves the source: a release checks it, so what is acquired again still has it. A frame
// that leaves all of the 64 bytes untouched escapes; the words are no address, no small number and no
// text, so that what is written there does not equal them.
//
// Who may call what: whoever runs the segment's fiber or took it away from there.
#pragma once

#include "stack/overflow.hpp"

#include <cstddef>
#include <cstdint>

namespace tendril::detail {

inline constexpr std::size_t segment_canary_bytes = 64;
inline constexpr std::uint64_t segment_canary_word = 0xB5C1'9E07'D3A8'6FE1;

inline void write_segment_canary(std::byte* base) noexcept {
  auto* const words = reinterpret_cast<std::uint64_t*>(base);
  for (std::size_t i = 0; i < segment_canary_bytes / sizeof *words; ++i)
    words[i] = segment_canary_word;
}

inline bool segment_canary_intact(const std::byte* base) noexcept {
  const auto* const words = reinterpret_cast<const std::uint64_t*>(base);
  std::uint64_t wrong = 0;
  for (std::size_t i = 0; i < segment_canary_bytes / sizeof *words; ++i)
    wrong |= words[i] ^ segment_canary_word;
  return wrong == 0;
}

/// Nobody but this function mentions the report, which is unsplit code: whoever did would be moved to a
/// larger segment each time it is entered. Not shared by split code and other.
[[noreturn, gnu::noinline, gnu::cold]] static inline void broken_segment(
    const std::byte* base) noexcept {
  report_broken_segment(base);
}

/// One word, for every park: the top one, which an overflow reaches first. Ends the process with a
/// message that names the fiber.
inline void check_segment_canary_word(const std::byte* base) noexcept {
  const auto* const words = reinterpret_cast<const std::uint64_t*>(base);
  if (words[segment_canary_bytes / sizeof *words - 1] != segment_canary_word) [[unlikely]]
    broken_segment(base);
}

/// All of it, for the end of a segment's use; the cache does it at release.
inline void check_small_segment_canary(const std::byte* base) noexcept {
  if (!segment_canary_intact(base)) [[unlikely]]
    broken_segment(base);
}

}  // namespace tendril::detail
