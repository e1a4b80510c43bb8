// SPDX-License-Identifier: Apache-2.0
//
// Thunks called by the callbacks of another event loop, libuv's, on a thread of its own: the loop goes on while
// the fiber waits.
#include "support/with_workers.hpp"

#include <tendril/future.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>
#include <uv.h>

#include <string>
#include <thread>

using tendril::future;
using tendril::promise;
using tendril::thunk;
using tendril::test::with_workers;

namespace {

/// Runs through its steps, one in each turn of the loop.
struct looped {
  std::string seen;
  promise<int> gate;
  future<int> later;
  int turn = 0;
  uv_loop_t loop;
  uv_idle_t idle;

  static void step(uv_idle_t* handle) {
    auto& self = *static_cast<looped*>(handle->data);
    switch (self.turn) {
      case 0:
        self.seen = std::to_string(thunk([] { return 1; })().get());
        self.later = thunk([&self] { return self.gate.get_future().get() + 1; })();
        break;
      case 1:
        self.seen += self.later.is_ready() ? " ready" : " pending";
        self.gate.set_value(2);
        break;
      default:
        if (!self.later.is_ready()) return;
        self.seen += ' ';
        self.seen += std::to_string(self.later.get());
        uv_idle_stop(handle);
        uv_close(reinterpret_cast<uv_handle_t*>(handle), nullptr);
    }
    ++self.turn;
  }

  void run() {
    uv_loop_init(&loop);
    uv_idle_init(&loop, &idle);
    idle.data = this;
    uv_idle_start(&idle, step);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
  }
};

}  // namespace

TEST_SUITE("thunk_loop") {
  TEST_CASE("a loop's callback goes on while what it called waits") {
    with_workers([](tendril::runtime&) {
      looped l;
      std::thread([&l] { l.run(); }).join();
      CHECK(l.seen == "1 pending 3");
    });
  }
}
