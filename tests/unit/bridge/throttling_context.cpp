// SPDX-License-Identifier: Apache-2.0
//
// throttling_context: how many at a time.
#include "support/contexts.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/context.hpp>
#include <tendril/error.hpp>
#include <tendril/scope.hpp>
#include <tendril/semaphore.hpp>

#include <array>
#include <atomic>
#include <system_error>
#include <vector>

using namespace std::chrono_literals;
using tendril::loop_context;
using tendril::throttling_context;
using tendril::use_context;
using tendril::test::run_on_own_stack;
using tendril::test::with_workers;
using namespace tendril::test;

TEST_SUITE("throttling_context") {
  TEST_CASE("a limit of zero is refused") {
    std::error_code code;
    try {
      const throttling_context c(0);
    } catch (const std::system_error& e) {
      code = e.code();
    }
    CHECK(code == tendril::errc::invalid_option);
  }

  TEST_CASE("runs all, never more than the limit at a time, and as many as that") {
    with_workers({2, 4}, [](tendril::runtime& rt) {
      for (const std::size_t limit : {1U, 3U}) {
        CAPTURE(limit);
        std::atomic<int> now{0}, most{0}, ran{0};
        struct work {
          std::atomic<int>*now, *most, *ran;
        };
        work w{&now, &most, &ran};
        tendril::counting_semaphore<> gate(0);
        static tendril::counting_semaphore<>* the_gate;
        the_gate = &gate;
        constexpr int n = 40;
        run_on_own_stack(rt, [&] {
          throttling_context throttle(limit);
          for (int i = 0; i != n; ++i)
            throttle.post({[](void* p) noexcept {
                             const work& x = *static_cast<work*>(p);
                             const int here = x.now->fetch_add(1) + 1;
                             int seen = x.most->load();
                             while (seen < here && !x.most->compare_exchange_weak(seen, here)) {
                             }
                             the_gate->acquire();
                             x.now->fetch_sub(1);
                             x.ran->fetch_add(1);
                           },
                           &w});
          while (now != static_cast<int>(limit)) tendril::this_fiber::yield();
          for (int i = 0; i != n; ++i) gate.release();
        });
        CHECK(most == static_cast<int>(limit));
        CHECK(ran == n);
      }
    });
  }

  TEST_CASE("a limit of one keeps the order, also over a loop, whose other works get their turns") {
    loop_context loop;
    std::vector<int> order;
    struct work {
      std::vector<int>* to;
      int i;
    };
    std::array<work, 4> works{{{&order, 0}, {&order, 1}, {&order, 2}, {&order, 3}}};
    {
      throttling_context strand(1, &loop);
      for (work& w : works)
        strand.post({[](void* p) noexcept {
                       const work& x = *static_cast<work*>(p);
                       x.to->push_back(x.i);
                     },
                     &w});
      loop.post([&] { order.push_back(9); });
      CHECK(strand.active() == 1);
      CHECK(strand.queued() == 4);
      while (loop.run_queued() != 0) {
      }
      CHECK(strand.active() == 0);
    }
    CHECK(order == std::vector<int>{0, 9, 1, 2, 3});
  }

  TEST_CASE("fibers that wait in a throttle of one all go on") {
    with_workers([](tendril::runtime& rt) {
      std::atomic<int> done{0};
      run_on_own_stack(rt, [&] {
        throttling_context throttle(1);
        tendril::task_scope all;
        for (int i = 0; i != 20; ++i)
          all.spawn([&] {
            const use_context here(&throttle);
            for (int j = 0; j != 5; ++j) wait_really();
            ++done;
          });
        all.join();
      });
      CHECK(done == 20);
    });
  }

  TEST_CASE("without a runtime it says so, and has kept nothing") {
    std::error_code code;
    throttling_context throttle(2);
    try {
      throttle.post({[](void*) noexcept {}, nullptr});
    } catch (const std::system_error& e) {
      code = e.code();
    }
    CHECK(code == tendril::errc::no_runtime);
    CHECK(throttle.active() == 0);
    CHECK(throttle.queued() == 0);
  }
}
