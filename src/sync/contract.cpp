// SPDX-License-Identifier: Apache-2.0
//
// The end of a process whose code broke a primitive's contract.
#include <tendril/detail/contract.hpp>
#include <tendril/fiber.hpp>

#include <cstdio>
#include <cstdlib>

namespace tendril::detail {

void contract_violation(const char* what) noexcept {
  const std::string_view name = this_fiber::name();
  if (!this_fiber::is_fiber()) std::fprintf(stderr, "tendril: %s (on a plain thread)\n", what);
  else
    std::fprintf(stderr, "tendril: %s (fiber %llu \"%.*s\", worker %d)\n", what,
                 static_cast<unsigned long long>(this_fiber::get_id().value()),
                 static_cast<int>(name.size()), name.data(), this_fiber::worker_index());
  std::abort();
}

}  // namespace tendril::detail
