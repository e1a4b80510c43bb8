// SPDX-License-Identifier: Apache-2.0
//
// libmemcached, as it comes.
#include <libmemcached/memcached.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "clients/crowd.hpp"
#include "clients/servers.hpp"

using namespace tendril::test;

namespace {

struct free_client {
  void operator()(memcached_st* m) const { memcached_free(m); }
};
using client = std::unique_ptr<memcached_st, free_client>;

client connect() {
  client m(memcached_create(nullptr));
  require(m != nullptr, "memcached_create");
  require(memcached_success(memcached_server_add(m.get(), "127.0.0.1",
                                                 static_cast<in_port_t>(server_port("MEMCACHED")))),
          "memcached_server_add");
  return m;
}

}  // namespace

TEST_SUITE_BEGIN("libmemcached");

TEST_CASE("each fiber gets its own values") {
  each_crowd([](crowd& c) {
    c.run(thousand, [](int i) {
      const client m = connect();
      for (int k = 0; k != 10; ++k) {
        const std::string key = "key:" + std::to_string(i);
        const std::string value(static_cast<std::size_t>(100 + k * 1000),
                                static_cast<char>('a' + k));
        memcached_return_t code =
            memcached_set(m.get(), key.data(), key.size(), value.data(), value.size(), 0, 0);
        require(code == MEMCACHED_SUCCESS, memcached_strerror(m.get(), code));
        std::size_t length = 0;
        std::uint32_t flags = 0;
        const std::unique_ptr<char, void (*)(void*)> got(
            memcached_get(m.get(), key.data(), key.size(), &length, &flags, &code), std::free);
        require(code == MEMCACHED_SUCCESS, memcached_strerror(m.get(), code));
        require(std::string(got.get(), length) == value, "the value of another");
      }
    });
  });
}

TEST_CASE("many keys in one request") {
  each_crowd([](crowd& c) {
    c.run(100, [](int i) {
      const client m = connect();
      memcached_behavior_set(m.get(), MEMCACHED_BEHAVIOR_BINARY_PROTOCOL, 1);
      std::string keys[50];
      const char* pointers[50];
      std::size_t lengths[50];
      for (int k = 0; k != 50; ++k) {
        keys[k] = "many:" + std::to_string(i) + ":" + std::to_string(k);
        pointers[k] = keys[k].data();
        lengths[k] = keys[k].size();
        const memcached_return_t code = memcached_set(m.get(), keys[k].data(), keys[k].size(),
                                                      keys[k].data(), keys[k].size(), 0, 0);
        require(code == MEMCACHED_SUCCESS, memcached_strerror(m.get(), code));
      }
      require(memcached_mget(m.get(), pointers, lengths, 50) == MEMCACHED_SUCCESS,
              "memcached_mget");
      int seen = 0;
      memcached_return_t code = MEMCACHED_SUCCESS;
      while (memcached_result_st* r = memcached_fetch_result(m.get(), nullptr, &code)) {
        require(std::string(memcached_result_key_value(r), memcached_result_key_length(r)) ==
                    std::string(memcached_result_value(r), memcached_result_length(r)),
                "a value at another's key");
        memcached_result_free(r);
        ++seen;
      }
      require(seen == 50, std::to_string(seen) + " of 50");
    });
  });
}

TEST_SUITE_END();
