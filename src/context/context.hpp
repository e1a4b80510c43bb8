// SPDX-License-Identifier: Apache-2.0
//
// The one place where control changes stacks. A context is a suspended flow of control: its stack
// pointer, and in sanitizer builds what the sanitizers must be told about its stack. They are
// annotated here and nowhere else.
#pragma once

#include "base/sanitizer.hpp"
#include "platform/switch.hpp"

#include <atomic>
#include <cstddef>

#if TENDRIL_ASAN || TENDRIL_TSAN
#include <cfenv>
#endif
#if TENDRIL_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#if TENDRIL_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace tendril::detail {

struct context {
  void* sp = nullptr;
#if TENDRIL_ASAN
  void* fake_stack = nullptr;
  const void* stack_low = nullptr;
  std::size_t stack_bytes = 0;
#endif
#if TENDRIL_TSAN
  void* tsan_fiber = nullptr;
#endif
#if TENDRIL_ASAN || TENDRIL_TSAN
  std::fenv_t* callee_left =
      nullptr;  ///< in call_context(): for the environment that the callee leaves
#endif

  /// Whether destroy() does anything.
  static constexpr bool is_known_elsewhere = TENDRIL_TSAN;

  /// Prepares [low, high) to run entry(transfer) at the first switch to it. `limit`: of a segmented stack.
  void make([[maybe_unused]] void* low, void* high, platform::entry_function entry,
            std::uintptr_t limit = 0) noexcept {
    std::atomic_ref(sp).store(platform::make_context(high, entry, limit),
                              std::memory_order_relaxed);
#if TENDRIL_ASAN
    stack_low = low;
    stack_bytes =
        static_cast<std::size_t>(static_cast<std::byte*>(high) - static_cast<std::byte*>(low));
#endif
#if TENDRIL_TSAN
    tsan_fiber = __tsan_create_fiber(0);
#endif
  }

  /// Brings the top of the suspended stack into the cache. The context may be running by now, or be
  /// prepared at this moment: whatever sp is read is only a hint.
  void prefetch() const noexcept { prefetch_lines(0, near_lines); }
  /// The frames above, down to which a fiber returns that has waited inside an operation.
  void prefetch_far() const noexcept { prefetch_lines(near_lines, far_lines); }

  static constexpr std::ptrdiff_t near_lines = 3;
  static constexpr std::ptrdiff_t far_lines = 11;
  void prefetch_lines(std::ptrdiff_t from, std::ptrdiff_t to) const noexcept {
    const auto* const top = static_cast<const char*>(
        std::atomic_ref(const_cast<void*&>(sp)).load(std::memory_order_relaxed));
    for (std::ptrdiff_t line = from; line != to; ++line) __builtin_prefetch(top + line * 64, 1);
  }

  /// Describes the thread that calls it, which will be switched away from and come back.
  void adopt_thread() noexcept;

  /// To the sanitizers this flow of control is the other one, on the same stack.
  void describe_as([[maybe_unused]] const context& other) noexcept {
#if TENDRIL_ASAN
    stack_low = other.stack_low;
    stack_bytes = other.stack_bytes;
#endif
#if TENDRIL_TSAN
    tsan_fiber = other.tsan_fiber;
#endif
  }

  /// After the last switch away from it. Not from the context itself.
  void destroy() noexcept {
#if TENDRIL_TSAN
    __tsan_destroy_fiber(tsan_fiber);
    tsan_fiber = nullptr;
#endif
  }
};

/// Suspends the caller into `from`, continues `to`, and returns what the side that comes back to
/// `from` transfers. `first`: whether `to` has not run yet, as far as the caller knows.
inline void* switch_context(context& from, context& to, void* transfer,
                            bool first = false) noexcept {
#if TENDRIL_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_low, to.stack_bytes);
#endif
#if TENDRIL_TSAN
  __tsan_switch_to_fiber(to.tsan_fiber, 0);
#endif
  void* const result = first ? platform::tendril_switch_first(&from.sp, to.sp, transfer)
                             : platform::tendril_switch(&from.sp, to.sp, transfer);
#if TENDRIL_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
  return result;
}

