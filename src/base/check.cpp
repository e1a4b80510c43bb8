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

caller_text describe_this_caller() noexcept {
  caller_text caller{"a plain thread"};
  if (auto f = describe_caller.load(std::memory_order_relaxed)) f(caller.text, sizeof caller.text);
  return caller;
}

void check_failed(const char* expression, const char* message, const char* file,
                  int line) noexcept {
  std::fprintf(stderr, "tendril: check failed: %s (%s) at %s:%d, on %s\n", message, expression,
               file, line, describe_this_caller().text);
  std::abort();
}

}  // namespace tendril::detail
