// SPDX-License-Identifier: Apache-2.0
//
// What `co_await x` means to the language, as expressions: the awaiter of an operand, and what it gives.
#pragma once

#include <type_traits>
#include <utility>

namespace tendril::detail {

/// What operator co_await, member or free, makes of a; else a itself.
template <class A>
decltype(auto) awaiter_of(A&& a) {
  if constexpr (requires { static_cast<A&&>(a).operator co_await(); })
    return static_cast<A&&>(a).operator co_await();
  else if constexpr (requires { operator co_await(static_cast<A&&>(a)); })
    return operator co_await(static_cast<A&&>(a));
  else return static_cast<A&&>(a);
}

template <class A>
using awaiter_type = decltype(awaiter_of(std::declval<A>()));

template <class A>
concept awaiter = requires(A& a) {
  static_cast<bool>(a.await_ready());
  a.await_resume();
};
template <class A>
concept awaitable = awaiter<std::remove_reference_t<awaiter_type<A>>>;

template <class A>
using await_result =
    decltype(std::declval<std::remove_reference_t<awaiter_type<A>>&>().await_resume());

}  // namespace tendril::detail
