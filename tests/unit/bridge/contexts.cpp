// SPDX-License-Identifier: Apache-2.0
#include "support/errors.hpp"
#include "support/with_workers.hpp"

#include <tendril/channel.hpp>
#include <tendril/condition_variable.hpp>
#include <tendril/context.hpp>
#include <tendril/detail/timed.hpp>
#include <tendril/error.hpp>
#include <tendril/future.hpp>
#include <tendril/latch.hpp>
#include <tendril/mutex.hpp>
#include <tendril/scope.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/shared_mutex.hpp>
#include <tendril/task.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using tendril::configure_await;
using tendril::configure_await_scope;
using tendril::loop_context;
using tendril::synchronization_context;
using tendril::throttling_context;
using tendril::use_context;
using tendril::test::with_workers;

namespace {

/// Counts what is posted, and has a thread run it.
class counting_context final : public synchronization_context {
 public:
  explicit counting_context(loop_context& loop) : loop_(loop) {}
  void post(tendril::posted_work work) override {
    ++posts;
    loop_.post(work);
  }
  std::atomic<int> posts{0};

 private:
  loop_context& loop_;
};

/// A loop with a thread that runs it.
class loop_thread {
 public:
  explicit loop_thread(tendril::loop_options options = {}) : loop(std::move(options)) {}
  ~loop_thread() {
    loop.stop();
    thread_.join();
  }
  loop_thread(const loop_thread&) = delete;
  loop_thread& operator=(const loop_thread&) = delete;
  std::thread::id id() const { return thread_.get_id(); }
  loop_context loop;

 private:
  std::thread thread_{[this] { loop.run(); }};
};

/// Parks the calling fiber until another fiber has run.
void wait_really() {
  tendril::promise<void> p;
  auto f = p.get_future();
  tendril::fiber other([&] { p.set_value(); });
  // Not ready before the wait: the other fiber starts when this one parks, or is on another worker, where
  // it may be first. So wait for its end, too, which is a wait at least as often.
  f.get();
  other.join();
}

/// A wait that is not over before it begins, whatever the waker does.
class turn {
 public:
  void take() {
    namespace d = tendril::detail;
    lock_.lock();
    d::wait_node& mine = d::own_node(d::current_waiter());
    list_.push_back(mine);
    d::require_signalled(d::wait_locked(lock_, list_, mine, {.reason = "turn"}), "turn");
    d::await_waker(lock_);
  }
  /// On another flow: waits for somebody to have come, and wakes it.
  void give() {
    for (;; tendril::this_fiber::yield()) {
      tendril::detail::waiter* w = nullptr;
      lock_.lock();
      if (tendril::detail::wait_node* const n = list_.pop_front())
        w = tendril::detail::complete(*n);
      lock_.unlock();
      if (w == nullptr) continue;
      tendril::detail::unpark(w);
      return;
    }
  }