/// Suspends the caller into `from` and calls entry(transfer) as `to`, on the stack [low, high), a segmented
/// one of `limit` if that is not 0. Returns null when entry has ended by return_context() without having been
/// switched away from; else what the side that comes back to `from` transfers, which is not null.
inline void* call_context(context& from, context& to, [[maybe_unused]] void* low, void* high,
                          std::uintptr_t limit, platform::entry_function entry,
                          void* transfer) noexcept {
#if TENDRIL_ASAN
  to.stack_low = low;
  to.stack_bytes =
      static_cast<std::size_t>(static_cast<std::byte*>(high) - static_cast<std::byte*>(low));
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack_low, to.stack_bytes);
#endif
#if TENDRIL_TSAN
  to.tsan_fiber = __tsan_create_fiber(0);
  __tsan_switch_to_fiber(to.tsan_fiber, 0);
#else
  static_cast<void>(to);
#endif
#if TENDRIL_ASAN || TENDRIL_TSAN
  std::fenv_t left;
  from.callee_left = &left;
#endif
  void* const result = platform::tendril_call(&from.sp, high, limit, entry, transfer);
#if TENDRIL_ASAN
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
#if TENDRIL_ASAN || TENDRIL_TSAN
  if (result == nullptr) std::fesetenv(&left);  // it was a switch, which has loaded ours
#endif
  return result;
}

/// The same on a stack that is not segmented, where run(body) is what call_context() calls by way of `entry`, which ends
/// by return_context(), or as `ended` says: see platform::tendril_call_body. Sanitizers need that way.
inline void* call_body(context& from, [[maybe_unused]] context& to, [[maybe_unused]] void* low,
                       void* high, [[maybe_unused]] platform::entry_function entry,
                       [[maybe_unused]] platform::body_function run, void* body,
                       [[maybe_unused]] platform::entry_function ended) noexcept {
#if TENDRIL_ASAN || TENDRIL_TSAN
  return call_context(from, to, low, high, 0, entry, body);
#else
  return platform::tendril_call_body(&from.sp, high, run, body, ended);
#endif
}

/// The last thing on a stack that was entered by call_context() and not switched away from: its entry function
/// returns this. After it `mine` is to be destroyed.
[[nodiscard]] inline platform::next_context return_context([[maybe_unused]] context& mine,
                                                           context& caller) noexcept {
#if TENDRIL_ASAN || TENDRIL_TSAN
  std::fegetenv(caller.callee_left);
#if TENDRIL_ASAN
  __sanitizer_start_switch_fiber(nullptr, caller.stack_low, caller.stack_bytes);
#else
  __tsan_switch_to_fiber(caller.tsan_fiber, 0);
#endif
  platform::tendril_switch(&mine.sp, caller.sp, nullptr);
  __builtin_unreachable();
#else
  return {nullptr, caller.sp};
#endif
}

/// The last thing on a stack: its entry function returns this. `grave` is scratch memory of the worker.
[[nodiscard]] inline platform::next_context leave_context([[maybe_unused]] context& grave,
                                                          context& to, void* transfer) noexcept {
#if TENDRIL_ASAN || TENDRIL_TSAN
  // Instrumented code tells the sanitizer when it returns, and must not do so in the other's name.
#if TENDRIL_ASAN
  __sanitizer_start_switch_fiber(nullptr, to.stack_low, to.stack_bytes);
#else
  __tsan_switch_to_fiber(to.tsan_fiber, 0);
#endif
  platform::tendril_switch(&grave.sp, to.sp, transfer);
  __builtin_unreachable();
#else
  return {to.sp, transfer};
#endif
}

/// First thing on a new stack.
inline void enter_context() noexcept {
#if TENDRIL_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

}  // namespace tendril::detail
