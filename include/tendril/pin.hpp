// SPDX-License-Identifier: Apache-2.0
//
// For code of tasklets whose variables others use while it waits.
//
//     this_fiber::pin([&] {
//       latch done(2);                       // not in the tasklet's slot: others may count it down
//       spawn([&] { fetch(a); done.count_down(); });
//       spawn([&] { fetch(b); done.count_down(); });
//       done.wait();
//     });
//
// While a tasklet waits, others run at the addresses of its stack, and pointers into it mean nothing (docs/tasklets.md).
// pin(f) calls f on a stack that nobody else uses until f returns.
#pragma once

#include <tendril/config.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace tendril {

namespace detail {

/// Calls run(argument), on a stack of its own if the caller is a tasklet that has none yet.
///
/// \throws what run throws; std::bad_alloc: there is no such stack, nothing was called
TENDRIL_API void call_pinned(void (*run)(void*), void* argument);

}  // namespace detail

namespace this_fiber {

/// f(), whose own variables, and those of the functions it calls, may be used by other fibers, threads and the kernel
/// while f waits. On every kind of stack but a tasklet's, on threads, and inside another pin(): a plain call.
///
/// What f refers to *outside* of it, variables of its caller that it has captured, is f's alone to use, as ever: those
/// lie in the slot, which is in place whenever f runs.
///
/// \param f  called once, with no arguments
/// \return   what f returns: moved, if it is an object
/// \throws   what f throws; std::bad_alloc: there is no memory for a stack, f was not called
/// \switch   if f does
/// \threads  any
/// \cost     a stack of runtime_options' default size or a slot's, whichever is larger, from the worker's cache; about
///           30 ns. An exception that leaves f is thrown twice
template <class F>
requires std::is_invocable_v<F>
auto pin(F&& f) -> std::invoke_result_t<F> {
  using R = std::invoke_result_t<F>;
  using stored =
      std::conditional_t<std::is_void_v<R>, char,
                         std::conditional_t<std::is_reference_v<R>,
                                            std::add_pointer_t<std::remove_reference_t<R>>, R>>;
  struct call {
    F&& f;
    std::optional<stored> result{};
  } c{std::forward<F>(f)};
  detail::call_pinned(
      [](void* argument) {
        auto& self = *static_cast<call*>(argument);
        if constexpr (std::is_void_v<R>) {
          std::invoke(std::forward<F>(self.f));
        } else if constexpr (std::is_reference_v<R>) {
          auto&& r = std::invoke(std::forward<F>(self.f));
          self.result.emplace(std::addressof(r));
        } else {
          self.result.emplace(std::invoke(std::forward<F>(self.f)));
        }
      },
      &c);
  if constexpr (std::is_reference_v<R>) return static_cast<R>(**c.result);
  else if constexpr (!std::is_void_v<R>) return std::move(*c.result);
}

}  // namespace this_fiber
}  // namespace tendril
