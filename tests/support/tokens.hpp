// SPDX-License-Identifier: Apache-2.0
//
// Words that a test looks for in the memory of fibers, as a conservative collector looks for references. A token
// is a number with a mark in its upper half that no address has; `found` says in how many words of the ranges
// that were visited each is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace tendril::test {

inline constexpr std::uint64_t token_mark = 0x7E57'C0DE'0000'0000;

inline std::uint64_t token(std::uint32_t number) noexcept { return token_mark | number; }

/// Tokens 0 to Count - 1.
template <std::size_t Count>
struct token_count {
  std::array<std::uint32_t, Count> found{};
  std::uint64_t ranges = 0;
  std::uint64_t bytes = 0;

  // Reads red zones of suspended frames, and what others wrote without telling ThreadSanitizer's rules.
  [[gnu::no_sanitize("address", "thread")]] void operator()(const void* low,
                                                            const void* high) noexcept {
    const auto end = reinterpret_cast<std::uintptr_t>(high);
    ++ranges;
    bytes += end - reinterpret_cast<std::uintptr_t>(low);
    const auto from = (reinterpret_cast<std::uintptr_t>(low) + 7) & ~std::uintptr_t{7};
    for (std::uintptr_t at = from; at + 8 <= end; at += 8) {
      const std::uint64_t word = *reinterpret_cast<const volatile std::uint64_t*>(at);
      if ((word & ~std::uint64_t{0xFFFF'FFFF}) == token_mark && (word & 0xFFFF'FFFF) < Count)
        ++found[word & 0xFFFF'FFFF];
    }
  }
};

/// Calls f with a token in its frame.
template <class F>
[[gnu::noinline]] void holding(std::uint32_t number, F&& f) {
  [[maybe_unused]] volatile std::uint64_t held = token(number);
  f();
  held = 0;
}

}  // namespace tendril::test
