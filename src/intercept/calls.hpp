// SPDX-License-Identifier: Apache-2.0
//
// What libc's functions do on a fiber: one function for each line of platform/intercept_symbols.def that wants one,
// declared here from that list, defined in the files of this folder.
//
// They are called by the front, on a fiber that can park (kinds parks and own) or on any thread (kind always,
// and kind own where its wrapper says so). They keep libc's contract: the result, and errno last. What they
// need of libc they call by real() (install.hpp), never by name: that would come back here.
//
// errno belongs to the thread, and compilers keep its address: these functions work with negated errors
// (attempt, io/operation.hpp) and leave by finish().
#pragma once

#include "platform/intercept.hpp"

namespace tendril::detail {

namespace calls {
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  result name parameters;
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
}  // namespace calls

/// The end of a call: a result, or an errno negated, becomes what libc returns. What went on inside leaves no
/// trace in errno when it succeeds.
long finish(long result, int errno_before) noexcept;
int errno_now() noexcept;

}  // namespace tendril::detail
