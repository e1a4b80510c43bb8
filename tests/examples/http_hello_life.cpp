// SPDX-License-Identifier: Apache-2.0
//
// examples/http_hello: options, timeouts, exhaustion, load, and its end.

#include <doctest/doctest.h>

#include <signal.h>

#include <atomic>
#include <exception>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "examples/client.hpp"
#include "examples/program.hpp"

namespace {

using examples::client;
using examples::hello_body;
using examples::hello_request;
using examples::http_response;
using examples::program;

// UBSan's check of vptrs looks at objects through a pipe: without descriptors it finds every object
// broken, whoever's it is.
#ifdef EXAMPLES_HAVE_UBSAN
constexpr bool needs_descriptors = true;
#else
constexpr bool needs_descriptors = false;
#endif

/// http_hello on a free port.
struct server {
  explicit server(std::vector<std::string> options = {}, examples::launch_options how = {})
      : process(command(std::move(options)), how), port(process.port()) {}

  static std::vector<std::string> command(std::vector<std::string> options) {
    options.insert(options.begin(), {EXAMPLE_HTTP_HELLO, "127.0.0.1:0"});
    return options;
  }

  program process;
  std::uint16_t port;
};

bool is_hello(const http_response& r) { return r.status == 200 && r.body == hello_body; }

TEST_SUITE("http_hello options") {
  TEST_CASE("a wrong option is named, with its value") {
    struct wrong {
      std::vector<std::string> options;
      std::string said;
    };
    const wrong all[] = {
        {{"--workers", "x"}, "--workers: 'x'"},
        {{"--workers=65"}, "--workers: '65'"},
        {{"--workers"}, "--workers needs a value"},
        {{"--idle-timeout", "-1"}, "--idle-timeout: '-1'"},
        {{"--idle-timeout", "nan"}, "--idle-timeout: 'nan'"},
        {{"--request-timeout", "1s"}, "--request-timeout: '1s'"},
        {{"--drain-timeout="}, "--drain-timeout: ''"},
        {{"--max-header", "1"}, "--max-header: '1'"},
        {{"--max-body", "1e3"}, "--max-body: '1e3'"},
        {{"--colour"}, "'--colour'"},
        {{"localhost"}, "'localhost'"},
        {{"127.0.0.1:99999"}, "'127.0.0.1:99999'"},
        {{"127.0.0.1:0", "127.0.0.1:0"}, "more than one address"},
    };
    for (const wrong& w : all) {
      CAPTURE(w.said);
      std::vector<std::string> command = w.options;
      command.insert(command.begin(), EXAMPLE_HTTP_HELLO);
      program p(command);
      CHECK(p.wait() == 2);
      CHECK(p.output().find(w.said) != std::string::npos);
    }
  }

  TEST_CASE("--help helps") {
    program p({EXAMPLE_HTTP_HELLO, "--help"});
    CHECK(p.wait() == 0);
    CHECK(p.output().find("--idle-timeout") != std::string::npos);
  }

  TEST_CASE("an address that is taken is an error with words") {
    server first;
    program second({EXAMPLE_HTTP_HELLO, "127.0.0.1:" + std::to_string(first.port)});
    CHECK(second.wait() == 1);
    CHECK(second.output().find(std::to_string(first.port)) != std::string::npos);
  }
}

TEST_SUITE("http_hello timeouts") {
  TEST_CASE("an idle connection is closed without a word") {
    server s({"--idle-timeout", "1"});
    client fresh(s.port);
    client used(s.port);
    CHECK(is_hello(used.ask(hello_request)));
    CHECK(fresh.ends());
    CHECK(used.ends());
  }

  TEST_CASE("a request that stops half-way is told so") {
    server s({"--idle-timeout", "1"});
    for (const std::string_view half :
         {hello_request.substr(0, 20),
          std::string_view("GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhel")}) {
      client c(s.port);
      c.send(half);
      const http_response r = c.response();
      CHECK(r.status == 408);
      CHECK(r.has("\r\nConnection: close\r\n"));
      CHECK(c.ends());
    }
  }

  TEST_CASE("a request that trickles in does not last for ever") {
    server s({"--request-timeout", "0.3"});
    client c(s.port);
    c.send("GET / HTTP/1.1\r\nHost: t\r\nX: ");
    while (!c.is_readable(10) && c.try_send("x")) {
    }
    CHECK(c.response().status == 408);
  }

  TEST_CASE("the time of one request is not counted against the next") {
    server s({"--request-timeout", "60", "--idle-timeout", "60"});
    client c(s.port);
    for (int i = 0; i != 5; ++i) {
      c.send(hello_request.substr(0, 10));
      c.is_readable(5);
      CHECK(is_hello(c.ask(hello_request.substr(10))));
    }
  }
}

TEST_SUITE("http_hello end") {
  TEST_CASE("SIGTERM and SIGINT close idle connections and end with 0") {
    for (const int number : {SIGTERM, SIGINT}) {
      server s;
      client fresh(s.port);
      client used(s.port);
      CHECK(is_hello(used.ask(hello_request)));
      s.process.signal(number);
      CHECK(used.ends());
      CHECK(s.process.wait() == 0);
      CHECK_THROWS_AS(client{s.port}, std::system_error);
    }
  }

  TEST_CASE("a request that is half there is finished") {
    server s;
    client c(s.port);
    client idle(s.port);
    CHECK(is_hello(idle.ask(hello_request)));
    // One segment with a request and a half: the first answer says that the half has been read.
    c.send(std::string(hello_request) + std::string(hello_request.substr(0, 15)));
    CHECK(is_hello(c.response()));
    s.process.signal(SIGTERM);
    CHECK(idle.ends());  // so the signal has had its effect
    c.send(hello_request.substr(15, 10));
    c.send(hello_request.substr(25));
    const http_response r = c.response();
    CHECK(is_hello(r));
    CHECK(r.has("\r\nConnection: close\r\n"));
    CHECK(c.ends());
    CHECK(s.process.wait() == 0);
  }

  TEST_CASE("a body that is half there is finished") {
    server s;
    client c(s.port);
    client idle(s.port);
    CHECK(is_hello(idle.ask(hello_request)));
    c.send("GET / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n");
    CHECK(c.response().status == 100);
    s.process.signal(SIGTERM);
    CHECK(idle.ends());
    c.send("01234");
    CHECK(is_hello(c.ask("56789")));
    CHECK(c.ends());
    CHECK(s.process.wait() == 0);
  }

  TEST_CASE("a request that is never finished does not keep the server") {
    server s({"--drain-timeout", "0.2"});
    client c(s.port);
    c.send(std::string(hello_request) + "GET / HT");
    CHECK(is_hello(c.response()));
    s.process.signal(SIGTERM);
    CHECK(c.response().status == 408);
    c.end_sending();
    CHECK(s.process.wait() == 0);
  }

  TEST_CASE("a client that does not read does not keep the server") {
    server s({"--drain-timeout", "0.2"});
    client deaf(s.port);
    // Until neither side's buffers take any more: the server is in the middle of a write.
    std::string many;
    for (int i = 0; i != 1000; ++i) many += hello_request;
    std::thread sender([&] {
      while (deaf.try_send(many)) {
      }
    });
    client c(s.port);
    CHECK(is_hello(c.ask(hello_request)));
    s.process.signal(SIGTERM);
    CHECK(s.process.wait() == 0);
    sender.join();
  }

  TEST_CASE("under load, every answer that begins is whole") {
    server s;
    constexpr int count = 8;
    std::atomic<int> answered{0};
    std::atomic<int> wrong{0};
    std::vector<std::thread> clients;
    for (int i = 0; i != count; ++i) {
      clients.emplace_back([&] {
        try {
          client c(s.port);
          for (;;) {
            if (!c.try_send(hello_request)) return;
            // The end may come instead of an answer, but not within one.
            if (!c.is_readable(60'000)) throw std::system_error();
            std::string first;
            try {
              first = c.receive(1);
            } catch (const std::exception&) {
              return;
            }
            if (c.receive(9) != "TTP/1.1 2") throw std::system_error();
            std::string rest;
            while (rest.find("Hello, World!") == rest.npos) rest += c.receive(1);
            ++answered;
          }
        } catch (const std::exception&) {
          ++wrong;
        }
      });
    }
    while (answered < 500 && wrong == 0) std::this_thread::yield();
    s.process.signal(SIGTERM);
    CHECK(s.process.wait() == 0);
    for (std::thread& c : clients) c.join();
    CHECK(wrong == 0);
  }
}

TEST_SUITE("http_hello load") {
  TEST_CASE("running out of descriptors is survived" * doctest::skip(needs_descriptors)) {
    server s({"--workers", "2"}, {.descriptors = 40});
    std::vector<client> clients;
    for (int i = 0; i != 60; ++i) clients.emplace_back(s.port);
    s.process.wait_for_line("accepting is put off");
    CHECK(is_hello(clients.front().ask(hello_request)));
    // The last were not accepted yet; the others make room for them.
    clients.erase(clients.begin(), clients.begin() + 40);
    for (client& c : clients) CHECK(is_hello(c.ask(hello_request)));
    s.process.signal(SIGTERM);
    CHECK(s.process.wait() == 0);
  }

#ifdef WRK
  TEST_CASE("wrk finds no errors") {
    server s;
    program wrk(
        {WRK, "-t1", "-c32", "-d1s", "http://127.0.0.1:" + std::to_string(s.port) + "/plaintext"});
    CHECK(wrk.wait() == 0);
    CAPTURE(wrk.output());
    CHECK(wrk.output().find("Requests/sec") != std::string::npos);
    CHECK(wrk.output().find("Socket errors") == std::string::npos);
    CHECK(wrk.output().find("Non-2xx") == std::string::npos);
    s.process.signal(SIGTERM);
    CHECK(s.process.wait() == 0);
  }
#endif
}

}  // namespace
