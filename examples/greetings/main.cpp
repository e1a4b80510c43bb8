// SPDX-License-Identifier: Apache-2.0
//
// greetings: a web service of ordinary blocking code: Boost.Beast's and Asio's synchronous functions, libpq, hiredis,
// std::mutex. Each connection has a thread of its own, or, with `--on fibers`, a fiber: the difference is the one
// line that starts it (`launch`), since the program is linked with tendril::intercept.
//
//     main      this file: options, accepting, a connection from its first request to its last
//     service   what becomes of a request
//     stores    PostgreSQL and Redis
//     pool      connections to them, shared
//
//     greetings --on fibers --port 8080 --postgres "host=127.0.0.1 dbname=postgres" --redis-port 6379
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>

#include <charconv>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iostream>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "service.hpp"

namespace {

namespace http = boost::beast::http;
using boost::asio::ip::tcp;
using greetings::stores;

struct options {
  bool on_fibers = true;
  unsigned workers = 0;
  std::uint16_t port = 8080;
  std::string postgres = "host=127.0.0.1 dbname=postgres";
  std::uint16_t redis_port = 6379;
  std::size_t connections = 16;
};

constexpr const char* usage =
    "usage: greetings [--on fibers|threads] [--workers N] [--port N] [--postgres TARGET]\n"
    "                 [--redis-port N] [--connections N]\n"
    "\n"
    "  --on           what carries a connection (fibers)\n"
    "  --workers      threads that run fibers; 0: one for each processor (0)\n"
    "  --port         where to listen on 127.0.0.1; 0: any that is free (8080)\n"
    "  --postgres     libpq's connection string (host=127.0.0.1 dbname=postgres)\n"
    "  --redis-port   of Redis on 127.0.0.1 (6379)\n"
    "  --connections  to each of the two, at most (16)\n";

template <class Integer>
Integer number(std::string_view option, std::string_view text) {
  Integer value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw std::invalid_argument(std::string(option) + " '" + std::string(text) +
                                "': a number up to " +
                                std::to_string(std::numeric_limits<Integer>::max()) + ", please");
  return value;
}

options parse(int argc, char** argv) {
  options o;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (i + 1 == argc) throw std::invalid_argument(std::string(name) + ": a value is missing");
    const std::string_view value = argv[i + 1];
    if (name == "--on") {
      if (value != "fibers" && value != "threads")
        throw std::invalid_argument("--on '" + std::string(value) + "': fibers or threads");
      o.on_fibers = value == "fibers";
    } else if (name == "--workers") {
      o.workers = number<unsigned>(name, value);
    } else if (name == "--port") {
      o.port = number<std::uint16_t>(name, value);
    } else if (name == "--postgres") {
      o.postgres = value;
    } else if (name == "--redis-port") {
      o.redis_port = number<std::uint16_t>(name, value);
    } else if (name == "--connections") {
      o.connections = number<std::size_t>(name, value);
      if (o.connections == 0 || o.connections > 10'000)
        throw std::invalid_argument("--connections " + std::string(value) +
                                    ": 1 to 10,000, please");
    } else {
      throw std::invalid_argument(std::string(name) + ": unknown; --help lists the options");
    }
  }
  return o;
}

/// One connection. A client that goes away, or speaks no HTTP, ends it.
void converse(tcp::socket client, stores& from) {
  boost::beast::flat_buffer buffer;
  boost::beast::error_code error;
  for (bool more = true; more;) {
    greetings::request asked;
    http::read(client, buffer, asked, error);
    if (error) return;
    const greetings::response r = greetings::answer(asked, from);
    more = r.keep_alive();
    http::write(client, r, error);
    if (error) return;
  }
  client.shutdown(tcp::socket::shutdown_send, error);
}

/// Accepts until the process ends. `launch` starts what runs a connection.
template <class Launch>
void serve(const options& o, Launch launch) {
  stores all{{o.connections, [&] { return std::make_unique<greetings::database>(o.postgres); }},
             {o.connections,
              [&] { return std::make_unique<greetings::cache>("127.0.0.1", o.redis_port); }}};
  boost::asio::io_context io;
  tcp::acceptor acceptor(io, {boost::asio::ip::address_v4::loopback(), o.port});
  std::cout << "listening on 127.0.0.1:" << acceptor.local_endpoint().port() << std::endl;
  for (;;) {
    tcp::socket client = acceptor.accept();
    client.set_option(tcp::no_delay(true));
    launch([&all, client = std::move(client)]() mutable { converse(std::move(client), all); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--help") == 0) {
    std::cout << usage;
    return 0;
  }
  options o;
  try {
    o = parse(argc, argv);
  } catch (const std::invalid_argument& e) {
    std::cerr << "greetings: " << e.what() << '\n';
    return 2;
  }
  try {
    if (!o.on_fibers) {
      serve(o, [](auto connection) { std::thread(std::move(connection)).detach(); });
    } else {
      // Beast, libpq and hiredis are written for the stacks of threads.
      tendril::run(
          {.workers = o.workers, .stack = {tendril::stack_kind::reserved, std::size_t{256} << 10}},
          [&] { serve(o, [](auto connection) { tendril::spawn(std::move(connection)); }); });
    }
  } catch (const std::exception& e) {
    std::cerr << "greetings: " << e.what() << '\n';
    return 1;
  }
}
