// SPDX-License-Identifier: Apache-2.0
#include "support/with_workers.hpp"

#include <tendril/barrier.hpp>
#include <tendril/latch.hpp>
#include <tendril/once.hpp>

#include <atomic>
#include <memory>
#include <stdexcept>
#include <system_error>

using tendril::test::on_everyone;
using tendril::test::on_fibers;
using tendril::test::with_workers;

namespace {

template <class Wait>
bool is_canceled(Wait wait) {
  bool canceled = false;
  tendril::fiber f([&] {
    try {
      wait();
    } catch (const std::system_error& e) {
      canceled = e.code() == std::errc::operation_canceled;
    }
  });
  f.request_stop();
  f.join();
  return canceled;
}

}  // namespace

TEST_SUITE("latch") {
  TEST_CASE("opens when all have arrived") {
    with_workers([](tendril::runtime&) {
      tendril::latch gate(81);
      std::atomic<int> arrived = 0;
      std::atomic<int> early = 0;
      CHECK_FALSE(gate.try_wait());
      on_everyone(80, 1, [&](int) {
        ++arrived;
        gate.arrive_and_wait();
        early += arrived != 81;
      });
      CHECK(early == 0);
      CHECK(gate.try_wait());
      gate.wait();
      gate.count_down(0);
    });
  }
  TEST_CASE("a latch of zero is open") {
    tendril::latch gate(0);
    CHECK(gate.try_wait());
  }
  TEST_CASE("a stop request ends the wait") {
    with_workers([](tendril::runtime&) {
      tendril::latch gate(1);
      CHECK(is_canceled([&] { gate.wait(); }));
      gate.count_down();
      gate.wait();
    });
  }
  TEST_CASE("who has waited may destroy it") {
    with_workers([](tendril::runtime&) {
      for (int round = 0; round != 200; ++round) {
        auto gate = std::make_unique<tendril::latch>(2);
        tendril::fiber a([raw = gate.get()] { raw->count_down(); });
        tendril::fiber b([raw = gate.get()] { raw->count_down(); });
        gate->wait();
        gate.reset();
        a.join();
        b.join();
      }
    });
  }
}

TEST_SUITE("barrier") {
  TEST_CASE("each phase completes once, before anybody passes") {
    with_workers([](tendril::runtime&) {
      constexpr int everyone = 41;
      int phases = 0;
      std::atomic<int> wrong = 0;
      auto completion = [&phases]() noexcept { ++phases; };
      tendril::barrier<decltype(completion)> sync(everyone, completion);
      on_everyone(40, 1, [&](int) {
        for (int n = 1; n != 51; ++n) {
          sync.arrive_and_wait();
          wrong += phases != n;
          sync.arrive_and_wait();
          ++n;
          wrong += phases != n;
        }
      });
      CHECK(wrong == 0);
      CHECK(phases == 50);
    });
  }
  TEST_CASE("arrive_and_drop leaves the later phases to the others") {
    with_workers([](tendril::runtime&) {
      tendril::barrier<> sync(8);
      std::atomic<int> passes = 0;
      on_fibers(8, [&](int i) {
        for (int n = 0; n != 8; ++n) {
          if (n == i) {
            sync.arrive_and_drop();
            return;
          }
          sync.arrive_and_wait();
          ++passes;
        }
      });
      CHECK(passes == 0 + 1 + 2 + 3 + 4 + 5 + 6 + 7);
    });
  }
  TEST_CASE("arrive splits from wait; a stop request ends the wait, the arrival stands") {
    with_workers([](tendril::runtime&) {
      tendril::barrier<> sync(2);
      CHECK(is_canceled([&] { sync.arrive_and_wait(); }));
      auto token = sync.arrive();
      sync.wait(std::move(token));
    });
  }
}

TEST_SUITE("once") {
  TEST_CASE("runs once, and everybody sees it done") {
    with_workers([](tendril::runtime&) {
      tendril::once_flag flag;
      int runs = 0;
      std::atomic<int> wrong = 0;
      on_everyone(40, 2, [&](int) {
        tendril::call_once(
            flag,
            [&](int by) {
              tendril::this_fiber::yield();
              runs += by;
            },
            1);
        wrong += runs != 1;
      });
      CHECK(runs == 1);
      CHECK(wrong == 0);
    });
  }
  TEST_CASE("after an exception the next caller tries") {
    with_workers([](tendril::runtime&) {
      tendril::once_flag flag;
      std::atomic<int> attempts = 0;
      std::atomic<int> thrown = 0;
      on_everyone(20, 1, [&](int) {
        try {
          tendril::call_once(flag, [&] {
            tendril::this_fiber::yield();
            if (++attempts < 5) throw std::runtime_error("not yet");
          });
        } catch (const std::runtime_error&) {
          ++thrown;
        }
      });
      CHECK(attempts == 5);
      CHECK(thrown == 4);
    });
  }
}
