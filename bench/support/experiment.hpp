// SPDX-License-Identifier: Apache-2.0
//
// An experiment: one entry of the list, run by its id. Each source file under bench/scenario holds
// one and registers it from a namespace-scope `const registration`; the executable is made of those
// object files directly, so no registration can be dropped by a linker.
//
// An experiment states what it shows and what it does not, prints its exact parameters, and hands
// every figure to context::add. A variant that fails is recorded by context::attempt and the rest go on.
#pragma once

#include "bench/support/report.hpp"

#include <functional>
#include <string>
#include <vector>

namespace bench {

enum class run_mode { brief, full };

class context {
 public:
  context(report& into, run_mode mode, bool self_check)
      : report_(into), mode_(mode), self_check_(self_check) {}

  bool full() const noexcept { return mode_ == run_mode::full; }
  bool self_check() const noexcept { return self_check_; }

  template <class T>
  T pick(T brief_value, T full_value) const {
    return full() ? full_value : brief_value;
  }

  void begin(const std::string& experiment_id) { id_ = experiment_id; }
  void add(const std::string& variant, const std::string& metric, double value,
           const std::string& unit, parameters params = {});

  /// Runs `measure`; an exception becomes a failure of that variant, printed and reported.
  bool attempt(const std::string& variant, const std::function<void()>& measure);
  void fail(const std::string& variant, const std::string& reason);

 private:
  report& report_;
  run_mode mode_;
  bool self_check_;
  std::string id_;
};

struct experiment {
  std::string id;  ///< "E7"
  std::string title;
  std::string shows;
  std::string does_not_show;
  std::vector<std::string> variants;
  void (*run)(context&);
};

struct registration {
  explicit registration(experiment e);
};

/// All of them, E2 before E10, E8 before E8h, S1 after all E.
std::vector<experiment> experiments();

}  // namespace bench
