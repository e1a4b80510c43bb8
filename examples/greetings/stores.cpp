// SPDX-License-Identifier: Apache-2.0
#include "stores.hpp"

#include <hiredis/hiredis.h>
#include <libpq-fe.h>

namespace greetings {
namespace {

struct clear {
  void operator()(PGresult* r) const { PQclear(r); }
};
struct free_reply {
  void operator()(redisReply* r) const { freeReplyObject(r); }
};
using reply = std::unique_ptr<redisReply, free_reply>;

reply checked(redisContext* c, void* raw) {
  reply r(static_cast<redisReply*>(raw));
  if (r == nullptr) throw store_error(std::string("Redis: ") + c->errstr);
  if (r->type == REDIS_REPLY_ERROR) throw store_error(std::string("Redis: ") + r->str);
  return r;
}

}  // namespace

void database::finish::operator()(pg_conn* c) const noexcept { PQfinish(c); }

database::database(const std::string& target) : connection_(PQconnectdb(target.c_str())) {
  if (!good()) throw store_error(std::string("PostgreSQL: ") + PQerrorMessage(connection_.get()));
}

bool database::good() const noexcept { return PQstatus(connection_.get()) == CONNECTION_OK; }

std::string database::greeting(const std::string& name) {
  const char* const parameters[] = {name.c_str()};
  const std::unique_ptr<PGresult, clear> r(
      PQexecParams(connection_.get(), "select 'Hello, ' || initcap($1::text) || '!'", 1, nullptr,
                   parameters, nullptr, nullptr, 0));
  if (PQresultStatus(r.get()) != PGRES_TUPLES_OK)
    throw store_error(std::string("PostgreSQL: ") + PQerrorMessage(connection_.get()));
  return PQgetvalue(r.get(), 0, 0);
}

void cache::release::operator()(redisContext* c) const noexcept { redisFree(c); }

cache::cache(const std::string& host, int port) : context_(redisConnect(host.c_str(), port)) {
  if (context_ == nullptr) throw store_error("Redis: no memory");
  if (!good()) throw store_error(std::string("Redis: ") + context_->errstr);
}

bool cache::good() const noexcept { return context_->err == 0; }

std::optional<std::string> cache::find(const std::string& key) {
  const reply r =
      checked(context_.get(), redisCommand(context_.get(), "GET %b", key.data(), key.size()));
  if (r->type == REDIS_REPLY_NIL) return std::nullopt;
  return std::string(r->str, r->len);
}

void cache::keep(const std::string& key, const std::string& value, int seconds) {
  checked(context_.get(), redisCommand(context_.get(), "SET %b %b EX %d", key.data(), key.size(),
                                       value.data(), value.size(), seconds));
}

long long cache::count(const std::string& key) {
  return checked(context_.get(), redisCommand(context_.get(), "INCR %b", key.data(), key.size()))
      ->integer;
}

}  // namespace greetings
