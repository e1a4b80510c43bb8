// SPDX-License-Identifier: Apache-2.0
//
// hiredis, as it comes: blocking contexts, one for each fiber, or few for all.
#include <hiredis/hiredis.h>
#include <sys/time.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <string>

#include "clients/crowd.hpp"
#include "clients/restart.hpp"
#include "clients/servers.hpp"

using namespace tendril::test;

namespace {

struct close_context {
  void operator()(redisContext* c) const { redisFree(c); }
};
struct free_reply {
  void operator()(redisReply* r) const { freeReplyObject(r); }
};
using context = std::unique_ptr<redisContext, close_context>;
using reply = std::unique_ptr<redisReply, free_reply>;

context try_connect() {
  context c(redisConnect("127.0.0.1", server_port("REDIS")));
  return c != nullptr && c->err == 0 ? std::move(c) : nullptr;
}

context connect() {
  context c(redisConnect("127.0.0.1", server_port("REDIS")));
  require(c != nullptr, "no memory");
  require(c->err == 0, std::string("connecting: ") + c->errstr);
  return c;
}

template <class... Args>
reply try_command(redisContext* c, const char* format, Args... args) {
  return reply(static_cast<redisReply*>(redisCommand(c, format, args...)));
}

template <class... Args>
reply command(redisContext* c, const char* format, Args... args) {
  reply r = try_command(c, format, args...);
  require(r != nullptr, std::string(format) + ": " + c->errstr);
  if (r->type == REDIS_REPLY_ERROR) throw std::runtime_error(std::string(format) + ": " + r->str);
  return r;
}

/// The number after `name:` in INFO clients.
int client_count(redisContext* c, const char* name) {
  const reply r = command(c, "INFO clients");
  const char* const at = std::strstr(r->str, name);
  require(at != nullptr, std::string("INFO without ") + name);
  return std::atoi(at + std::strlen(name) + 1);
}

}  // namespace

TEST_SUITE_BEGIN("hiredis");

TEST_CASE("each fiber gets the replies to its own commands") {
  each_crowd([](crowd& c) {
    c.run(thousand, [](int i) {
      const context redis = connect();
      for (int k = 0; k != 10; ++k) {
        const std::string value = std::to_string(i) + "/" + std::to_string(k);
        command(redis.get(), "SET key:%d %s", i, value.c_str());
        const reply r = command(redis.get(), "GET key:%d", i);
        require(r->type == REDIS_REPLY_STRING && r->str == value, "GET");
      }
      for (int k = 0; k != 50; ++k) redisAppendCommand(redis.get(), "INCR counter:%d", i);
      for (int k = 1; k <= 50; ++k) {
        void* raw = nullptr;
        require(redisGetReply(redis.get(), &raw) == REDIS_OK, "redisGetReply");
        const reply r(static_cast<redisReply*>(raw));
        require(r->type == REDIS_REPLY_INTEGER && r->integer == k, "INCR");
      }
      command(redis.get(), "DEL counter:%d", i);
    });
  });
}

TEST_CASE("a value larger than what the socket takes") {
  each_crowd([](crowd& c) {
    const std::string large(std::size_t{4} << 20, 'x');
    c.run(8, [&](int i) {
      const context redis = connect();
      command(redis.get(), "SET large:%d %b", i, large.data(), large.size());
      const reply r = command(redis.get(), "GET large:%d", i);
      require(r->len == large.size() && large.compare(0, large.size(), r->str, r->len) == 0, "GET");
      command(redis.get(), "DEL large:%d", i);
    });
  });
}

TEST_CASE("a thousand wait at once") {
  each_crowd([](crowd& c) {
    std::atomic<int> got{0};
    c.run(thousand + 1, [&](int i) {
      const context redis = connect();
      if (i == thousand) {
        while (client_count(redis.get(), "blocked_clients") != thousand) {
        }
        for (int k = 0; k != thousand; ++k) command(redis.get(), "RPUSH queue %d", k);
        return;
      }
      const reply r = command(redis.get(), "BLPOP queue 0");
      require(r->type == REDIS_REPLY_ARRAY && r->elements == 2, "BLPOP");
      ++got;
    });
    CHECK(got == thousand);
  });
}

TEST_CASE("a second each, all at once") {
  each_crowd([](crowd& c) {
    meeting waiting;
    c.run(thousand, [&](int i) {
      const context redis = connect();
      const meeting::visit here(waiting);
      const reply r = command(redis.get(), "BLPOP nothing:%d 1", i);
      require(r->type == REDIS_REPLY_NIL, "BLPOP at its end");
    });
    CHECK(waiting.most() > thousand / 2);
  });
}

TEST_CASE("timeouts are the library's own") {
  each_crowd([](crowd& c) {
    c.run(100, [](int i) {
      const context redis = connect();
      require(redisSetTimeout(redis.get(), {0, 50'000}) == REDIS_OK, "redisSetTimeout");
      const reply r = try_command(redis.get(), "BLPOP never:%d 0", i);
      require(r == nullptr && redis->err == REDIS_ERR_IO && errno == EAGAIN,
              std::string("no timeout: ") + redis->errstr);
    });
  });
}

TEST_CASE("publishing to a thousand subscribers") {
  each_crowd([](crowd& c) {
    c.run(thousand + 1, [](int i) {
      const context redis = connect();
      if (i == thousand) {
        while (command(redis.get(), "PUBSUB NUMSUB news")->element[1]->integer != thousand) {
        }
        require(command(redis.get(), "PUBLISH news ready")->integer == thousand, "PUBLISH");
        return;
      }
      command(redis.get(), "SUBSCRIBE news");
      void* raw = nullptr;
      require(redisGetReply(redis.get(), &raw) == REDIS_OK, "redisGetReply");
      const reply r(static_cast<redisReply*>(raw));
      require(r->elements == 3 && std::strcmp(r->element[0]->str, "message") == 0, "message");
    });
  });
}

TEST_CASE("the server is killed and comes back") {
  while_restarting(
      "redis", 100,
      [](int i, const restart& r) {
        const context redis = connect();
        r.begun();
        // One half is asking when it happens, the other waits for what never comes.
        while (try_command(redis.get(), i % 2 == 0 ? "PING" : "BLPOP never 0") != nullptr) {
        }
        require(redis->err == REDIS_ERR_EOF || redis->err == REDIS_ERR_IO, redis->errstr);
      },
      [](int i) {
        // Refused while nobody listens, and reset if the connection was still the killed server's.
        const context redis = try_connect();
        const reply said = redis != nullptr ? try_command(redis.get(), "ECHO %d", i) : nullptr;
        if (said == nullptr) return false;
        require(said->str == std::to_string(i), "ECHO");
        return true;
      });
}

TEST_SUITE_END();
