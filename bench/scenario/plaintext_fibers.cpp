// SPDX-License-Identifier: Apache-2.0
//
// The subject of E7: a fiber per connection, written as one would write the thread. The
// buffer is a local; the responder is shared, which is safe because the runtime has one worker and
// take() does not wait.

#include "bench/scenario/plaintext_servers.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/plaintext.hpp"

#include <tendril/fiber.hpp>
#include <tendril/net.hpp>
#include <tendril/runtime.hpp>

#include <memory>
#include <system_error>
#include <utility>

namespace bench {
namespace {

void serve_connection(tendril::net::tcp_stream& stream, plaintext::responder& responder) {
  plaintext::request_buffer in;
  for (;;) {
    std::error_code ec;
    const std::size_t n = stream.read_some(tendril::buffer(in.space()), ec);
    if (ec || n == 0) return;
    int requests = in.arrived(n);
    if (requests < 0) return;
    while (requests > 0) {
      const plaintext::responder::batch batch = responder.take(requests);
      stream.write_all(tendril::buffer(batch.bytes()), ec);
      if (ec) return;
    }
  }
}

}  // namespace

void serve_fibers(std::uint16_t port, const port_callback& ready, const std::string& stack) {
  tendril::run(runtime_with(stack, 1), [&] {
    const auto responder = std::make_unique<plaintext::responder>();
    tendril::net::tcp_listener listener(tendril::net::endpoint::loopback(port));
    ready(listener.local_endpoint().port());
    for (;;)
      tendril::spawn([stream = listener.accept(), &responder = *responder]() mutable {
        serve_connection(stream, responder);
      });
  });
}

}  // namespace bench
