// SPDX-License-Identifier: Apache-2.0
//
// Order statistics over small samples. Everything here is about *robust* summaries: a shared machine
// produces outliers in one direction only (slower), so means are not offered.
#pragma once

#include <span>

namespace bench {

/// The q-quantile (0 <= q <= 1), linearly interpolated between the two nearest order statistics.
/// NaN for an empty sample.
double quantile(std::span<const double> sample, double q);

inline double median(std::span<const double> sample) { return quantile(sample, 0.5); }

struct quartiles {
  double q1;
  double median;
  double q3;
};

quartiles quartiles_of(std::span<const double> sample);

}  // namespace bench
