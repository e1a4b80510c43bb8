// SPDX-License-Identifier: Apache-2.0
//
// A latency histogram of fixed size: log-linear buckets, so that recording costs a few instructions
// and no memory however long the run, and a percentile is wrong by at most 1/64 of its value.
//
//   value              bucket
//   0 .. 127           one each (exact)
//   2^k .. 2^(k+1)-1   64 of equal width, k >= 7
//
// Rejected: keeping every sample (the loader would evict its own cache), and sampling one request in
// eight (the tail is what is asked for).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace bench {

class latency_histogram {
 public:
  void record(std::uint64_t nanoseconds, std::uint64_t times = 1) noexcept {
    counts_[index(nanoseconds)] += times;
    total_ += times;
  }

  void add(const latency_histogram& other) noexcept {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    total_ += other.total_;
  }

  std::uint64_t total() const noexcept { return total_; }

  /// The smallest recorded value that at least the fraction q of all values does not exceed
  /// (the middle of its bucket). 0 when nothing was recorded.
  double percentile(double q) const noexcept {
    const double wanted = q * static_cast<double>(total_);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (counts_[i] != 0 && static_cast<double>(seen) >= wanted) return middle(i);
    }
    return 0;
  }

 private:
  static constexpr unsigned linear_bits = 6;
  static constexpr std::size_t per_octave = std::size_t{1} << linear_bits;

  static constexpr std::size_t index(std::uint64_t v) noexcept {
    if (v < 2 * per_octave) return static_cast<std::size_t>(v);
    const auto shift = static_cast<unsigned>(std::bit_width(v)) - linear_bits - 1;
    return shift * per_octave + static_cast<std::size_t>(v >> shift);
  }

  static double middle(std::size_t i) noexcept {
    if (i < 2 * per_octave) return static_cast<double>(i);
    const auto shift = static_cast<unsigned>(i / per_octave - 1);
    const std::uint64_t low = static_cast<std::uint64_t>(i - shift * per_octave) << shift;
    return static_cast<double>(low) + static_cast<double>(std::uint64_t{1} << shift) / 2;
  }

  // The last index is that of UINT64_MAX: shift 57, top 7 bits all set.
  std::array<std::uint64_t, 57 * per_octave + 2 * per_octave> counts_{};
  std::uint64_t total_ = 0;
};

}  // namespace bench
