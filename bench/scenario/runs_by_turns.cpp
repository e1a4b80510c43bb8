// SPDX-License-Identifier: Apache-2.0
#include "bench/scenario/runs_by_turns.hpp"

#include "bench/support/process.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

namespace bench {

trimming trimming::of(std::size_t runs) noexcept {
  if (runs < 3) return {0, runs};
  return {runs * 3 / 16 + (runs < 16 && runs * 3 % 16 >= 8 ? 1 : 0),
          std::max<std::size_t>(1, runs * 10 / 16)};
}

double trimmed_mean(std::vector<double> runs) {
  if (runs.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(runs.begin(), runs.end());
  const trimming t = trimming::of(runs.size());
  const auto from = runs.begin() + static_cast<std::ptrdiff_t>(t.dropped);
  const auto to = from + static_cast<std::ptrdiff_t>(t.averaged);
  return std::accumulate(from, to, 0.0) / static_cast<double>(t.averaged);
}

std::string describe_trimming(unsigned runs) {
  const trimming t = trimming::of(runs);
  return std::to_string(runs) + " runs by turns, of each cell the lowest " +
         std::to_string(t.dropped) + " dropped, the next " + std::to_string(t.averaged) +
         " averaged";
}

std::map<std::string, cells> run_by_turns(context& ctx, const std::vector<turn>& all, unsigned runs,
                                          int core) {
  std::map<std::string, std::map<std::string, std::vector<double>>> samples;
  std::set<std::string> failed;
  for (unsigned i = 0; i != runs; ++i)
    for (const turn& t : all) {
      if (failed.count(t.variant) != 0) continue;
      if (!ctx.attempt(t.variant, [&] {
            for (const auto& [cell, value] : run_role(t.role, t.args, core))
              samples[t.variant][cell].push_back(value);
          }))
        failed.insert(t.variant);
    }
  std::map<std::string, cells> means;
  for (auto& [variant, by_cell] : samples)
    if (failed.count(variant) == 0)
      for (auto& [cell, values] : by_cell) means[variant][cell] = trimmed_mean(std::move(values));
  return means;
}

}  // namespace bench
