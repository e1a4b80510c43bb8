// SPDX-License-Identifier: Apache-2.0
//
// A server is killed while clients are in the middle of calls, and started again.
//
//     while_restarting("redis", 100,
//         [](int i, const restart& r) { connect...; r.begun(); ...until a call fails... },
//         [](int i) { ...connect and ask; whether it is back... });
//
// It is killed when all have begun; each client's second function is called until it says that the server is back.
#pragma once

#include "clients/crowd.hpp"
#include "clients/servers.hpp"

#include <tendril/fiber.hpp>

#include <atomic>

namespace tendril::test {

class restart {
 public:
  void begun() const { ++begun_; }
  bool is_over() const { return over_; }

  void make(const char* server, int clients) {
    while (begun_ != clients) this_fiber::yield();
    kill_server(server);
    start_server(server);
    over_ = true;
  }

 private:
  mutable std::atomic<int> begun_{0};
  std::atomic<bool> over_{false};
};

template <class During, class Again>
void while_restarting(const char* server, int clients, During during, Again again) {
  each_crowd([&](crowd& c) {
    restart r;
    std::atomic<int> lost{0};
    c.run(clients + 1, [&](int i) {
      if (i == clients) {
        r.make(server, clients);
        return;
      }
      during(i, r);
      ++lost;
      while (!again(i)) this_fiber::yield();  // refused at once, while nobody listens
    });
    CHECK(lost == clients);
    CHECK(r.is_over());
  });
}

}  // namespace tendril::test
