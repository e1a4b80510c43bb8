// SPDX-License-Identifier: Apache-2.0
//
// The errors of promises and futures, out of the way of their fast paths.
#include <tendril/future.hpp>

namespace tendril::detail {

void throw_future_error(std::future_errc e) { throw std::future_error(e); }

std::exception_ptr broken_promise_error() {
  return std::make_exception_ptr(std::future_error(std::future_errc::broken_promise));
}

}  // namespace tendril::detail
