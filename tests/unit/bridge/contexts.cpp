// SPDX-License-Identifier: Apache-2.0
//
// Which context is in force, and where what follows a wait runs.
#include "support/contexts.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/context.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/error.hpp>
#include <tendril/future.hpp>
#include <tendril/mutex.hpp>
#include <tendril/scope.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/shared_mutex.hpp>
#include <tendril/task.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <mutex>
#include <shared_mutex>
#include <system_error>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using tendril::configure_await;
using tendril::configure_await_scope;
using tendril::loop_context;
using tendril::synchronization_context;
using tendril::use_context;
using tendril::test::run_on_own_stack;
using tendril::test::with_workers;
using namespace tendril::test;

TEST_SUITE("contexts") {
  TEST_CASE("use_context is for a scope and a flow; children have none") {
    loop_context loop;
    std::vector<bool> seen;
    tendril::run({.workers = 1}, [&] {
      seen.push_back(synchronization_context::current() == nullptr);
      {
        const use_context here(&loop);
        seen.push_back(synchronization_context::current() == &loop);
        {
          const use_context none(nullptr);
          seen.push_back(synchronization_context::current() == nullptr);
        }
        seen.push_back(synchronization_context::current() == &loop);
        const configure_await_scope off(false);
        seen.push_back(synchronization_context::current() == &loop);
        tendril::fiber child(
            [&] { seen.push_back(synchronization_context::current() == nullptr); });
        child.join();
      }
      seen.push_back(synchronization_context::current() == nullptr);
    });
    CHECK(seen == std::vector<bool>(7, true));
  }

  TEST_CASE("each wait of a fiber that parks is posted once; none with configure_await(false)") {
    with_workers([](tendril::runtime& rt) {
      loop_thread ui;
      counting_context counter(ui.loop);
      constexpr int rounds = 20;
      std::array<int, 3> posts{};
      turn turns;
      tendril::fiber waker([&] {
        for (int i = 0; i != 3 * rounds; ++i) turns.give();
      });
      rt.run([&] {
        const use_context here(&counter);
        for (int i = 0; i != rounds; ++i) turns.take();
        posts[0] = counter.posts.exchange(0);
        {
          const configure_await_scope off(false);
          for (int i = 0; i != rounds; ++i) turns.take();
          posts[1] = counter.posts.exchange(0);
          const configure_await_scope on(true);
          for (int i = 0; i != rounds; ++i) turns.take();
          posts[2] = counter.posts.exchange(0);
        }
      });
      waker.join();
      CHECK(posts == std::array<int, 3>{rounds, 0, rounds});
    });
  }

  TEST_CASE("waits that do not park are not posted") {
    tendril::runtime rt({.workers = 1});
    loop_thread ui;
    counting_context counter(ui.loop);
    rt.run([&] {
      const use_context here(&counter);
      auto f = tendril::make_ready_future(1);
      static_cast<void>(f.get());
      tendril::mutex m;
      const std::scoped_lock hold(m);
      tendril::this_fiber::yield();
    });
    CHECK(counter.posts == 0);
  }

  TEST_CASE("waits that end by a deadline or a stop request are posted, too, and end so") {
    tendril::runtime rt({.workers = 2});
    loop_thread ui;
    counting_context counter(ui.loop);
    std::error_code why;
    bool in_time = true;
    rt.run([&] {
      tendril::fiber waits([&] {
        const use_context here(&counter);
        tendril::counting_semaphore<> never(0);
        in_time = never.try_acquire_for(1ms);
        try {
          never.acquire();
        } catch (const std::system_error& e) {
          why = e.code();
        }
      });
      while (counter.posts == 0) tendril::this_fiber::yield();
      waits.request_stop();
      waits.join();
    });
    CHECK_FALSE(in_time);
    CHECK(why == std::errc::operation_canceled);
    CHECK(counter.posts <= 2);  // one, if the request came before the second wait parked
  }

  TEST_CASE("continuations of futures and tasks are posted; none with configure_await(false)") {
    const tendril::test::watchdog dog("continuations", nullptr);
    loop_context loop;
    counting_context counter(loop);
    std::array<int, 5> posts{};
    int ran = 0;
    const auto step = [&](auto attach) {
      tendril::promise<int> p;
      auto result = attach(p.get_future());
      p.set_value(1);
      while (!result.is_ready()) loop.run_queued();
      ran += result.get();
      return counter.posts.exchange(0);
    };
    using future = tendril::future<int>;
    const auto value = [](auto f) { return f.get(); };
    const auto co_wait = [](future f, configure_await how) -> tendril::task<int> {
      co_return co_await tendril::awaiting(std::move(f), how);
    };
    {
      const use_context here(&counter);
      posts[0] = step([&](future f) { return f.then(value); });
      posts[1] = step([&](future f) { return f.then(configure_await(false), value); });
      posts[2] = step([&](future f) { return f.share().then(configure_await(false), value); });
      posts[3] = step(
          [&](future f) { return tendril::start(co_wait(std::move(f), configure_await(true))); });
      posts[4] = step(
          [&](future f) { return tendril::start(co_wait(std::move(f), configure_await(false))); });
    }
    CHECK(posts == std::array<int, 5>{1, 0, 0, 1, 0});
    CHECK(ran == 5);
  }

  TEST_CASE("a lock that is handed over is not held up by the context's queue") {
    tendril::runtime rt({.workers = 1});
    loop_context loop;  // nobody runs it
    bool locked = false;
    run_on_own_stack(rt, [&] {
      tendril::mutex m;
      tendril::shared_mutex s;
      m.lock();
      s.lock();
      tendril::fiber waits([&] {
        const use_context here(&loop);
        const std::scoped_lock both(m);
        const std::shared_lock shared(s);
        locked = true;
      });
      tendril::this_fiber::yield();
      m.unlock();
      tendril::this_fiber::yield();
      s.unlock();
      waits.join();
    });
    CHECK(locked);
    CHECK(loop.queued() == 0);
  }

  TEST_CASE("a fiber goes on only when its context runs what was posted") {
    tendril::runtime rt({.workers = 2});
    loop_context loop;
    std::atomic<bool> went_on{false};
    turn t;
    rt.spawn([&] {
      const use_context here(&loop);
      t.take();
      went_on = true;
    });
    tendril::fiber waker([&] { t.give(); });
    waker.join();
    while (loop.queued() == 0) std::this_thread::yield();
    CHECK_FALSE(went_on.load());
    CHECK(loop.run_queued() == 1);
    rt.drain();
    CHECK(went_on);
  }

  TEST_CASE("a context stays in force over real waits on many fibers") {
    with_workers([](tendril::runtime& rt) {
      loop_thread ui;
      std::atomic<int> done{0};
      run_on_own_stack(rt, [&] {
        tendril::task_scope all;
        for (int i = 0; i != 50; ++i)
          all.spawn([&] {
            const use_context here(&ui.loop);
            for (int j = 0; j != 10; ++j) wait_really();
            if (synchronization_context::current() == &ui.loop) ++done;
          });
        all.join();
      });
      CHECK(done == 50);
    });
  }

  TEST_CASE("resume_context: the context, unless configured away by argument or scope") {
    loop_context loop;
    std::vector<bool> seen;
    std::thread([&] {
      using tendril::detail::resume_context;
      seen.push_back(resume_context() == nullptr);
      const use_context here(&loop);
      seen.push_back(resume_context() == &loop);
      seen.push_back(resume_context(configure_await(false)) == nullptr);
      const configure_await_scope off(configure_await(false));
      seen.push_back(resume_context() == nullptr);
      seen.push_back(resume_context(configure_await(true)) == nullptr);
      const use_context again(&loop);
      seen.push_back(resume_context() == &loop);
    }).join();
    CHECK(seen == std::vector<bool>(6, true));
  }
}
