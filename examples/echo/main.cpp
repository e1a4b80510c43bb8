// SPDX-License-Identifier: Apache-2.0
//
// The echo server of the README, with an address from the command line: a fiber accepts, and one
// fiber a connection reads and writes as if each call could block.
//
//     echo [HOST:PORT]        default 127.0.0.1:7777; port 0 takes a free one
#include <tendril/tendril.hpp>

#include <exception>
#include <iostream>
#include <system_error>

int main(int argc, char** argv) try {
  const auto address = tendril::net::endpoint::parse(argc > 1 ? argv[1] : "127.0.0.1:7777");
  tendril::run([&] {
    tendril::net::tcp_listener listener(address);
    std::cout << "listening on " << listener.local_endpoint() << std::endl;
    for (;;) {
      tendril::spawn([c = listener.accept()]() mutable {
        // The form that reports errors instead of throwing them: an exception that leaves a fiber
        // ends the program, and a client that goes away is no reason to.
        std::error_code ec;
        char data[4096];
        while (const auto n = c.read_some(tendril::buffer(data), ec)) {
          c.write_all(tendril::buffer(data, n), ec);
          if (ec) break;
        }
      });
    }
  });
} catch (const std::exception& e) {
  std::cerr << "echo: " << e.what() << '\n';
  return 1;
}
