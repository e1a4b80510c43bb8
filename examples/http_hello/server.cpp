// SPDX-License-Identifier: Apache-2.0
#include "server.hpp"

#include <tendril/fiber.hpp>
#include <tendril/io.hpp>
#include <tendril/net.hpp>
#include <tendril/scope.hpp>

#include <csignal>
#include <iostream>
#include <new>
#include <optional>
#include <system_error>
#include <utility>

#include "http_session.hpp"

namespace http_hello {
namespace {

/// One connection is lost; those that end give memory back.
void report_out_of_memory() { std::cerr << "http_hello: out of memory for a connection\n"; }

/// Until the listener is closed.
void accept_connections(tendril::net::tcp_listener& listener, tendril::task_scope& sessions,
                        const options& chosen) {
  for (;;) {
    std::error_code ec;
    tendril::net::tcp_stream connection = listener.accept(ec);
    if (ec == std::errc::bad_file_descriptor) return;
    if (ec) throw std::system_error(ec, "accepting");
    try {
      sessions.spawn([c = std::move(connection), &chosen]() mutable {
        // A failure that left the session would end all the others: so wants the scope.
        try {
          http_session(std::move(c), chosen).run();
        } catch (const std::bad_alloc&) {
          report_out_of_memory();
        }
      });
    } catch (const std::bad_alloc&) {
      report_out_of_memory();
    }
  }
}

}  // namespace

void serve(const options& chosen) {
  // Before listening: whoever knows that we listen may send a signal.
  std::optional<tendril::signal_set> stop_signals;
  stop_signals.emplace({SIGTERM, SIGINT});

  tendril::net::tcp_listener listener(chosen.address);
  // Accepting goes on by itself when descriptors become free; the operator should know all the same.
  listener.on_exhausted([](std::error_code why) {
    std::cerr << "http_hello: accepting is put off: " << why.message() << std::endl;
  });
  std::cout << "listening on " << listener.local_endpoint() << std::endl;

  tendril::task_scope sessions;
  tendril::fiber stopper([&] {
    std::error_code ec;
    stop_signals->wait(ec);
    stop_signals.reset();  // the next signal does what it does by default
    listener.close();
  });
  accept_connections(listener, sessions, chosen);
  stopper.join();

  // Sessions see this as a request to stop: http_session.hpp says what they make of it.
  sessions.cancel();
  sessions.join();
}

}  // namespace http_hello
