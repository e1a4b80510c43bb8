// SPDX-License-Identifier: Apache-2.0
//
// Coroutines in narrow windows: completion against suspension, against cancellation, against the end of who
// waits; resumption by fibers and plain threads in turn; runtimes that end with tasks pending.
#include "support/stress.hpp"
#include "support/with_workers.hpp"

#include <tendril/await.hpp>
#include <tendril/channel.hpp>
#include <tendril/task.hpp>

#include <atomic>
#include <coroutine>
#include <cstdint>
#include <memory>
#include <random>
#include <stop_token>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using tendril::await;
using tendril::task;
using tendril::test::on_everyone;
using tendril::test::rounds;
using tendril::test::stress_seed;
using tendril::test::with_workers;

namespace {

task<int> get(tendril::future<int> f) { co_return co_await std::move(f); }
task<int> nest(int depth, tendril::future<int> f) {
  if (depth != 0) co_return 1 + co_await nest(depth - 1, std::move(f));
  co_return co_await std::move(f);
}

/// Spins for a moment of random length, so that others arrive before, during and after.
void dither(std::minstd_rand& random) {
  for (auto n = random() % 60; n != 0; --n) std::atomic_signal_fence(std::memory_order_seq_cst);
}

struct on_channel {
  tendril::channel<std::coroutine_handle<>>& to;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) const { to.send(h); }
  void await_resume() const noexcept {}
};

}  // namespace

