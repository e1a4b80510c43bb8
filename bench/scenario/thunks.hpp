// SPDX-License-Identifier: Apache-2.0
//
// tendril::thunk for the experiments; variants with it are left out of a library that has none.
#pragma once

#if __has_include(<tendril/thunk.hpp>)
#include <tendril/thunk.hpp>

namespace bench {
inline constexpr bool has_thunks = true;
}
#else
#include <tendril/future.hpp>

#include <type_traits>

namespace bench {
inline constexpr bool has_thunks = false;
}
namespace tendril {
template <class F>
auto thunk(F f) {
  return [f](auto... a) {
    if constexpr (std::is_void_v<decltype(f(a...))>) {
      f(a...);
      return make_ready_future();
    } else {
      return make_ready_future(f(a...));
    }
  };
}
}  // namespace tendril
#endif
