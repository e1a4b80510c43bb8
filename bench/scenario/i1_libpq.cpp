// SPDX-License-Identifier: Apache-2.0
//
// I1's program for PostgreSQL: plain libpq, as its manual shows it. Linked with no other client library.
#include "bench/scenario/i1_client_load.hpp"

#include <libpq-fe.h>

namespace bench {
namespace {

class postgres_client {
 public:
  explicit postgres_client(int)
      : connection_(PQconnectdb(("host=127.0.0.1 user=tendril dbname=postgres sslmode=disable "
                                 "gssencmode=disable port=" +
                                 std::to_string(port_of("TENDRIL_POSTGRES_PORT")))
                                    .c_str())) {
    if (PQstatus(connection_) != CONNECTION_OK) client_failed(PQerrorMessage(connection_));
    PGresult* const r = PQprepare(connection_, "add", "select $1::int + 1", 1, nullptr);
    const bool good = PQresultStatus(r) == PGRES_COMMAND_OK;
    PQclear(r);
    if (!good) client_failed(PQerrorMessage(connection_));
  }
  ~postgres_client() { PQfinish(connection_); }
  postgres_client(const postgres_client&) = delete;
  postgres_client& operator=(const postgres_client&) = delete;

  void ask() {
    const std::string n = std::to_string(++asked_);
    const char* const parameter = n.c_str();
    PGresult* const r = PQexecPrepared(connection_, "add", 1, &parameter, nullptr, nullptr, 0);
    const bool good =
        PQresultStatus(r) == PGRES_TUPLES_OK && PQgetvalue(r, 0, 0) == std::to_string(asked_ + 1);
    PQclear(r);
    if (!good)
      client_failed(std::string("a wrong answer of PostgreSQL ") + PQerrorMessage(connection_));
  }

 private:
  PGconn* connection_;
  int asked_ = 0;
};

const role_registration load_role("load-clients", load_clients<postgres_client>);

}  // namespace
}  // namespace bench
