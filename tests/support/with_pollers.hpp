// SPDX-License-Identifier: Apache-2.0
//
// Running a body as a fiber, on a stack of its own, over both pollers, at 1 and 2 workers, with a watchdog.
//
//     const auto lines = with_pollers([] { ...fibers, sockets...; return what_was_seen; });
//
// The body must not assert: it returns what it saw, and `check` looks at that on the test's thread.
#pragma once

#include <tendril/net.hpp>

#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

namespace tendril::test {

template <class Body, class Check>
void with_pollers(Body body, Check check) {
  for (const poller_kind kind : {poller_kind::native, poller_kind::portable})
    for (const unsigned workers : {1u, 2u}) {
      const bool portable = kind == poller_kind::portable;
      CAPTURE(portable);
      CAPTURE(workers);
      runtime rt({.workers = workers, .poller = kind});
      const watchdog dog(std::string(portable ? "portable" : "native") + " poller, " +
                             std::to_string(workers) + " worker(s)",
                         &rt);
      check(run_on_own_stack(rt, body));
      rt.drain();
    }
}

/// Two ends of a TCP connection over loopback.
struct tcp_pair {
  net::tcp_stream client;
  net::tcp_stream server;
};

/// On a fiber or a thread; the kernel completes the connection before it is accepted.
inline tcp_pair make_tcp_pair() {
  net::tcp_listener listener(net::endpoint::loopback(0));
  tcp_pair both;
  both.client = net::tcp_stream::connect(listener.local_endpoint());
  both.server = listener.accept();
  return both;
}

}  // namespace tendril::test
