// SPDX-License-Identifier: Apache-2.0
//
// examples/http_hello: what it answers, and that it does not matter how the bytes arrive.

#include <doctest/doctest.h>

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <string_view>

#include "examples/client.hpp"
#include "examples/program.hpp"

namespace {

using examples::client;
using examples::hello_body;
using examples::hello_request;
using examples::http_response;
using examples::program;

/// A server with small limits.
struct server {
  program process{{EXAMPLE_HTTP_HELLO, "127.0.0.1:0", "--max-body", "1000", "--max-header=1024"}};
  std::uint16_t port = process.port();
};

bool is_hello(const http_response& r) { return r.status == 200 && r.body == hello_body; }

std::string repeat(std::string_view text, int times) {
  std::string all;
  while (times-- > 0) all += text;
  return all;
}

TEST_SUITE("http_hello requests") {
  TEST_CASE("both routes say hello, and when") {
    server s;
    client c(s.port);
    for (const char* target :
         {"/", "/plaintext", "/plaintext?x=1", "http://test/plaintext", "http://test"}) {
      CAPTURE(target);
      const http_response r =
          c.ask("GET " + std::string(target) + " HTTP/1.1\r\nHost: test\r\n\r\n");
      CHECK(is_hello(r));
      CHECK(r.has("\r\nContent-Length: 13\r\n"));
      CHECK(r.has("\r\nContent-Type: text/plain\r\n"));
      CHECK_FALSE(r.has("Connection:"));
      const auto date = r.head.find("\r\nDate: ");
      REQUIRE(date != r.head.npos);
      const std::string value = r.head.substr(date + 8, r.head.find("\r\n", date + 8) - date - 8);
      CHECK(value.size() == 29);
      CHECK(value.ends_with(" GMT"));
      CHECK(std::stoi(value.substr(12, 4)) > 2000);
    }
  }

  TEST_CASE("what is not there, not allowed or not known is told, and the connection stays") {
    server s;
    client c(s.port);
    const auto ask = [&](const char* line) {
      return c.ask(std::string(line) + " HTTP/1.1\r\nHost: test\r\n\r\n");
    };
    CHECK(ask("GET /nowhere").status == 404);
    CHECK(ask("GET /plaintext/").status == 404);
    CHECK(ask("GET *").status == 404);
    const http_response wrong = ask("DELETE /plaintext");
    CHECK(wrong.status == 405);
    CHECK(wrong.has("\r\nAllow: GET, HEAD, OPTIONS\r\n"));
    CHECK(ask("BREW /plaintext").status == 501);
    for (const char* line : {"OPTIONS *", "OPTIONS /"}) {
      const http_response r = ask(line);
      CHECK(r.status == 204);
      CHECK(r.has("\r\nAllow: GET, HEAD, OPTIONS\r\n"));
      CHECK_FALSE(r.has("Content-Length"));
    }
    CHECK(is_hello(c.ask(hello_request)));
  }

  TEST_CASE("HEAD has the header of GET and no body") {
    server s;
    client c(s.port);
    c.send("HEAD /plaintext HTTP/1.1\r\nHost: test\r\n\r\n");
    c.send("HEAD /nowhere HTTP/1.1\r\nHost: test\r\n\r\n");
    c.send(hello_request);
    const http_response r = c.response(true);
    CHECK(r.status == 200);
    CHECK(r.has("\r\nContent-Length: 13\r\n"));
    CHECK(c.response(true).status == 404);
    CHECK(is_hello(c.response()));
  }

  TEST_CASE("byte by byte") {
    server s;
    client c(s.port);
    for (const char byte : repeat(hello_request, 3)) c.send({&byte, 1});
    for (int i = 0; i != 3; ++i) CHECK(is_hello(c.response()));
  }

  TEST_CASE("cut at every place") {
    server s;
    client c(s.port);
    const std::string two =
        "GET / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX: y\r\n\r\n" +
        std::string(hello_request);
    for (std::size_t cut = 1; cut != two.size(); ++cut) {
      CAPTURE(cut);
      c.send(two.substr(0, cut));
      // Asking for what the server has taken so far would need its help: a moment in which it may.
      c.is_readable(1);
      c.send(two.substr(cut));
      CHECK(is_hello(c.response()));
      CHECK(is_hello(c.response()));
    }
  }

  TEST_CASE("pipelined requests are answered in order, by one write") {
    server s;
    client c(s.port);
    c.send(repeat(hello_request, 10));
    for (int i = 0; i != 10; ++i) CHECK(is_hello(c.response()));
    tcp_info info{};
    socklen_t size = sizeof info;
    REQUIRE(::getsockopt(c.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &size) == 0);
    CHECK(info.tcpi_data_segs_in == 1);

    std::string many;
    for (int i = 0; i != 500; ++i) {
      many += i % 3 == 0 ? hello_request : "GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n";
    }
    c.send(many);
    for (int i = 0; i != 500; ++i) CHECK(c.response().status == (i % 3 == 0 ? 200 : 404));
  }

  TEST_CASE("an empty line before a request is forgiven") {
    server s;
    client c(s.port);
    CHECK(is_hello(c.ask("\r\n" + std::string(hello_request))));
    CHECK(is_hello(c.ask("\r\n" + std::string(hello_request))));
  }

  TEST_CASE("Connection: close is obeyed, and said") {
    server s;
    client c(s.port);
    const http_response r = c.ask("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n" +
                                  std::string(hello_request));
    CHECK(is_hello(r));
    CHECK(r.has("\r\nConnection: close\r\n"));
    CHECK(c.ends());
  }

  TEST_CASE("HTTP/1.0 closes, unless asked to stay") {
    server s;
    client c(s.port);
    for (int i = 0; i != 2; ++i) {
      const http_response r = c.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
      CHECK(is_hello(r));
      CHECK(r.has("\r\nConnection: keep-alive\r\n"));
    }
    CHECK(is_hello(c.ask("GET / HTTP/1.0\r\n\r\n")));
    CHECK(c.ends());
  }

  TEST_CASE("a client that ends its side gets its answers") {
    server s;
    client c(s.port);
    c.send(repeat(hello_request, 2));
    c.end_sending();
    CHECK(is_hello(c.response()));
    CHECK(is_hello(c.response()));
    CHECK(c.ends());
  }
}

TEST_SUITE("http_hello bodies") {
  TEST_CASE("bodies are read past, counted or chunked") {
    server s;
    client c(s.port);
    CHECK(c.ask("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nGET /").status == 405);
    CHECK(is_hello(c.ask("GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n" +
                         std::string(1000, 'x'))));
    CHECK(
        is_hello(c.ask("GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "3E8\r\n" +
                       std::string(1000, 'x') + "\r\n0\r\n\r\n")));
    CHECK(
        is_hello(c.ask("GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "1;a=\"b\"\r\nx\r\n0\r\nExpect: nothing\r\nHost: other\r\n\r\n")));
    CHECK(is_hello(c.ask("GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")));
    CHECK(is_hello(c.ask(hello_request)));
  }

  TEST_CASE("a body that is too large is refused, and the refusal arrives") {
    server s;
    const std::string much(300'000, 'x');
    {
      client c(s.port);
      CHECK(c.ask("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1001\r\n\r\n").status == 413);
      CHECK(c.ends());
    }
    {
      client c(s.port);
      c.try_send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 300000\r\n\r\n" + much);
      const http_response r = c.response();
      CHECK(r.status == 413);
      CHECK(r.has("\r\nConnection: close\r\n"));
      CHECK(c.ends());
    }
    {
      client c(s.port);
      c.try_send(
          "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
          "3E8\r\n" +
          std::string(1000, 'x') + "\r\n1\r\nx\r\n");
      CHECK(c.response().status == 413);
      CHECK(c.ends());
    }
  }

  TEST_CASE("Expect: 100-continue") {
    server s;
    client c(s.port);
    constexpr std::string_view get =
        "GET / HTTP/1.1\r\nHost: t\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n";
    CHECK(c.ask(get).status == 100);
    CHECK(is_hello(c.ask("hello")));

    // The body is already there: nothing to wait for.
    CHECK(is_hello(c.ask(std::string(get) + "hello")));

    CHECK(c.ask("GET / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                "Transfer-Encoding: chunked\r\n\r\n")
              .status == 100);
    CHECK(is_hello(c.ask("2\r\nhi\r\n0\r\n\r\n")));

    // No body, so nothing to continue with.
    CHECK(is_hello(c.ask("GET / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n\r\n")));

    // HTTP/1.0 knows no 100.
    c.send(
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n"
        "Content-Length: 5\r\n\r\n");
    CHECK_FALSE(c.is_readable(20));
    CHECK(is_hello(c.ask("hello")));
  }

  TEST_CASE("a body that would change nothing is not asked for") {
    server s;
    for (const char* start : {"POST /", "GET /nowhere"}) {
      client c(s.port);
      const http_response r =
          c.ask(std::string(start) +
                " HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
      CHECK(r.status >= 404);
      CHECK(r.status <= 405);
      CHECK(r.has("\r\nConnection: close\r\n"));
      CHECK(c.ends());
    }
    client c(s.port);
    CHECK(c.ask("POST / HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n"
                "Content-Length: 5000\r\n\r\n")
              .status == 413);
    client d(s.port);
    CHECK(d.ask("GET / HTTP/1.1\r\nHost: t\r\nExpect: miracles\r\n\r\n").status == 417);
  }
}

TEST_SUITE("http_hello errors") {
  TEST_CASE("what is malformed is refused and ends the connection") {
    server s;
    struct wrong {
      int status;
      std::string text;
    };
    const wrong all[] = {
        {400, "\x16\x03\x01\x02 TLS spoken here"},
        {400, "GET\r\n\r\n"},
        {400, "GET  HTTP/1.1\r\nHost: t\r\n\r\n"},
        {400, "GET / HTTP/1.1\nHost: t\n\n"},
        {400, "GET / FTP/1.1\r\nHost: t\r\n\r\n"},
        {400, "GET / HTTP/1.1 please\r\nHost: t\r\n\r\n"},
        {400, "GET /a b HTTP/1.1\r\nHost: t\r\n\r\n"},
        {400, "G\x01T / HTTP/1.1\r\nHost: t\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\n\r\n"},  // no Host
        {400, "GET / HTTP/1.1\r\nHost: t\r\nHost: u\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost : t\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: t\r\nno colon\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: ten\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999999999999999\r\n\r\n"},
        // Ways to hide a request in a body from one of two servers
        {400,
         "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400,
         "GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"},
        {400, "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"},
        {400, "GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n"},
        {505, "GET / HTTP/2.0\r\nHost: t\r\n\r\n"},
        {505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
        {505, "GET / HTTP/0.9\r\n\r\n"},
        {414, "GET /" + std::string(2000, 'x')},
        {431, "GET / HTTP/1.1\r\nHost: t\r\nX: " + std::string(2000, 'x')},
        {431, "GET / HTTP/1.1\r\nHost: t\r\n" + repeat("X: y\r\n", 200) + "\r\n"},
        {431, "GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1;" +
                  std::string(2000, 'x')},
    };
    for (const wrong& w : all) {
      CAPTURE(w.text.substr(0, 100));
      client c(s.port);
      // Behind a good one, which must be answered first.
      c.send(std::string(hello_request) + w.text);
      CHECK(is_hello(c.response()));
      const http_response r = c.response();
      CHECK(r.status == w.status);
      CHECK(r.has("\r\nConnection: close\r\n"));
      CHECK(c.ends());
    }
    client c(s.port);
    CHECK(is_hello(c.ask(hello_request)));
  }

  TEST_CASE("header lines that come one by one are limited all the same") {
    server s;
    client c(s.port);
    c.send("GET / HTTP/1.1\r\nHost: t\r\n");
    // Line by line, each in a segment of its own, until the server has had enough.
    for (int i = 0; i != 1000 && !c.is_readable(1); ++i) {
      if (!c.try_send("X-Line: of many\r\n")) break;
    }
    CHECK(c.response().status == 431);
  }

  TEST_CASE("chunk extensions are limited in all") {
    server s;
    client c(s.port);
    c.send("GET / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n");
    c.try_send(repeat("1;" + std::string(100, 'x') + "\r\ny\r\n", 20));
    CHECK(c.response().status == 400);
    CHECK(c.ends());
  }

  TEST_CASE("a request that is broken off leaves the server well") {
    server s;
    for (std::size_t cut = 1; cut < hello_request.size(); cut += 3) {
      client c(s.port);
      c.send(hello_request.substr(0, cut));
    }
    {
      client c(s.port);
      c.send(hello_request.substr(0, 10));
      c.end_sending();
      CHECK(c.ends());
    }
    client c(s.port);
    CHECK(is_hello(c.ask(hello_request)));
  }
}

}  // namespace
