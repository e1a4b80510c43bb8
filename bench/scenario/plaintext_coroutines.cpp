// SPDX-License-Identifier: Apache-2.0
//
// A coroutine per connection on a libuv loop: the code of the server of fibers, with co_await where that one
// waits. One template for all kinds of coroutine; the loop, its streams and the system calls are those of
// the server written with callbacks.

#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/plaintext_servers.hpp"
#include "bench/scenario/uv_coroutines.hpp"
#include "bench/support/plaintext.hpp"

#include <utility>

namespace bench {
namespace {

template <template <class> class Task>
struct coroutine_server {
  static Task<void> serve_connection(uv::stream stream, plaintext::responder& responder) {
    stream.no_delay();
    plaintext::request_buffer in;
    for (;;) {
      const ssize_t n = co_await stream.read_some(in.space());
      if (n <= 0) co_return;
      int requests = in.arrived(static_cast<std::size_t>(n));
      if (requests < 0) co_return;
      while (requests > 0) {
        const plaintext::responder::batch batch = responder.take(requests);
        const int failed = co_await stream.write_all(batch.bytes());
        if (failed != 0) co_return;
      }
    }
  }

  static Task<void> accept_all(uv::listener& listener, plaintext::responder& responder) {
    for (;;) {
      uv::stream stream = co_await listener.accept();
      run_detached(serve_connection(std::move(stream), responder));
    }
  }

  static void serve(std::uint16_t port, const port_callback& ready) {
    uv::loop loop;
    plaintext::responder responder;
    uv::listener listener(loop, port);
    ready(listener.port());
    run_detached(accept_all(listener, responder));
    loop.run();
  }
};

}  // namespace

void serve_task(std::uint16_t port, const port_callback& ready) {
  coroutine_server<tendril_task>::serve(port, ready);
}

void serve_async1(std::uint16_t port, const port_callback& ready) {
  coroutine_server<async1_task>::serve(port, ready);
}

}  // namespace bench
