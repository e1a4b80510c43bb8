// SPDX-License-Identifier: Apache-2.0
//
// libpq, as it comes.
#include <libpq-fe.h>

#include <atomic>
#include <memory>
#include <string>

#include <tendril/fiber.hpp>

#include "clients/crowd.hpp"
#include "clients/restart.hpp"
#include "clients/servers.hpp"

using namespace tendril::test;

namespace {

/// Each is a process of the server.
constexpr int many = thousand;

struct finish {
  void operator()(PGconn* c) const { PQfinish(c); }
};
struct clear {
  void operator()(PGresult* r) const { PQclear(r); }
};
using connection = std::unique_ptr<PGconn, finish>;
using result = std::unique_ptr<PGresult, clear>;

std::string target() {
  return "host=127.0.0.1 port=" + std::to_string(server_port("POSTGRES")) +
         " user=tendril dbname=postgres sslmode=disable gssencmode=disable";
}

connection connect() {
  connection c(PQconnectdb(target().c_str()));
  require(PQstatus(c.get()) == CONNECTION_OK, PQerrorMessage(c.get()));
  return c;
}

result query(PGconn* c, const std::string& sql) {
  result r(PQexec(c, sql.c_str()));
  const ExecStatusType status = PQresultStatus(r.get());
  require(status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK, sql + ": " + PQerrorMessage(c));
  return r;
}

std::string value(const result& r) { return PQgetvalue(r.get(), 0, 0); }

}  // namespace

TEST_SUITE_BEGIN("libpq");

TEST_CASE("each fiber gets the rows of its own queries") {
  each_crowd([](crowd& c) {
    c.run(100, [](int i) {
      const connection pg = connect();
      for (int k = 0; k != 20; ++k) {
        const std::string mine = std::to_string(i * 1000 + k);
        require(value(query(pg.get(), "select " + mine + "::text")) == mine, "select");
        const char* const parameters[] = {mine.c_str()};
        const result r(PQexecParams(pg.get(), "select $1::int + 1", 1, nullptr, parameters, nullptr,
                                    nullptr, 0));
        require(value(r) == std::to_string(i * 1000 + k + 1), PQerrorMessage(pg.get()));
      }
    });
  });
}

TEST_CASE("a thousand wait at once") {
  each_crowd([](crowd& c) {
    std::atomic<int> served{0};
    const connection outside = connect();  // on the test's thread, which is no fiber
    query(outside.get(), "select pg_advisory_lock(1)");
    c.run(many + 1, [&](int i) {
      if (i == many) {
        const connection pg = connect();
        const std::string all = std::to_string(many);
        while (value(query(pg.get(),
                           "select count(*) from pg_locks where locktype = 'advisory' "
                           "and not granted")) != all) {
        }
        // Another fiber uses the connection of a thread.
        query(outside.get(), "select pg_advisory_unlock(1)");
        return;
      }
      const connection pg = connect();
      query(pg.get(), "select pg_advisory_lock_shared(1)");
      query(pg.get(), "select pg_advisory_unlock_shared(1)");
      ++served;
    });
    CHECK(served == many);
  });
}

TEST_CASE("a second each, all at once") {
  each_crowd([](crowd& c) {
    meeting waiting;
    c.run(many, [&](int) {
      const connection pg = connect();
      const meeting::visit here(waiting);
      query(pg.get(), "select pg_sleep(1)");
    });
    MESSAGE("at most at once: ", waiting.most());
  });
}

TEST_CASE("copying in and out") {
  each_crowd([](crowd& c) {
    c.run(20, [](int i) {
      constexpr int rows = 20'000;
      const connection pg = connect();
      query(pg.get(), "create temporary table t (n int, s text)");
      result r(PQexec(pg.get(), "copy t from stdin"));
      require(PQresultStatus(r.get()) == PGRES_COPY_IN, PQerrorMessage(pg.get()));
      for (int k = 0; k != rows; ++k) {
        const std::string row = std::to_string(k) + "\tfiber " + std::to_string(i) + " row\n";
        require(PQputCopyData(pg.get(), row.data(), static_cast<int>(row.size())) == 1, "put");
      }
      require(PQputCopyEnd(pg.get(), nullptr) == 1, "end");
      r.reset(PQgetResult(pg.get()));
      require(PQresultStatus(r.get()) == PGRES_COMMAND_OK, PQerrorMessage(pg.get()));
      r.reset(PQgetResult(pg.get()));
      require(r == nullptr, "more results");
      r.reset(PQexec(pg.get(), "copy t to stdout"));
      require(PQresultStatus(r.get()) == PGRES_COPY_OUT, PQerrorMessage(pg.get()));
      int seen = 0;
      for (char* row = nullptr; PQgetCopyData(pg.get(), &row, 0) > 0; PQfreemem(row)) ++seen;
      require(seen == rows, std::to_string(seen) + " rows");
      r.reset(PQgetResult(pg.get()));
    });
  });
}

TEST_CASE("notifications") {
  each_crowd([](crowd& c) {
    std::atomic<int> listening{0};
    c.run(51, [&](int i) {
      const connection pg = connect();
      if (i == 50) {
        while (listening != 50) tendril::this_fiber::yield();
        query(pg.get(), "notify news, 'hello'");
        return;
      }
      query(pg.get(), "listen news");
      ++listening;
      PGnotify* n = nullptr;
      while ((n = PQnotifies(pg.get())) == nullptr) {
        fd_set ready;
        FD_ZERO(&ready);
        FD_SET(PQsocket(pg.get()), &ready);
        require(select(PQsocket(pg.get()) + 1, &ready, nullptr, nullptr, nullptr) == 1, "select");
        require(PQconsumeInput(pg.get()) == 1, PQerrorMessage(pg.get()));
      }
      const std::string said = n->extra;
      PQfreemem(n);
      require(said == "hello", said);
    });
  });
}

TEST_CASE("the server is killed and comes back") {
  while_restarting(
      "postgres", 50,
      [](int i, const restart& r) {
        const connection pg = connect();
        r.begun();
        for (;;) {
          const result asked(PQexec(pg.get(), i % 2 == 0 ? "select 1" : "select pg_sleep(3600)"));
          if (PQresultStatus(asked.get()) != PGRES_TUPLES_OK) break;
        }
        require(PQstatus(pg.get()) == CONNECTION_BAD, "a good connection to a dead server");
      },
      [](int) {
        const connection pg(PQconnectdb(target().c_str()));
        if (PQstatus(pg.get()) != CONNECTION_OK) return false;
        require(value(query(pg.get(), "select 41 + 1")) == "42", "select");
        return true;
      });
}

TEST_SUITE_END();
