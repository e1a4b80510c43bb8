// SPDX-License-Identifier: Apache-2.0
//
// The machine-readable report:
//
//   {"schema": 1,
//    "machine": {"cpu": ..., "cores": 2, "kernel": ..., "compiler": ..., "commit": ..., "date": ...},
//    "results": [{"experiment": "E7", "variant": "fiber/reserved", "metric": "ratio_to_callbacks",
//                 "value": 1.01, "unit": "ratio", "params": {"connections": 64}}, ...],
//    "failures": [{"experiment": ..., "variant": ..., "reason": ...}],
//    "absent": [{"variant": "fiber/segmented", "reason": ...}]}
//
// A figure is worth as much as the conditions it names, so params are part of every result and the
// machine is described by what the kernel says, not by the user. A variant that could not be measured
// is listed under failures, one that this build cannot have under absent: neither must look like success.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace bench {

using parameter_value = std::variant<std::int64_t, double, bool, std::string>;

struct parameter {
  std::string name;
  parameter_value value;
  parameter(std::string n, const char* v) : name(std::move(n)), value(std::string(v)) {}
  parameter(std::string n, std::string v) : name(std::move(n)), value(std::move(v)) {}
  parameter(std::string n, bool v) : name(std::move(n)), value(v) {}
  parameter(std::string n, double v) : name(std::move(n)), value(v) {}
  template <class Integer>
  requires(std::is_integral_v<Integer> && !std::is_same_v<Integer, bool>)
      parameter(std::string n, Integer v)
      : name(std::move(n)), value(static_cast<std::int64_t>(v)) {}
};
using parameters = std::vector<parameter>;

/// "connections=64 pipeline=1"
std::string to_text(const parameters& list);

struct result {
  std::string experiment;
  std::string variant;
  std::string metric;
  double value;
  std::string unit;
  parameters params;
};

struct failure {
  std::string experiment;
  std::string variant;
  std::string reason;
};

/// Variants that this build does not have, in whatever experiment.
struct absence {
  std::string variant;
  std::string reason;
};

struct machine {
  std::string cpu;
  unsigned cores = 0;
  std::string kernel;
  std::string compiler;
  std::string build;
  std::string commit;
  std::string date;      ///< UTC, ISO 8601
  std::string governor;  ///< empty: the kernel exposes none
  double load_average = 0;
};

machine describe_machine();

struct report {
  machine where;
  std::vector<result> results;
  std::vector<failure> failures;
  std::vector<absence> absent;
};

/// Writes to a temporary beside `path` and renames it, so that a reader sees all or nothing.
/// Throws std::system_error naming the path.
void write_json(const report& all, const std::string& path);

}  // namespace bench
