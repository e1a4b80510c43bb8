// SPDX-License-Identifier: Apache-2.0
#include "intercept/report.hpp"

#include <array>
#include <atomic>

namespace tendril::detail {
namespace {

struct counters {
  std::atomic<std::uint64_t> aside{0};
  std::atomic<std::uint64_t> blocked{0};
};
std::array<counters, symbol_count> table;

counters& of(symbol what) noexcept { return table[static_cast<std::size_t>(what)]; }

}  // namespace

void count_aside(symbol what) noexcept { of(what).aside.fetch_add(1, std::memory_order_relaxed); }
void count_blocked(symbol what) noexcept {
  of(what).blocked.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace tendril::detail
