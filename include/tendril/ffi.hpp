// SPDX-License-Identifier: Apache-2.0
//
// Calls into foreign code: libraries that were not compiled for segmented stacks and expect
// the room of a thread's stack. On a segmented fiber native_call runs its target on the native stack of
// the worker; everywhere else it is the plain call that it looks like. docs/ffi.md says when to use it.
//
//     const auto n = tendril::native_call(::compress, target, &target_bytes, source, source_bytes);
//     const auto n = tendril::native_call<&::compress>(target, &target_bytes, source, source_bytes);
//
//     tendril::native_call([&] {             // one change of stacks for many small calls
//       for (auto& row : rows) crc = ::crc32(crc, row.data(), row.size());
//     });
//
// Arguments, results and exceptions are those of std::invoke, and cross as if there were one stack: by
// value, by reference, move-only, of any size; results that cannot be moved; exceptions of the target to
// the caller, and of a callback through the foreign code to whoever catches them. errno is the target's.
//
// What runs on the native stack, callbacks of the foreign code included, is bound to the worker's
// thread until it returns: parking there is allowed, but blocks that thread. Calls from there into
// foreign code, with native_call or without, are plain.
//
// Not allowed: to leave by longjmp, or to keep a fiber for ever on a native stack.
#pragma once

#include <tendril/detail/native_stack.hpp>

#include <functional>
#include <type_traits>
#include <utility>

namespace tendril {

namespace detail {

template <auto F>
inline const volatile auto unnamed_target = F;

template <auto F>
using target_type = std::remove_cv_t<decltype(F)>;

/// F. In code for segmented stacks it is named in no instruction if it is a function: a linker that meets the name of
/// an unsplit function inside a split one makes the latter ask for a large stack each time it is entered.
template <auto F>
[[gnu::always_inline]] inline target_type<F> known_target() noexcept {
#ifdef TENDRIL_SPLIT_CODE
  if constexpr (std::is_pointer_v<target_type<F>>) return unnamed_target<F>;
  else return F;
#else
  return F;
#endif
}

}  // namespace detail

/// f(args...), on the native stack of the thread if the caller is on a segmented one.
///
/// \param f     whatever std::invoke takes. For a function whose arguments fit in registers the change of
///              stacks is inlined; anything else adds a call
/// \param args  handed on as std::invoke does
/// \return      what f returns, in place: also what cannot be moved
/// \throws      what f throws
/// \switch  no; if f parks, or calls back what parks, its thread is blocked meanwhile
/// \threads any
/// \cost    off segmented stacks two loads and two predicted branches; no allocation anywhere
template <class F, class... Args>
requires std::is_invocable_v<F, Args...>
[[gnu::always_inline]] constexpr std::invoke_result_t<F, Args...> native_call(
    F&& f, Args&&... args) noexcept(std::is_nothrow_invocable_v<F, Args...>) {
  if (std::is_constant_evaluated())
    return std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
  return detail::call_on_native_stack<std::is_nothrow_invocable_v<F, Args...>>(
      std::forward<F>(f), std::forward<Args>(args)...);
}

/// The same with a target that is known when compiling. Prefer it in code for segmented stacks: the
/// function that contains it does not mention the target and keeps its small frame.
///
/// \param F  a pointer to a function or to a member
template <auto F, class... Args>
requires std::is_invocable_v<detail::target_type<F>, Args...>
[[gnu::always_inline]] constexpr std::invoke_result_t<detail::target_type<F>, Args...> native_call(
    Args&&... args) noexcept(std::is_nothrow_invocable_v<detail::target_type<F>, Args...>) {
  if (std::is_constant_evaluated()) return std::invoke(F, std::forward<Args>(args)...);
  return detail::call_on_native_stack<std::is_nothrow_invocable_v<detail::target_type<F>, Args...>>(
      detail::known_target<F>(), std::forward<Args>(args)...);
}

/// The same for targets that do not throw although their type does not say so: most functions of C
/// libraries, and callbacks that throw nothing.
///
/// If one throws all the same, the program ends by std::terminate, or, where the target is a function
/// whose arguments fit in registers, the behaviour is undefined.
template <class F, class... Args>
requires std::is_invocable_v<F, Args...>
[[gnu::always_inline]] constexpr std::invoke_result_t<F, Args...> native_call_noexcept(
    F&& f, Args&&... args) noexcept {
  if (std::is_constant_evaluated())
    return std::invoke(std::forward<F>(f), std::forward<Args>(args)...);
  return detail::call_on_native_stack<true>(std::forward<F>(f), std::forward<Args>(args)...);
}

/// native_call_noexcept with a target that is known when compiling.
template <auto F, class... Args>
requires std::is_invocable_v<detail::target_type<F>, Args...>
[[gnu::always_inline]] constexpr std::invoke_result_t<detail::target_type<F>, Args...>
native_call_noexcept(Args&&... args) noexcept {
  if (std::is_constant_evaluated()) return std::invoke(F, std::forward<Args>(args)...);
  return detail::call_on_native_stack<true>(detail::known_target<F>(), std::forward<Args>(args)...);
}

}  // namespace tendril
