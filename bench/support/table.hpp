// SPDX-License-Identifier: Apache-2.0
//
// A table for people: columns as wide as their widest cell, the first one left-aligned, the others
// right-aligned.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace bench {

class table {
 public:
  explicit table(std::vector<std::string> head) { rows_.push_back(std::move(head)); }
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// Fixed point with thousands separated: fixed(1234.5, 1) == "1,234.5"; "-" for NaN.
std::string fixed(double value, int decimals);

}  // namespace bench
