// SPDX-License-Identifier: Apache-2.0
//
// The pool for calls that nothing may take back.
#pragma once

#include <tendril/io.hpp>

#include <system_error>

namespace tendril::detail {

/// run_on_pool() that neither a stop request nor a deadline ends. A code: it could not be begun, nothing was run.
/// The caller keeps in place what the call refers to. On a fiber that can park.
///
/// \switch yes
std::error_code run_on_pool_to_the_end(pool_call& call, const char* reason);

}  // namespace tendril::detail
