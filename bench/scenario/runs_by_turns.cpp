// SPDX-License-Identifier: Apache-2.0
#include "bench/scenario/runs_by_turns.hpp"

#include "bench/scenario/variants.hpp"
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

std::vector<turn> turns_of_models(const std::string& role, const std::vector<std::string>& impls,
                                  const arguments& common) {
  std::vector<turn> all;
  const auto add = [&](const std::string& variant, const std::string& impl, arguments args) {
    const std::vector<std::string> words = common.words();
    for (std::size_t i = 0; i + 1 < words.size(); i += 2)
      args.set(words[i].substr(2), words[i + 1]);
    args.set("impl", impl);
    all.push_back({variant, role, std::move(args)});
  };
  for (const std::string& impl : impls) {
    if (impl == "fiber")
      for (const std::string& stack : stack_variants())
        add("fiber/" + stack, impl, fiber_arguments(stack));
    else if (impl.rfind("fiber/", 0) == 0) add("fiber/reserved" + impl.substr(5), impl, {});
    else add(impl, impl, {});
  }
  return all;
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
