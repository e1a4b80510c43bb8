// SPDX-License-Identifier: Apache-2.0
#include "bench/support/experiment.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <tuple>
#include <utility>

namespace bench {
namespace {

std::vector<experiment>& registered() {
  static std::vector<experiment> all;
  return all;
}

int number_of(const experiment& e) { return std::atoi(e.id.c_str() + 1); }

}  // namespace

void context::add(const std::string& variant, const std::string& metric, double value,
                  const std::string& unit, parameters params) {
  report_.results.push_back({id_, variant, metric, value, unit, std::move(params)});
}

bool context::attempt(const std::string& variant, const std::function<void()>& measure) {
  try {
    measure();
    return true;
  } catch (const std::exception& e) {
    fail(variant, e.what());
    return false;
  }
}

void context::fail(const std::string& variant, const std::string& reason) {
  std::printf("  FAILED %s %s: %s\n", id_.c_str(), variant.c_str(), reason.c_str());
  std::fflush(stdout);
  report_.failures.push_back({id_, variant, reason});
}

registration::registration(experiment e) { registered().push_back(std::move(e)); }

std::vector<experiment> experiments() {
  std::vector<experiment> all = registered();
  std::sort(all.begin(), all.end(), [](const experiment& a, const experiment& b) {
    return std::tuple(a.id[0], number_of(a), a.id) < std::tuple(b.id[0], number_of(b), b.id);
  });
  return all;
}

}  // namespace bench