 private:
  tendril::detail::tiny_lock lock_;
  tendril::detail::wait_list list_;
};

/// The least of an async method: starts at once, goes on in the context in which it began to wait.
struct eager {
  struct promise_type {
    std::shared_ptr<tendril::promise<int>> result = std::make_shared<tendril::promise<int>>();
    tendril::future<int> future = result->get_future();
    eager get_return_object() { return {std::move(future)}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_value(int x) { result->set_value(x); }
    void unhandled_exception() { result->set_exception(std::current_exception()); }
  };
  tendril::future<int> task;
};

/// co_await: lets somebody else go on first, then posts to the context that was in force, or, with
/// configure_await(false), goes on where it is resumed.
struct later {
  configure_await how{true};
  struct state {
    std::coroutine_handle<> who;
    synchronization_context* where;
  };
  std::optional<std::thread> helper{};
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    auto s = std::make_unique<state>(state{h, tendril::detail::resume_context(how)});
    std::thread([s = std::move(s)]() mutable {
      if (s->where == nullptr) {
        s->who.resume();
        return;
      }
      state* const raw = s.release();
      raw->where->post({[](void* p) noexcept {
                          const std::unique_ptr<state> mine(static_cast<state*>(p));
                          mine->who.resume();
                        },
                        raw});
    }).detach();
  }
  void await_resume() const noexcept {}
};

eager answer(configure_await how) {
  co_await later{how};
  co_return 42;
}

}  // namespace

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
    rt.run([&] {
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
      rt.run([&] {
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

TEST_SUITE("loop_context") {
  TEST_CASE("runs works in order, on its thread, from any thread, and stops") {
    loop_context loop;
    std::vector<int> order;
    std::vector<bool> here;
    const auto me = std::this_thread::get_id();
    for (int i = 0; i != 3; ++i) loop.post([&, i] { order.push_back(i); });
    std::thread([&] {
      loop.post([&] {
        here.push_back(std::this_thread::get_id() == me);
        here.push_back(loop.hosted_here());
        here.push_back(synchronization_context::current() == &loop);
        loop.post([&] {
          order.push_back(4);
          loop.stop();
        });
        order.push_back(3);
      });
    }).join();
    CHECK_FALSE(loop.hosted_here());
    loop.run();
    CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
    CHECK(here == std::vector<bool>(3, true));
    CHECK(synchronization_context::current() == nullptr);
  }

  TEST_CASE(
      "stop before run makes it return once; what is queued stays, and the loop's end runs it") {
    int ran = 0;
    {
      loop_context loop;
      loop.post([&] { ++ran; });
      loop.stop();
      loop.run();
      CHECK(ran == 0);
      CHECK(loop.queued() == 1);
      CHECK(loop.run_queued() == 1);
      CHECK(ran == 1);
      loop.post([&] { loop.post([&] { ++ran; }); });
    }
    CHECK(ran == 2);
  }

  TEST_CASE("run_until asks after each work and when woken") {
    loop_context loop;
    std::atomic<bool> set{false};
    int works = 0;
    for (int i = 0; i != 5; ++i) loop.post([&] { ++works; });
    loop.run_until([&] { return works == 3; });
    CHECK(works == 3);
    std::thread setter([&] {
      set = true;
      loop.wake();
    });
    loop.run_until([&] { return set.load(); });
    setter.join();
    CHECK(set);
  }

  TEST_CASE("an exception of a work leaves run, which can go on") {
    loop_context loop;
    int ran = 0;
    loop.post([] { throw std::runtime_error("work"); });
    loop.post([&] {
      ++ran;
      loop.stop();
    });
    CHECK_THROWS_WITH_AS(loop.run(), "work", std::runtime_error);
    CHECK(ran == 0);
    loop.run();
    CHECK(ran == 1);
  }

  TEST_CASE("run within run, or by two, is an error") {
    loop_context loop;
    std::error_code nested, other;
    const auto try_run = [&](std::error_code& to) {
      try {
        loop.run();
      } catch (const std::system_error& e) {
        to = e.code();
      }
    };
    loop.post([&] {
      try_run(nested);
      std::thread([&] { try_run(other); }).join();
      loop.stop();
    });
    loop.run();
    CHECK(nested == tendril::errc::would_deadlock);
    CHECK(other == tendril::errc::would_deadlock);
  }

  TEST_CASE("options are checked") {
    std::error_code code;
    try {
      loop_context({.self_wait_grace = -1ns});
    } catch (const std::system_error& e) {
      code = e.code();
    }
    CHECK(code == tendril::errc::invalid_option);
  }

  TEST_CASE(
      "a fiber may run it; a work that waits there ends its wait in place, and others post "
      "meanwhile") {
    with_workers([](tendril::runtime& rt) {
      loop_context loop({.on_self_wait = tendril::self_wait_policy::ignore});
      std::vector<int> order;
      rt.run([&] {
        turn t;
        loop.post([&] {
          t.take();
          order.push_back(1);
        });
        tendril::fiber other([&] {
          loop.post([&] {
            order.push_back(2);
            loop.stop();
          });
          t.give();
        });
        loop.run();
        other.join();
      });
      CHECK(order == std::vector<int>{1, 2});
    });
  }

  TEST_CASE("a stop request ends a run on a fiber") {
    tendril::runtime rt({.workers = 1});
    loop_context loop;
    std::error_code code;
    rt.run([&] {
      tendril::fiber f([&] {
        try {
          loop.run();
        } catch (const std::system_error& e) {
          code = e.code();
        }
      });
      tendril::this_fiber::yield();
      f.request_stop();
      f.join();
    });
    CHECK(code == std::errc::operation_canceled);
    loop.post([&] { loop.stop(); });
    loop.run();
  }

  TEST_CASE("posts of many threads and fibers are all run") {
    with_workers([](tendril::runtime&) {
      loop_thread ui;
      int ran = 0;  // the loop's alone
      constexpr int each = 500;
      tendril::test::on_everyone(6, 2, [&](int) {
        for (int i = 0; i != each; ++i) ui.loop.post([&] { ++ran; });
      });
      tendril::promise<int> p;
      auto f = p.get_future();
      ui.loop.post([&] { p.set_value(ran); });
      CHECK(f.get() == 8 * each);
    });
  }
}

TEST_SUITE("self_wait") {
  TEST_CASE(
      "blocking on an async task from the loop's own thread is refused, and the cycle named") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    std::string report;
    loop_context loop({.name = "ui",
                       .on_self_wait = tendril::self_wait_policy::fail,
                       .self_wait_grace = 0ns,
                       .on_report = [&](std::string_view text) { report = text; }});
    std::error_code code;
    std::optional<tendril::future<int>> task;
    loop.post([&] {
      task = answer(configure_await(true)).task;
      try {
        static_cast<void>(task->get());
      } catch (const std::system_error& e) {
        code = e.code();
      }
      loop.stop();
    });
    loop.run();
    CHECK(code == tendril::errc::would_deadlock);
    CHECK(report.find(
              "the host of loop 'ui' -> future::wait -> what completes it -> a work queued on loop "
              "'ui' -> the host of loop 'ui'") != std::string::npos);
    CHECK(report.find("1 work is queued") != std::string::npos);
    // Nothing is lost: the task goes on when the loop does.
    CHECK(loop.run_queued() == 1);
    CHECK(task->get() == 42);
  }

  TEST_CASE("a work queued before the wait counts as well") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    int reports = 0;
    loop_context loop({.on_self_wait = tendril::self_wait_policy::fail,
                       .self_wait_grace = 0ns,
                       .on_report = [&](std::string_view) { ++reports; }});
    std::error_code code;
    tendril::promise<void> p;
    auto f = p.get_future();
    loop.post([&] {
      loop.post([&] { p.set_value(); });
      try {
        f.get();
      } catch (const std::system_error& e) {
        code = e.code();
      }
    });
    CHECK(loop.run_queued() == 1);
    CHECK(loop.run_queued() == 1);
    f.get();
    CHECK(code == tendril::errc::would_deadlock);
    CHECK(reports == 1);
  }

  TEST_CASE("with the report policy the wait goes on: it hangs until somebody helps, told once") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    int reports = 0;
    tendril::promise<void> help;
    auto helped = help.get_future();
    loop_context loop({.self_wait_grace = 1ms, .on_report = [&](std::string_view) {
                         if (++reports == 1) help.set_value();
                       }});
    bool went_on = false;
    loop.post([&] {
      loop.post([] {});
      loop.post([] {});
      helped.get();
      went_on = true;
    });
    loop.run_queued();
    CHECK(went_on);
    CHECK(reports == 1);
  }

  TEST_CASE("waits that cannot fail are told of and not refused") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    tendril::runtime rt({.workers = 1});
    int reports = 0;
    std::atomic<bool> go{false};
    loop_context loop({.on_self_wait = tendril::self_wait_policy::fail,
                       .self_wait_grace = 0ns,
                       .on_report = [&](std::string_view) {
                         ++reports;
                         go = true;
                       }});
    loop.post([&] {
      loop.post([] {});
      const tendril::fiber joined_at_its_end([&] {
        while (!go) tendril::this_fiber::yield();
      });
    });
    loop.run_queued();
    CHECK(reports == 1);
  }

  TEST_CASE("a host whose loop has nothing to do waits as anybody") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    tendril::runtime rt({.workers = 1});
    int reports = 0;
    loop_context loop({.on_self_wait = tendril::self_wait_policy::fail,
                       .self_wait_grace = 0ns,
                       .on_report = [&](std::string_view) { ++reports; }});
    int got = 0;
    loop.post([&] { got = tendril::async([] { return 1; }).get(); });
    loop.run_queued();
    CHECK(got == 1);
    CHECK(reports == 0);
  }

  TEST_CASE(
      "with configure_await(false) the task needs no loop, and blocking on it is merely slow") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    loop_context loop({.on_self_wait = tendril::self_wait_policy::fail, .self_wait_grace = 0ns});
    int got = 0;
    loop.post([&] { got = answer(configure_await(false)).task.get(); });
    loop.run_queued();
    CHECK(got == 42);
  }

  TEST_CASE("a fiber that waits for the same task in the loop's context deadlocks with nobody") {
    with_workers([](tendril::runtime& rt) {
      std::atomic<int> reports{0};
      loop_thread ui({.on_self_wait = tendril::self_wait_policy::fail,
                      .self_wait_grace = 0ns,
                      .on_report = [&](std::string_view) { ++reports; }});
      int got = 0;
      rt.run([&] {
        const use_context here(&ui.loop);
        got = answer(configure_await(true)).task.get();
      });
      CHECK(got == 42);
      CHECK(reports == 0);
    });
  }

  TEST_CASE("every primitive passes the refusal on") {
    const tendril::test::watchdog dog("the loop's thread", nullptr);
    tendril::runtime rt({.workers = 1});
    loop_context loop({.on_self_wait = tendril::self_wait_policy::fail,
                       .self_wait_grace = 0ns,
                       .on_report = [](std::string_view) {}});
    std::vector<std::error_code> codes;
    const auto refused = [&](auto wait) {
      try {
        wait();
        codes.emplace_back();
      } catch (const std::system_error& e) {
        codes.push_back(e.code());
      }
    };
    loop.post([&] {
      loop.post([] {});
      tendril::channel<int> c(0);
      refused([&] { static_cast<void>(c.receive()); });
      refused([&] { static_cast<void>(c.receive_for(1h)); });
      refused([&] { c.send(1); });
      std::error_code ec;
      static_cast<void>(c.receive(ec));
      codes.push_back(ec);
      tendril::counting_semaphore<> none(0);
      refused([&] { none.acquire(); });
      refused([&] { static_cast<void>(none.try_acquire_for(1h)); });
      tendril::mutex m;
      tendril::condition_variable changed;
      std::unique_lock lock(m);
      refused([&] { changed.wait(lock); });
      refused([&] { changed.wait_for(lock, 1h); });
      if (!lock.owns_lock()) codes.emplace_back();
      tendril::latch l(1);
      refused([&] { l.wait(); });
      refused([&] { tendril::this_fiber::sleep_for(1h); });
      tendril::promise<void> p;
      auto f = p.get_future();
      refused([&] { static_cast<void>(f.wait_for(1h)); });
      refused([&] { f.wait(); });
      if (!f.valid()) codes.emplace_back();
    });
    loop.run_queued();
    CHECK(codes == std::vector<std::error_code>(12, tendril::errc::would_deadlock));
  }

  TEST_CASE("a fiber that runs the loop is refused as a thread is") {
    with_workers([](tendril::runtime& rt) {
      int reports = 0;
      std::error_code code;
      rt.run([&] {
        loop_context loop({.on_self_wait = tendril::self_wait_policy::fail,
                           .self_wait_grace = 2ms,
                           .on_report = [&](std::string_view) { ++reports; }});
        tendril::counting_semaphore<> never(0);
        loop.post([&] {
          loop.post([] {});
          try {
            never.acquire();
          } catch (const std::system_error& e) {
            code = e.code();
          }
        });
        loop.run_queued();
      });
      CHECK(code == tendril::errc::would_deadlock);
      CHECK(reports == 1);
    });
  }
}

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
        rt.run([&] {
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
      rt.run([&] {
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
