// SPDX-License-Identifier: Apache-2.0
//
// PostgreSQL by libpq and Redis by hiredis, in the way their manuals show: every call waits for its answer.
#pragma once

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

struct pg_conn;
struct redisContext;

namespace greetings {

/// A server that cannot be reached, or that refuses.
class store_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class database {
 public:
  /// `target`: libpq's connection string. Throws store_error.
  explicit database(const std::string& target);

  bool good() const noexcept;
  /// The greeting of somebody, of any length and content.
  std::string greeting(const std::string& name);

 private:
  struct finish {
    void operator()(pg_conn* c) const noexcept;
  };
  std::unique_ptr<pg_conn, finish> connection_;
};

class cache {
 public:
  cache(const std::string& host, int port);

  bool good() const noexcept;
  std::optional<std::string> find(const std::string& key);
  void keep(const std::string& key, const std::string& value, int seconds);
  /// The number of calls of this with that key.
  long long count(const std::string& key);

 private:
  struct release {
    void operator()(redisContext* c) const noexcept;
  };
  std::unique_ptr<redisContext, release> context_;
};

}  // namespace greetings
