// SPDX-License-Identifier: Apache-2.0
//
// The server around the sessions: listening, accepting, ending in good order.
#pragma once

#include "options.hpp"

namespace http_hello {

/// Serves until SIGTERM or SIGINT. Then nobody is accepted any more, requests in flight are finished,
/// and the function returns; a second signal ends the process at once.
///
/// Prints "listening on ADDRESS:PORT" once it does.
///
/// \throws std::system_error  the address cannot be listened on, or accepting has become impossible
/// \switch yes; for fibers only
void serve(const options&);

}  // namespace http_hello
