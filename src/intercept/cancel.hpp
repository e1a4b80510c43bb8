// SPDX-License-Identifier: Apache-2.0
//
// Whether a parked call may be ended by what ends Tendril's own waits; see tendril/cancelable_calls.hpp.
#pragma once

#include <cerrno>

#include <tendril/detail/waiting.hpp>

namespace tendril::detail {

/// Of the calling fiber.
bool calls_cancelable() noexcept;

/// How a call waits that knows nothing of fibers.
inline wait_options foreign_wait(
    time_point deadline, const char* reason,
    const std::atomic<std::uint64_t>* interruption = nullptr) noexcept {
  return {.deadline = deadline,
          .cancelable = calls_cancelable(),
          .reason = reason,
          .on_context = false,
          .interruption = interruption};
}

/// The errno of a wait that was ended by something else than its event or its deadline; 0: it was not.
inline int errno_of(outcome result) noexcept {
  return result == outcome::canceled      ? ECANCELED
         : result == outcome::expired     ? ETIMEDOUT
         : result == outcome::interrupted ? EINTR
                                          : 0;
}

}  // namespace tendril::detail
