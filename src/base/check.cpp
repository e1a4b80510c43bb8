// SPDX-License-Identifier: Apache-2.0
#include "base/check.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>

namespace tendril::detail {
namespace {
std::atomic<describe_caller_fn> describe_caller{nullptr};
}

void set_caller_description(describe_caller_fn f) noexcept {
  describe_caller.store(f, std::memory_order_relaxed);
}

void check_failed(const char* expression, const char* message, const char* file,
                  int line) noexcept {
  char caller[160] = "a plain thread";
  if (auto f = describe_caller.load(std::memory_order_relaxed)) f(caller, sizeof caller);
  std::fprintf(stderr, "tendril: check failed: %s (%s) at %s:%d, on %s\n", message, expression,
               file, line, caller);
  std::abort();
}

}  // namespace tendril::detail
