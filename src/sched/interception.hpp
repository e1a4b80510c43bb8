// SPDX-License-Identifier: Apache-2.0
//
// What a runtime that starts does about libc's calls; defined by src/intercept.
#pragma once

namespace tendril::detail {

/// Hands the hooks to the front, if there is one in the process. Again in a forked
/// child that starts a runtime of its own.
///
/// \throws std::system_error  not_supported: the front is of another build
void install_interception();

}  // namespace tendril::detail
