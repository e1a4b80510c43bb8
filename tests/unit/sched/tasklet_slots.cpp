// SPDX-License-Identifier: Apache-2.0
//
// How many slots there are, and who shares one with whom.
#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

using namespace tendril;

namespace {

runtime_options with(std::size_t at_first, std::size_t most) {
  runtime_options o;
  o.workers = 1;
  o.stack.kind = stack_kind::reserved;  // of who looks on
  o.tasklets.slots_at_first = at_first;
  o.tasklets.slots = most;
  o.seed = 7;
  return o;
}

/// A tasklet that waits until it is wanted, again and again.
class client {
 public:
  client()
      : state_(std::make_unique<state>()), fiber_({.stack = {stack_kind::tasklet}}, [&s = *state_] {
          for (;;) {
            ++s.waits;
            s.wake.acquire();
            if (s.last) return;
          }
        }) {
    wait_for(1);
  }
  ~client() {
    if (!fiber_.joinable()) return;
    state_->last = true;
    state_->wake.release();
    fiber_.join();
  }
  client(client&&) = default;
  client& operator=(client&&) = delete;

  void come_back() {
    const int next = state_->waits + 1;
    state_->wake.release();
    wait_for(next);
  }

 private:
  struct state {
    counting_semaphore<> wake{0};
    int waits = 0;  // one worker: no two at once
    bool last = false;
  };

  void wait_for(int n) const {
    while (state_->waits != n) this_fiber::yield();
    this_fiber::yield();
  }

  std::unique_ptr<state> state_;
  fiber fiber_;
};

tasklet_stats now() { return runtime::current()->stats().tasklets; }

std::string refusal_of(const runtime_options& o) {
  try {
    runtime rt(o);
  } catch (const std::system_error& e) {
    return e.code() == errc::invalid_option ? e.what() : "another error";
  }
  return "";
}

}  // namespace

TEST_SUITE("tasklet_slots") {
  TEST_CASE("as many slots as tasklets at first, and no more for a crowd that never came back") {
    tasklet_stats few;
    tasklet_stats many;
    run(with(8, 64), [&] {
      std::vector<client> clients;
      for (int i = 0; i != 5; ++i) clients.emplace_back();
      few = now();
      for (int i = 0; i != 100; ++i) clients.emplace_back();
      many = now();
    });
    CHECK(few.slots == 5);
    CHECK(few.captures == 0);
    CHECK(many.slots == 8);
    CHECK(many.captures == 97);
  }

  TEST_CASE("slots grow with tasklets that are in use, up to the bound, and are used again") {
    constexpr std::size_t most = 24;
    tasklet_stats grown;
    tasklet_stats beyond;
    tasklet_stats turns;
    tasklet_stats later;
    run(with(4, most), [&] {
      {
        std::vector<client> clients;
        // As many as it takes: a busy machine makes some of them look idle at times.
        while (now().slots != most && clients.size() != 500) {
          for (client& c : clients) c.come_back();
          clients.emplace_back();
          clients.back().come_back();
        }
        grown = now();
        for (int i = 0; i != 30; ++i) {
          clients.emplace_back();
          for (client& c : clients) c.come_back();
        }
        beyond = now();
      }
      std::vector<client> clients;
      for (std::size_t i = 0; i != most; ++i) clients.emplace_back();
      turns = now();
      for (int i = 0; i != 10; ++i)
        for (client& c : clients) c.come_back();
      later = now();
    });
    CHECK(grown.slots == most);
    CHECK(beyond.slots == most);
    CHECK(later.slots == most);
    CHECK(later.restores == turns.restores);  // each has one for itself
  }

  TEST_CASE("a tasklet that starts shares with one that is idle, not with one that came back") {
    for (const bool first_is_idle : {true, false}) {
      CAPTURE(first_is_idle);
      tasklet_stats before;
      tasklet_stats busy_again;
      tasklet_stats idle_again;
      run(with(2, 2), [&] {
        client a;
        client b;
        client& idle = first_is_idle ? a : b;
        client& busy = first_is_idle ? b : a;
        busy.come_back();
        before = now();
        client third;
        busy.come_back();
        busy_again = now();
        idle.come_back();
        idle_again = now();
      });
      CHECK(before.captures == 0);
      CHECK(busy_again.captures == 1);
      CHECK(busy_again.restores == 0);
      CHECK(idle_again.restores == 1);
    }
  }

  TEST_CASE("numbers of slots that cannot be are refused with their values") {
    for (const std::size_t n : {std::size_t{0}, std::size_t{65'537}}) {
      runtime_options o;
      o.tasklets.slots_at_first = n;
      CHECK(refusal_of(o).find("tasklets.slots_at_first = " + std::to_string(n)) !=
            std::string::npos);
      o = {};
      o.tasklets.slots = n;
      CHECK(refusal_of(o).find("tasklets.slots = " + std::to_string(n)) != std::string::npos);
    }
    runtime_options o = with(1024, 3);  // those at first count as 3
    CHECK(refusal_of(o).empty());
  }
}
