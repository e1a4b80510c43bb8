// SPDX-License-Identifier: Apache-2.0
//
// SQLite: file locks between connections, and the library's busy handler, which sleeps.
#include <sqlite3.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "clients/crowd.hpp"

using namespace tendril::test;

namespace {

class database {
 public:
  explicit database(const std::string& path) {
    require(sqlite3_open(path.c_str(), &db_) == SQLITE_OK, "sqlite3_open");
    sqlite3_busy_timeout(db_, 60'000);
  }
  ~database() { sqlite3_close(db_); }
  database(const database&) = delete;
  database& operator=(const database&) = delete;

  /// The first column of the last row.
  std::string execute(const std::string& sql) {
    std::string last;
    char* error = nullptr;
    const int code = sqlite3_exec(
        db_, sql.c_str(),
        [](void* to, int, char** values, char**) {
          *static_cast<std::string*>(to) = values[0] != nullptr ? values[0] : "";
          return 0;
        },
        &last, &error);
    const std::string text = error != nullptr ? error : "";
    sqlite3_free(error);
    require(code == SQLITE_OK, sql + ": " + text);
    return last;
  }

 private:
  sqlite3* db_ = nullptr;
};

}  // namespace

TEST_SUITE_BEGIN("sqlite");

TEST_CASE("connections that lock each other out") {
  each_crowd([](crowd& c) {
    char name[] = "/tmp/tendril-sqlite-XXXXXX";
    require(::mkdtemp(name) != nullptr, "mkdtemp");
    const std::string path = std::string(name) + "/db";
    {
      database db(path);
      db.execute("pragma synchronous = off; create table t (n integer); insert into t values (0)");
    }
    constexpr int clients = 20;
    constexpr int rounds = 10;
    c.run(clients, [&](int) {
      database db(path);
      db.execute("pragma synchronous = off");
      for (int k = 0; k != rounds; ++k)
        db.execute("begin immediate; update t set n = n + 1; commit");
    });
    CHECK(database(path).execute("select n from t") == std::to_string(clients * rounds));
    std::filesystem::remove_all(name);
  });
}

TEST_SUITE_END();
