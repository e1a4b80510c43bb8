// SPDX-License-Identifier: Apache-2.0
//
// examples/greetings from outside, on fibers and on threads, with PostgreSQL and Redis behind it.
#include <doctest/doctest.h>
#include <hiredis/hiredis.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "clients/servers.hpp"
#include "examples/client.hpp"
#include "examples/program.hpp"

using examples::client;
using examples::program;
using namespace tendril::test;

namespace {

std::vector<std::string> command(const std::string& on) {
  return {EXAMPLE_GREETINGS,
          "--on",
          on,
          "--port",
          "0",
          "--postgres",
          "host=127.0.0.1 user=tendril dbname=postgres port=" + server_setting("POSTGRES_PORT"),
          "--redis-port",
          server_setting("REDIS_PORT"),
          "--connections",
          "4"};
}

std::string get(const std::string& path) {
  return "GET " + path + " HTTP/1.1\r\nHost: test\r\n\r\n";
}

/// What the cache holds is of the test before.
void empty_cache() {
  const std::unique_ptr<redisContext, void (*)(redisContext*)> c(
      redisConnect("127.0.0.1", server_port("REDIS")), redisFree);
  REQUIRE(c->err == 0);
  freeReplyObject(redisCommand(c.get(), "FLUSHALL"));
}

}  // namespace

TEST_SUITE_BEGIN("greetings");

TEST_CASE("pages come from the database, then from the cache; visits are counted once each") {
  for (const std::string on : {"fibers", "threads"}) {
    CAPTURE(on);
    empty_cache();
    program server(command(on));
    const auto port = server.port();
    // More at once than there are connections to the stores.
    std::vector<client> clients;
    for (int i = 0; i != 50; ++i) clients.emplace_back(port);
    for (std::size_t i = 0; i != clients.size(); ++i)
      clients[i].send(get("/greetings/guest" + std::to_string(i % 10)));
    for (std::size_t i = 0; i != clients.size(); ++i) {
      const auto r = clients[i].response();
      CHECK(r.status == 200);
      CHECK(r.body == "Hello, Guest" + std::to_string(i % 10) + "!\n");
    }
    for (client& c : clients) c.send(get("/visits"));
    std::set<std::string> counts;
    for (client& c : clients) counts.insert(c.response().body);
    CHECK(counts.size() == clients.size());
    CHECK(counts.contains("50\n"));
  }
}

TEST_CASE("wrong requests are answered so") {
  program server(command("fibers"));
  client c(server.port());
  CHECK(c.ask(get("/elsewhere")).status == 404);
  CHECK(c.ask(get("/greetings/")).status == 400);
  CHECK(c.ask(get("/greetings/a%20b")).status == 400);
  CHECK(c.ask(get("/greetings/" + std::string(101, 'x'))).status == 400);
  CHECK(c.ask("DELETE /visits HTTP/1.1\r\nHost: test\r\n\r\n").status == 405);
  CHECK(c.ask(get("/greetings/ada")).body == "Hello, Ada!\n");
}

TEST_CASE("without its stores it says so, and goes on when they are back") {
  empty_cache();
  program server(command("fibers"));
  client c(server.port());
  CHECK(c.ask(get("/greetings/ada")).status == 200);
  stop_server("redis");
  const auto r = c.ask(get("/greetings/ada"));
  CHECK(r.status == 503);
  CHECK(r.body.find("Redis") != std::string::npos);
  start_server("redis");
  CHECK(c.ask(get("/greetings/ada")).status == 200);
}

TEST_CASE("options that make no sense") {
  const auto says = [](std::vector<std::string> words, const char* what) {
    words.insert(words.begin(), EXAMPLE_GREETINGS);
    program p(words);
    CHECK(p.wait() == 2);
    CHECK(p.output().find(what) != std::string::npos);
  };
  says({"--on", "processes"}, "--on 'processes'");
  says({"--port", "70000"}, "--port '70000'");
  says({"--connections", "0"}, "--connections 0");
  says({"--port"}, "a value is missing");
  says({"--speed", "1"}, "--speed");
}

TEST_SUITE_END();
