// SPDX-License-Identifier: Apache-2.0
//
// Where no stack is segmented.
#include "platform/split_stack.hpp"

namespace tendril::platform {

std::uintptr_t stack_limit() noexcept { return 0; }

bool on_native_stack() noexcept { return false; }

}  // namespace tendril::platform
