// SPDX-License-Identifier: Apache-2.0
#include "bench/support/interleaved.hpp"

#include <algorithm>
#include <numeric>
#include <random>
#include <stdexcept>

namespace bench {

interleaved::interleaved(const std::vector<contestant>& all, unsigned warm_up, unsigned cycles,
                         std::uint64_t seed)
    : taken_(all.size()) {
  for (const contestant& c : all) names_.push_back(c.name);
  std::mt19937_64 random(seed);
  std::vector<std::size_t> order(all.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (unsigned cycle = 0; cycle < warm_up + cycles; ++cycle) {
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t i : order) {
      const double took = all[i].slice();
      if (cycle >= warm_up) taken_[i].push_back(took);
    }
  }
}

const std::vector<double>& interleaved::taken(const std::string& name) const {
  const auto found = std::find(names_.begin(), names_.end(), name);
  if (found == names_.end()) throw std::out_of_range("no '" + name + "' was measured");
  return taken_[static_cast<std::size_t>(found - names_.begin())];
}

quartiles interleaved::ratio(const std::string& name, const std::string& reference) const {
  const std::vector<double>& a = taken(name);
  const std::vector<double>& b = taken(reference);
  std::vector<double> ratios(a.size());
  std::transform(a.begin(), a.end(), b.begin(), ratios.begin(), std::divides<>());
  return quartiles_of(ratios);
}

std::uint64_t new_seed() {
  std::random_device device;
  return device();
}

}  // namespace bench
