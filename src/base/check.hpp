// SPDX-License-Identifier: Apache-2.0
//
// TENDRIL_CHECK(condition, "invariant in words"): always on, for broken contracts; prints and aborts.
// TENDRIL_ASSERT: the same in builds with TENDRIL_ASSERTIONS, for hot paths.
#pragma once

namespace tendril::detail {

/// Prints "tendril: check failed: ..." with the place and the calling fiber, then aborts.
[[noreturn]] void check_failed(const char* expression, const char* message, const char* file,
                               int line) noexcept;

/// Adds "fiber 'name' (id n) on worker k" to the message; set by the scheduler.
using describe_caller_fn = void (*)(char* buffer, unsigned long size) noexcept;
void set_caller_description(describe_caller_fn) noexcept;

struct caller_text {
  char text[160];
};
/// "fiber 'name' (id n)" or "a plain thread".
caller_text describe_this_caller() noexcept;

}  // namespace tendril::detail

#define TENDRIL_CHECK(condition, message) \
  (static_cast<bool>(condition)           \
       ? void(0)                          \
       : ::tendril::detail::check_failed(#condition, message, __FILE__, __LINE__))

#if defined(TENDRIL_ASSERTIONS) && TENDRIL_ASSERTIONS
#define TENDRIL_ASSERT(condition, message) TENDRIL_CHECK(condition, message)
#else
#define TENDRIL_ASSERT(condition, message) void(0)
#endif
