// SPDX-License-Identifier: Apache-2.0
//
// I1's program for Redis: plain hiredis, as its manual shows it. Linked with no other client library.
#include "bench/scenario/i1_client_load.hpp"

#include <hiredis/hiredis.h>
#include <unistd.h>

namespace bench {
namespace {

class redis_client {
 public:
  explicit redis_client(int i)
      : context_(redisConnect("127.0.0.1", port_of("TENDRIL_REDIS_PORT"))),
        key_(std::to_string(getpid()) + ':' + std::to_string(i)) {  // both variants run
    if (context_ == nullptr || context_->err != 0)
      client_failed(context_ != nullptr ? context_->errstr : "no memory");
  }
  ~redis_client() { redisFree(context_); }
  redis_client(const redis_client&) = delete;
  redis_client& operator=(const redis_client&) = delete;

  void ask() {
    if ((++asked_ & 1) != 0) {
      expect(redisCommand(context_, "SET %s %d", key_.c_str(), asked_), REDIS_REPLY_STATUS, "OK");
    } else {
      expect(redisCommand(context_, "GET %s", key_.c_str()), REDIS_REPLY_STRING,
             std::to_string(asked_ - 1));
    }
  }

 private:
  void expect(void* raw, int type, const std::string& text) {
    auto* const r = static_cast<redisReply*>(raw);
    if (r == nullptr) client_failed(context_->errstr);
    const bool good = r->type == type && text == r->str;
    freeReplyObject(r);
    if (!good) client_failed("a wrong reply of Redis");
  }
  redisContext* context_;
  std::string key_;
  int asked_ = 0;
};

const role_registration load_role("load-clients", load_clients<redis_client>);

}  // namespace
}  // namespace bench
