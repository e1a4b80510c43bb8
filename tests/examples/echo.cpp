// SPDX-License-Identifier: Apache-2.0
//
// examples/echo, from outside.

#include <doctest/doctest.h>

#include <signal.h>

#include <string>
#include <vector>

#include "examples/client.hpp"
#include "examples/program.hpp"

namespace {

using examples::client;
using examples::program;

TEST_SUITE("echo") {
  TEST_CASE("what is sent comes back, on many connections at once") {
    program server({EXAMPLE_ECHO, "127.0.0.1:0"});
    const auto port = server.port();
    std::vector<client> clients;
    for (int i = 0; i != 50; ++i) clients.emplace_back(port);
    for (int round = 0; round != 3; ++round) {
      for (std::size_t i = 0; i != clients.size(); ++i)
        clients[i].send("hello " + std::to_string(i));
      for (std::size_t i = 0; i != clients.size(); ++i) {
        const std::string sent = "hello " + std::to_string(i);
        CHECK(clients[i].receive(sent.size()) == sent);
      }
    }
  }

  TEST_CASE("more than the buffers hold comes back whole") {
    program server({EXAMPLE_ECHO, "127.0.0.1:0"});
    client c(server.port());
    std::string sent;
    for (int i = 0; i != 10'000; ++i) sent += std::to_string(i);
    c.send(sent);
    c.end_sending();
    CHECK(c.receive_all() == sent);
  }

  TEST_CASE("a client that breaks off does not take the server with it") {
    program server({EXAMPLE_ECHO, "127.0.0.1:0"});
    const auto port = server.port();
    for (int i = 0; i != 10; ++i)
      client(port).send("never read");  // closes with bytes unread: reset
    client c(port);
    c.send("still here");
    CHECK(c.receive(10) == "still here");
  }

  TEST_CASE("an address that cannot be used is an error with words") {
    program server({EXAMPLE_ECHO, "nowhere"});
    CHECK(server.wait() == 1);
    CHECK(server.output().find("nowhere") != std::string::npos);
  }
}

}  // namespace
