// SPDX-License-Identifier: Apache-2.0
#include "intercept/on_disk.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace tendril::detail {
namespace {

files_mode mode_from_environment() noexcept {
  const char* const text = std::getenv("TENDRIL_INTERCEPT_FILES");
  if (text == nullptr || *text == 0 || std::strcmp(text, "auto") == 0) return files_mode::automatic;
  if (std::strcmp(text, "inline") == 0) return files_mode::in_place;
  if (std::strcmp(text, "pool") == 0) return files_mode::pool;
  std::fprintf(
      stderr,
      "tendril: TENDRIL_INTERCEPT_FILES=%s: unknown; known are auto, inline and pool; auto is "
      "used\n",
      text);
  return files_mode::automatic;
}

/// About what the pool costs: measured 11 to 18 us.
constexpr std::uint32_t dear_ns = 20'000;
/// No call counts for more, so that one that took a second does not keep the next thousand away.
constexpr std::uint32_t most_ns = 1'000'000;

/// Nanoseconds, an exponential mean of about eight calls. A lost update is a call less in the mean.
std::array<std::atomic<std::uint32_t>, symbol_count> means;

}  // namespace

files_mode mode_of_files() noexcept {
  static const files_mode value = mode_from_environment();
  return value;
}

bool is_quick(symbol what) noexcept {
  return means[static_cast<std::size_t>(what)].load(std::memory_order_relaxed) < dear_ns;
}

void note_time(symbol what, std::chrono::nanoseconds took) noexcept {
  const auto ns = static_cast<std::uint32_t>(took.count() < most_ns ? took.count() : most_ns);
  auto& mean = means[static_cast<std::size_t>(what)];
  const std::uint32_t before = mean.load(std::memory_order_relaxed);
  mean.store(before - before / 8 + ns / 8, std::memory_order_relaxed);
}

}  // namespace tendril::detail
