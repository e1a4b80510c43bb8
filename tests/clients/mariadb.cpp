// SPDX-License-Identifier: Apache-2.0
//
// MariaDB's client library, as it comes.
#include <mysql.h>

#include <atomic>
#include <memory>
#include <string>

#include <tendril/fiber.hpp>

#include "clients/crowd.hpp"
#include "clients/restart.hpp"
#include "clients/servers.hpp"

using namespace tendril::test;

namespace {

struct close_connection {
  void operator()(MYSQL* c) const { mysql_close(c); }
};
struct free_result {
  void operator()(MYSQL_RES* r) const { mysql_free_result(r); }
};
using connection = std::unique_ptr<MYSQL, close_connection>;

connection try_connect() {
  connection c(mysql_init(nullptr));
  require(c != nullptr, "mysql_init");
  if (mysql_real_connect(c.get(), "127.0.0.1", "root", "", nullptr,
                         static_cast<unsigned>(server_port("MARIADB")), nullptr, 0) == nullptr)
    return nullptr;
  return c;
}

connection connect() {
  connection c(mysql_init(nullptr));
  require(mysql_real_connect(c.get(), "127.0.0.1", "root", "", nullptr,
                             static_cast<unsigned>(server_port("MARIADB")), nullptr, 0) != nullptr,
          mysql_error(c.get()));
  return c;
}

/// The first column of the first row.
std::string query(MYSQL* c, const std::string& sql) {
  require(mysql_real_query(c, sql.data(), sql.size()) == 0, sql + ": " + mysql_error(c));
  const std::unique_ptr<MYSQL_RES, free_result> r(mysql_store_result(c));
  if (r == nullptr) return {};
  const MYSQL_ROW row = mysql_fetch_row(r.get());
  return row != nullptr && row[0] != nullptr ? row[0] : "";
}

}  // namespace

TEST_SUITE_BEGIN("mariadb");

TEST_CASE("each fiber gets the rows of its own queries") {
  each_crowd([](crowd& c) {
    c.run(100, [](int i) {
      const connection db = connect();
      for (int k = 0; k != 20; ++k) {
        const std::string mine = std::to_string(i * 1000 + k);
        require(query(db.get(), "select concat(" + mine + ", '.')") == mine + '.', "select");
      }
      require(query(db.get(), "select length(repeat('x', 3000000))") == "3000000", "length");
      require(query(db.get(), "select repeat('x', 1000000)").size() == 1'000'000, "a large row");
    });
  });
}

TEST_CASE("a thousand wait at once") {
  static constexpr int many = thousand;
  each_crowd([](crowd& c) {
    std::atomic<int> served{0};
    const connection outside = connect();  // of a thread
    require(query(outside.get(), "select get_lock('gate', 0)") == "1", "get_lock");
    c.run(many + 1, [&](int i) {
      const connection db = connect();
      if (i == many) {
        while (query(db.get(),
                     "select count(*) from information_schema.processlist where "
                     "state = 'User lock'") != std::to_string(many)) {
        }
        require(query(outside.get(), "select release_lock('gate')") == "1", "release_lock");
        return;
      }
      require(query(db.get(), "select get_lock('gate', 3600)") == "1", "get_lock");
      require(query(db.get(), "select release_lock('gate')") == "1", "release_lock");
      ++served;
    });
    CHECK(served == many);
  });
}

TEST_CASE("the server is killed and comes back") {
  while_restarting(
      "mariadb", 50,
      [](int i, const restart& r) {
        const connection db = connect();
        r.begun();
        for (;;) {
          if (mysql_query(db.get(), i % 2 == 0 ? "select 1" : "select sleep(3600)") != 0) return;
          const std::unique_ptr<MYSQL_RES, free_result> result(mysql_store_result(db.get()));
          if (result == nullptr) return;
        }
      },
      [](int) {
        const connection db = try_connect();
        if (db == nullptr) return false;
        require(query(db.get(), "select 41 + 1") == "42", "select");
        return true;
      });
}

TEST_SUITE_END();
