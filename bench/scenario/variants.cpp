// SPDX-License-Identifier: Apache-2.0
#include "bench/scenario/variants.hpp"

#include <stdexcept>

namespace bench {

std::vector<std::string> stack_variants() { return {"reserved"}; }

tendril::runtime_options runtime_with(const std::string& stack, unsigned workers) {
  if (stack != "reserved")
    throw std::invalid_argument("unknown --stack '" + stack + "'; known: reserved");
  tendril::runtime_options options;
  options.workers = workers;
  options.stack.kind = tendril::stack_kind::reserved;
  return options;
}

}  // namespace bench