TEST_SUITE("bridge_task") {
  TEST_CASE("a wait against its completion, by fibers and by threads") {
    const std::uint64_t seed = stress_seed("task completion");
    with_workers({2, 4}, [&](tendril::runtime&) {
      const auto n = rounds(20'000, 100);
      tendril::channel<tendril::promise<int>> work(4);
      std::atomic<long> sum = 0;
      const auto complete = [&](int i) {
        std::minstd_rand random(static_cast<unsigned>(seed + static_cast<unsigned>(i)));
        for (auto& p : work) {
          dither(random);
          p.set_value(1);
        }
      };
      std::thread native([&] { complete(1); });
      tendril::fiber setter([&] { complete(2); });
      on_everyone(2, 1, [&](int i) {
        std::minstd_rand random(static_cast<unsigned>(seed + 10 + static_cast<unsigned>(i)));
        for (std::uint64_t k = 0; k != n; ++k) {
          tendril::promise<int> p;
          auto f = p.get_future();
          work.send(std::move(p));
          dither(random);
          switch (random() % 3) {
            case 0:
              sum += await(get(std::move(f)));
              break;
            case 1:
              sum += tendril::start(get(std::move(f))).get();
              break;
            default:
              sum += await(nest(3, std::move(f))) - 3;
          }
        }
      });
      work.close();
      native.join();
      setter.join();
      CHECK(sum == static_cast<long>(3 * n));
    });
  }

  TEST_CASE("cancellation against completion: each wait ends once, as one of the two") {
    const std::uint64_t seed = stress_seed("task cancellation");
    with_workers({2, 4}, [&](tendril::runtime&) {
      const auto n = rounds(10'000, 100);
      std::atomic<std::uint64_t> completed = 0, canceled = 0;
      on_everyone(2, 1, [&](int i) {
        std::minstd_rand random(static_cast<unsigned>(seed + static_cast<unsigned>(i)));
        for (std::uint64_t k = 0; k != n; ++k) {
          std::stop_source source;
          tendril::promise<int> p;
          auto f = tendril::start(nest(2, p.get_future()), source.get_token());
          const auto own = static_cast<unsigned>(random());
          tendril::fiber stopper([source, own]() mutable {
            std::minstd_rand r(own);
            dither(r);
            source.request_stop();
          });
          dither(random);
          p.set_value(1);
          try {
            f.get();
            ++completed;
          } catch (const std::system_error& e) {
            canceled += e.code() == std::errc::operation_canceled;
          }
          stopper.join();
        }
      });
      CHECK(completed + canceled == 3 * n);
    });
  }

  TEST_CASE("fibers that are stopped while they await coroutines, which await fibers") {
    const std::uint64_t seed = stress_seed("task stops");
    with_workers({1, 2, 4}, [&](tendril::runtime&) {
      std::minstd_rand random(static_cast<unsigned>(seed));
      std::atomic<std::uint64_t> ended = 0;
      tendril::channel<int> values;
      const auto works = [&]() -> task<> {
        for (;;) {
          co_await tendril::async_send(values, 1);
          co_await tendril::async_receive(values);
          co_await tendril::on_fiber([] { tendril::this_fiber::yield(); });
        }
      };
      const auto n = rounds(300, 10);
      for (std::uint64_t k = 0; k != n; ++k) {
        std::vector<tendril::fiber> running;
        for (int i = 0; i != 4; ++i)
          running.emplace_back([&] {
            try {
              await(works());
            } catch (const std::system_error& e) {
              ended += e.code() == std::errc::operation_canceled;
            }
          });
        for (auto yields = random() % 20; yields != 0; --yields) std::this_thread::yield();
        for (auto& f : running) f.request_stop();
        for (auto& f : running) f.join();
      }
      CHECK(ended == 4 * n);
    });
  }

  TEST_CASE("bare handles resumed by plain threads in turn") {
    const auto n = rounds(5'000, 50);
    with_workers({2}, [&](tendril::runtime&) {
      tendril::channel<std::coroutine_handle<>> handles(64);
      std::vector<std::thread> resumers;
      for (int i = 0; i != 2; ++i)
        resumers.emplace_back([&] {
          for (const std::coroutine_handle<> h : handles) h.resume();
        });
      const auto hops = [&](std::uint64_t times) -> task<std::uint64_t> {
        std::uint64_t count = 0;
        const auto hop = [&]() -> task<> {
          co_await on_channel{handles};
          ++count;
        };
        for (std::uint64_t i = 0; i != times; ++i) co_await hop();
        co_return count;
      };
      std::atomic<std::uint64_t> sum = 0;
      on_everyone(3, 1, [&](int i) {
        if (i % 2 == 0) sum += await(hops(n));
        else sum += tendril::start(hops(n)).get();
        await(on_channel{handles});
      });
      handles.close();
      for (auto& t : resumers) t.join();
      CHECK(sum == 4 * n);
    });
  }

  TEST_CASE("a runtime that ends with tasks pending ends them") {
    const auto n = rounds(200, 5);
    for (std::uint64_t k = 0; k != n; ++k) {
      tendril::promise<int> never;
      std::atomic<int> ended = 0;
      std::atomic<int> begun = 0;
      {
        tendril::runtime rt({.workers = 2, .on_exit = tendril::exit_policy::stop});
        std::vector<tendril::promise<int>> others(8);
        for (auto& p : others)
          rt.spawn([&ended, &begun, f = p.get_future()]() mutable {
            const auto counts = [](tendril::future<int> g, std::atomic<int>& ends) -> task<> {
              struct count {
                std::atomic<int>& to;
                ~count() { ++to; }
              } const c{ends};
              co_await std::move(g);
            };
            ++begun;
            await(counts(std::move(f), ended));
          });
        while (begun != 8) std::this_thread::yield();
        rt.stop();
      }
      CHECK(ended == 8);
    }
  }

  TEST_CASE("tasks made here and awaited there, frames freed everywhere") {
    with_workers({2, 4}, [&](tendril::runtime&) {
      const auto n = rounds(2'000, 20);
      tendril::channel<task<int>> tasks(8);
      std::atomic<long> sum = 0;
      std::vector<tendril::fiber> makers;
      for (int m = 0; m != 3; ++m)
        makers.emplace_back([&] {
          const auto makes = [&]() -> task<> {
            for (std::uint64_t i = 0; i != n; ++i) {
              auto t = nest(3, tendril::make_ready_future(1));
              auto unused = nest(1, tendril::make_ready_future(1));
              tasks.send(std::move(t));
            }
            co_return;
          };
          await(makes());
        });
      std::thread closes([&] {
        for (auto& m : makers) m.join();
        tasks.close();
      });
      on_everyone(2, 1, [&](int) {
        // A chain for each: calls that end without waiting keep their stack where there is no tail transfer.
        const auto takes = [](task<int> t) -> task<long> { co_return co_await std::move(t); };
        while (auto t = tasks.receive()) sum += await(takes(std::move(*t)));
      });
      closes.join();
      CHECK(sum == static_cast<long>(3 * n * 4));
    });
  }
}
