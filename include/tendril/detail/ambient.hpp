// SPDX-License-Identifier: Apache-2.0
//
// What scope.hpp changes in the calling waiter: the deadline that all its waits obey, and the shield
// that hides stop requests and that deadline. Both belong to the waiter (a fiber's follow it from
// worker to worker), and only the waiter itself reads or writes them.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/waiting.hpp>

namespace tendril::detail {

/// The deadline of the innermost deadline_scope; no_deadline outside any.
TENDRIL_API time_point ambient_deadline() noexcept;
TENDRIL_API void set_ambient_deadline(time_point deadline) noexcept;

/// While the count is above zero, cancellable waits end by their signal, their own deadline or their
/// own stop token only. Returns the new count.
TENDRIL_API unsigned enter_shield() noexcept;
TENDRIL_API void leave_shield() noexcept;

/// A shield for a block of the implementation itself.
class shield {
 public:
  shield() noexcept { enter_shield(); }
  ~shield() { leave_shield(); }
  shield(const shield&) = delete;
  shield& operator=(const shield&) = delete;
};

}  // namespace tendril::detail
