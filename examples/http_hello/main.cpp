// SPDX-License-Identifier: Apache-2.0
//
// http_hello: an HTTP/1.1 server with a fiber for each connection.
//
//     main          this file: options in, exit status out
//     options       the command line
//     server        listening, accepting, ending in good order
//     http_session  one connection from its first byte to its last
//     request_parser  one request, on Boost.Beast's parser
//     routes        which request gets which response
//     response      responses as text
//
// TLS and HTTP/2 are not its business: they belong to a proxy in front of it.
#include <tendril/runtime.hpp>

#include <exception>
#include <iostream>

#include "options.hpp"
#include "server.hpp"

int main(int argc, char** argv) {
  http_hello::options chosen;
  try {
    chosen = http_hello::parse_options(argc, argv);
  } catch (const http_hello::bad_option& e) {
    std::cerr << "http_hello: " << e.what() << '\n';
    return 2;
  }
  if (chosen.help) {
    std::cout << http_hello::usage;
    return 0;
  }
  try {
    tendril::run({.workers = chosen.workers}, [&] { http_hello::serve(chosen); });
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "http_hello: " << e.what() << '\n';
    return 1;
  }
}
