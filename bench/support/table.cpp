// SPDX-License-Identifier: Apache-2.0
#include "bench/support/table.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace bench {

void table::print() const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  const auto line = [&](const std::vector<std::string>& row) {
    std::string text = "  ";
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string pad(widths[c] - row[c].size(), ' ');
      text += c == 0 ? row[c] + pad : "  " + pad + row[c];
    }
    std::printf("%s\n", text.c_str());
  };
  line(rows_.front());
  std::size_t total = 0;
  for (std::size_t w : widths) total += w + 2;
  std::printf("  %s\n", std::string(total - 2, '-').c_str());
  std::for_each(rows_.begin() + 1, rows_.end(), line);
  std::fflush(stdout);
}

std::string fixed(double value, int decimals) {
  if (std::isnan(value)) return "-";
  char digits[64];
  std::snprintf(digits, sizeof digits, "%.*f", decimals, std::fabs(value));
  std::string text = digits;
  const auto point = std::min(text.find('.'), text.size());
  for (std::size_t i = point; i > 3; i -= 3) text.insert(i - 3, ",");
  return value < 0 ? '-' + text : text;
}

}  // namespace bench
