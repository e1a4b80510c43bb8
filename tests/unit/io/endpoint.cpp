// SPDX-License-Identifier: Apache-2.0
#include <tendril/buffer.hpp>
#include <tendril/net.hpp>

#include <doctest/doctest.h>

#include <string>
#include <system_error>
#include <type_traits>
#include <vector>

using tendril::net::endpoint;

TEST_SUITE("endpoint") {
  TEST_CASE("an IPv4 address and port go to text and back") {
    const endpoint e("192.0.2.7", 8080);
    CHECK(e.is_v4());
    CHECK(e.port() == 8080);
    CHECK(e.to_string() == "192.0.2.7:8080");
    CHECK(endpoint::parse("192.0.2.7:8080") == e);
  }

  TEST_CASE("an IPv6 address is written in brackets") {
    const endpoint e("2001:db8::1", 443);
    CHECK(e.is_v6());
    CHECK(e.address() == "2001:db8::1");
    CHECK(e.to_string() == "[2001:db8::1]:443");
    CHECK(endpoint::parse("[2001:db8::1]:443") == e);
  }

  TEST_CASE("a scope is kept, by name or number") {
    CHECK(endpoint("fe80::1%lo", 1).scope() == 1);
    CHECK(endpoint("fe80::1%77", 1).scope() == 77);
    CHECK(endpoint("fe80::1%lo", 1).to_string() == "[fe80::1%lo]:1");
  }

  TEST_CASE("what is not an address is refused and named") {
    for (const char* text :
         {"", "example.org", "1.2.3", "1.2.3.4.5", "::1::", "1.2.3.4%lo", "fe80::1%"}) {
      CAPTURE(text);
      try {
        const endpoint e(text, 1);
        FAIL("accepted");
      } catch (const std::system_error& error) {
        CHECK(error.code() == std::errc::invalid_argument);
        CHECK(std::string(error.what()).find(text) != std::string::npos);
      }
    }
  }

  TEST_CASE("what is not an address and port is refused") {
    for (const char* text : {"", ":80", "1.2.3.4", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:70000",
                             "::1:80", "[::1]", "[::1]80", "[1.2.3.4]:80", "1.2.3.4:80 "}) {
      CAPTURE(text);
      std::error_code ec;
      endpoint::parse(text, ec);
      CHECK(ec == std::errc::invalid_argument);
    }
  }

  TEST_CASE("endpoints are ordered and hashed by value") {
    const endpoint a("127.0.0.1", 1);
    CHECK(a == endpoint::loopback(1));
    CHECK(a != endpoint::loopback(2));
    CHECK(std::hash<endpoint>()(a) == std::hash<endpoint>()(endpoint::loopback(1)));
  }
}

TEST_SUITE("buffer") {
  TEST_CASE("mutable of what can be written, constant of what cannot") {
    char array[4] = {};
    std::vector<int> ints(3);
    const std::string text = "abc";
    static_assert(std::is_same_v<decltype(tendril::buffer(array)), tendril::mutable_buffer>);
    static_assert(std::is_same_v<decltype(tendril::buffer(text)), tendril::const_buffer>);
    static_assert(
        std::is_same_v<decltype(tendril::buffer(std::string_view("x"))), tendril::const_buffer>);
    CHECK(tendril::buffer(array).size() == 4);
    CHECK(tendril::buffer(ints).size() == 3 * sizeof(int));
    CHECK(tendril::buffer(text).size() == 3);
    CHECK(static_cast<void*>(tendril::buffer(array).data()) == array);
  }

  TEST_CASE("a length cuts, and never extends") {
    char array[4] = {};
    CHECK(tendril::buffer(array, 2).size() == 2);
    CHECK(tendril::buffer(array, 9).size() == 4);
  }
}
