// SPDX-License-Identifier: Apache-2.0
//
// Comparing things that run for a few milliseconds: one slice of each, in random order, and again, many
// times. What the machine does meanwhile (clocks, neighbours, migrations) then meets all of them
// alike, and a ratio taken within one cycle does not see what moves slower than a cycle. The figure is
// the median over cycles; its quartiles say how far to trust it.
//
// Rejected: one long run each. On a shared machine the drift within a second exceeds the few per cent
// that these experiments are about.
#pragma once

#include "bench/support/statistics.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace bench {

struct contestant {
  std::string name;
  std::function<double()> slice;  ///< runs one; returns what it took, in any unit
};

class interleaved {
 public:
  /// Runs `warm_up` cycles unrecorded and `cycles` recorded ones, orders drawn from `seed`.
  interleaved(const std::vector<contestant>& all, unsigned warm_up, unsigned cycles,
              std::uint64_t seed);

  /// What each cycle took. Throws std::out_of_range naming an unknown contestant; so do the others.
  const std::vector<double>& taken(const std::string& name) const;
  quartiles of(const std::string& name) const { return quartiles_of(taken(name)); }

  /// Per-cycle ratios of `name` to `reference`.
  quartiles ratio(const std::string& name, const std::string& reference) const;

 private:
  std::vector<std::string> names_;
  std::vector<std::vector<double>> taken_;
};

/// A seed that differs from run to run; experiments print the one they used.
std::uint64_t new_seed();

}  // namespace bench
