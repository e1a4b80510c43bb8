// SPDX-License-Identifier: Apache-2.0
//
// Nobody who is runnable waits for ever: whatever the others do. Each case ends because the fiber in
// question has run; one that fails hangs, and the watchdog says so.
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/detail/waiting.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace {

using tendril::fiber;
using tendril::runtime;
using tendril::test::run_on_own_stack;
using tendril::test::watchdog;
namespace detail = tendril::detail;
namespace this_fiber = tendril::this_fiber;

/// Two fibers that wake each other and park, until told to end.
struct ping_pong {
  std::atomic<detail::waiter*> sides[2] = {nullptr, nullptr};
  std::atomic<int> turn{0};
  std::atomic<bool> closing{false};

  void play(int me) {
    sides[me] = detail::current_waiter();
    while (sides[1 - me] == nullptr) this_fiber::yield();
    struct question {
      ping_pong* game;
      int me;
    } const q{this, me};
    while (!closing) {
      detail::wait_until_done(
          [](const void* a) noexcept {
            const auto& asked = *static_cast<const question*>(a);
            return asked.game->turn == asked.me || asked.game->closing;
          },
          &q, {});
      turn = 1 - me;
      detail::unpark(sides[1 - me]);
    }
    detail::unpark(sides[1 - me]);
  }
};

}  // namespace

TEST_SUITE("fairness") {
  TEST_CASE("two fibers that wake each other do not starve a third, queued or unstarted") {
    runtime rt({.workers = 1});
    const watchdog dog("ping-pong against a third", &rt);
    int yields = 0;
    run_on_own_stack(rt, [&] {
      ping_pong game;
      fiber a([&] { game.play(0); });
      fiber b([&] { game.play(1); });
      while (game.sides[0] == nullptr || game.sides[1] == nullptr) this_fiber::yield();
      for (; yields != 100; ++yields) this_fiber::yield();
      fiber late([&] { game.closing = true; });
      late.join();
      a.join();
      b.join();
    });
    CHECK(yields == 100);
  }

  TEST_CASE("yield lets every other runnable fiber run before its caller again") {
    runtime rt({.workers = 1});
    std::vector<int> order;
    run_on_own_stack(rt, [&] {
      std::vector<fiber> all;
      int started = 0;
      for (int i = 0; i != 3; ++i)
        all.emplace_back([&, i] {
          ++started;
          while (started != 3) this_fiber::yield();
          for (int round = 0; round != 5; ++round) {
            order.push_back(i);
            this_fiber::yield();
          }
        });
      for (fiber& f : all) f.join();
    });
    REQUIRE(order.size() == 15);
    for (std::size_t i = 3; i != order.size(); ++i) CHECK(order[i] == order[i - 3]);
  }

  TEST_CASE("the oldest unstarted fiber runs although newer ones keep coming") {
    runtime rt({.workers = 1});
    const watchdog dog("the oldest unstarted fiber", &rt);
    bool ran = false;
    run_on_own_stack(rt, [&] {
      std::atomic<bool> done{false};
      tendril::spawn([&] { done = ran = true; });
      for (int i = 0; i != 10'000 && !done; ++i) {
        tendril::spawn([] {});
        this_fiber::yield();
      }
      ran = done;
    });
    CHECK(ran);
  }

  TEST_CASE("a pinned fiber runs although others keep yielding and new ones keep coming") {
    runtime rt({.workers = 2});
    const watchdog dog("a pinned fiber", &rt);
    run_on_own_stack(rt, [&] {
      std::atomic<int> ran{0};
      std::atomic<bool> closing{false};
      std::vector<fiber> noise;
      for (int i = 0; i != 6; ++i)
        noise.emplace_back([&] {
          while (!closing) {
            tendril::spawn([] {});
            this_fiber::yield();
          }
        });
      fiber a({.affinity = 0}, [&] { ++ran; });
      fiber b({.affinity = 1}, [&] { ++ran; });
      while (ran != 2) this_fiber::yield();
      closing = true;
      for (fiber& f : noise) f.join();
      a.join();
      b.join();
    });
    rt.drain();
    CHECK(rt.stats().fibers_alive() == 0);
  }

  TEST_CASE("what threads inject runs although the worker is never idle") {
    runtime rt({.workers = 1});
    const watchdog dog("injection", &rt);
    std::atomic<bool> done{false};
    for (int i = 0; i != 3; ++i)
      rt.spawn([&] {
        while (!done) this_fiber::yield();
      });
    rt.spawn([&] { done = true; });
    rt.drain();
    CHECK(done);
  }

  TEST_CASE("a timer fires although the worker is never idle") {
    runtime rt({.workers = 1});
    const watchdog dog("a timer", &rt);
    std::atomic<bool> done{false};
    for (int i = 0; i != 3; ++i)
      rt.spawn([&] {
        while (!done) this_fiber::yield();
      });
    rt.run([&] {
      this_fiber::sleep_for(std::chrono::milliseconds(1));
      done = true;
    });
    rt.drain();
    CHECK(done);
  }

  TEST_CASE(
      "what is queued behind a fiber that never yields runs elsewhere: started, woken last, "
      "unstarted") {
    runtime rt({.workers = 2});
    const watchdog dog("behind a hog", &rt);
    std::atomic<int> ran{0};
    run_on_own_stack(rt, [&] {
      std::atomic<detail::waiter*> parked{nullptr};
      std::atomic<bool> wake{false};
      fiber woken([&] {
        parked = detail::current_waiter();
        detail::wait_until_done(
            [](const void* a) noexcept { return static_cast<const std::atomic<bool>*>(a)->load(); },
            &wake, {});
        ++ran;
      });
      while (parked == nullptr) this_fiber::yield();
      fiber hog([&] {
        fiber unstarted([&] { ++ran; });
        wake = true;
        detail::unpark(parked);  // into this worker's LIFO slot, if it was parked
        while (ran != 2) std::this_thread::yield();  // blocks the worker; not a fiber's yield
        unstarted.join();
      });
      hog.join();
      woken.join();
    });
    CHECK(ran == 2);
  }
}
