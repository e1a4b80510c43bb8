// SPDX-License-Identifier: Apache-2.0
//
// Cancelling what a library waits for, where its calls of libc park (tendril::intercept).
//
//     fiber worker([&] {
//       cancelable_calls here;
//       PGresult* r = PQexec(connection, "select ...");   // ends with an error when the fiber is requested to stop
//     });
#pragma once

#include <tendril/config.hpp>

namespace tendril {

namespace detail {
/// Whether calls of the calling fiber are cancellable from now on; tells whether they were. On a thread: false.
TENDRIL_API bool set_calls_cancelable(bool on) noexcept;
}  // namespace detail

/// While it lives, what ends Tendril's own waits ends this fiber's intercepted calls, too, when they are parked: a
/// request to stop with errno ECANCELED, an enclosing deadline_scope with errno ETIMEDOUT. Without it neither does,
/// because the code that calls knows nothing of fibers, and libraries take errors that are not in the manual
/// page in their own ways: mostly they close the connection.
///
/// Calls that need not wait are made as ever, and what a call has done in part it returns. Scopes nest; opened and
/// closed by one fiber, in order; on a thread they do nothing.
///
/// \switch  no
/// \cost    a read-modify-write
class cancelable_calls {
 public:
  cancelable_calls() noexcept : outer_(detail::set_calls_cancelable(true)) {}
  ~cancelable_calls() { detail::set_calls_cancelable(outer_); }
  cancelable_calls(const cancelable_calls&) = delete;
  cancelable_calls& operator=(const cancelable_calls&) = delete;

 private:
  bool outer_;
};

}  // namespace tendril
