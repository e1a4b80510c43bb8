// SPDX-License-Identifier: Apache-2.0
//
// How <tendril/ffi.hpp> calls foreign code where every stack is contiguous: as anything else is called.
#pragma once

#include <functional>
#include <type_traits>
#include <utility>

namespace tendril::detail {

/// Whether native_call can find the caller on a segmented stack at all in this build.
inline constexpr bool has_native_stacks = false;

/// Whether a fiber on a segmented stack surely has no frames on its thread's native stack.
inline bool surely_off_native_stack() noexcept { return true; }

/// NoThrow: f does not throw, or the program ends.
template <bool NoThrow, class F, class... Args>
[[gnu::always_inline]] inline std::invoke_result_t<F, Args...> call_on_native_stack(
    F&& f, Args&&... args) noexcept(NoThrow) {
  return std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
}

}  // namespace tendril::detail
