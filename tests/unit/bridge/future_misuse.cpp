// SPDX-License-Identifier: Apache-2.0
//
// What must not be done with futures, what is said then, and that nothing hangs or is lost by it.
#include "support/errors.hpp"
#include "support/with_workers.hpp"

#include <tendril/await.hpp>
#include <tendril/error.hpp>
#include <tendril/future.hpp>
#include <tendril/latch.hpp>
#include <tendril/task.hpp>
#include <tendril/thunk.hpp>

#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

using tendril::test::error_of;
using tendril::test::message_of;
using tendril::test::with_workers;

namespace {

template <class F>
bool says(F&& f, const char* part) {
  return message_of(f).find(part) != std::string::npos;
}

struct future_failure {
  std::error_code code;
  std::string message;
};

template <class F>
future_failure future_failure_of(F&& f) {
  try {
    f();
  } catch (const std::future_error& e) {
    return {e.code(), e.what()};
  }
  return {};
}

}  // namespace

TEST_SUITE("future_misuse") {
  TEST_CASE("an invalid future says why it is") {
    tendril::future<int> never;
    tendril::promise<int> p;
    auto moved = p.get_future();
    auto read = std::move(moved);
    p.set_value(1);
    CHECK(read.get() == 1);
    auto born_ready = tendril::make_ready_future(1);
    auto elsewhere = std::move(born_ready);
    CHECK(elsewhere.get() == 1);
    auto continued = tendril::make_ready_future(1);
    (void)continued.then([](tendril::future<int>) {});

    for (const auto& [f, text] :
         {std::pair{&never, "default-constructed"}, std::pair{&moved, "moved from"},
          std::pair{&read, "already read"}, std::pair{&born_ready, "moved from"},
          std::pair{&elsewhere, "already read"}}) {
      CAPTURE(text);
      for (const auto& failure :
           {future_failure_of([f = f] { f->get(); }), future_failure_of([f = f] { f->wait(); }),
            future_failure_of([f = f] { (void)f->then([](tendril::future<int>) {}); }),
            future_failure_of([f = f] { (void)f->share(); }),
            future_failure_of([f = f] { f->cancel(); }),
            future_failure_of([f = f] { f->request_stop(); })}) {
        CHECK(failure.code == std::future_errc::no_state);
        CHECK(failure.message.find(text) != std::string::npos);
      }
    }
    CHECK_FALSE(continued.valid());
    CHECK(says([&] { tendril::shared_future<int>().get(); }, "default-constructed"));
  }

  TEST_CASE("the second who waits for a one-shot future is told, the first gets the value") {
    with_workers([](tendril::runtime&) {
      tendril::promise<int> p;
      auto f = p.get_future();
      auto* const state = tendril::detail::future_access::state(f);
      int got = 0;
      tendril::detail::waiter* who = nullptr;
      tendril::latch started(1);
      tendril::fiber first([&] {
        who = tendril::detail::current_waiter();
        started.count_down();
        got = f.get();
      });
      started.wait();
      while (!state->ready.holds(who)) std::this_thread::yield();
      future_failure on_thread = future_failure_of([&] { f.wait(); });
      future_failure on_fiber;
      tendril::fiber second([&] { on_fiber = future_failure_of([&] { f.wait(); }); });
      second.join();
      p.set_value(3);
      first.join();
      CHECK(on_thread.code == std::future_errc::future_already_retrieved);
      CHECK(on_thread.message.find("already waits") != std::string::npos);
      CHECK(on_fiber.code == std::future_errc::future_already_retrieved);
      CHECK(got == 3);
    });
  }

  TEST_CASE("a fiber that waits for its own result is told, and goes on") {
    with_workers([](tendril::runtime&) {
      tendril::promise<tendril::future<int>*> own;
      auto where = own.get_future();
      std::error_code code;
      std::string message;
      auto f = tendril::async([&] {
        tendril::future<int>* const self = where.get();
        code = error_of([&] { self->wait(); });
        message = message_of([&] { (void)self->wait_for(std::chrono::hours(1)); });
        return 8;
      });
      own.set_value(&f);
      CHECK(f.get() == 8);
      CHECK(code == tendril::make_error_code(tendril::errc::would_deadlock));
      CHECK(message.find("only the fiber itself") != std::string::npos);
    });
  }

  TEST_CASE("the same through continuations, unwrapped and shared") {
    with_workers([](tendril::runtime&) {
      tendril::promise<tendril::future<int>*> own;
      auto where = own.get_future();
      std::error_code code;
      auto f = tendril::async([&] {
                 tendril::future<int>* const self = where.get();
                 code = error_of([&] { self->wait(); });
                 return 8;
               })
                   .share()
                   .then([](tendril::shared_future<int> x) { return x.get() + 1; })
                   .then([](tendril::future<int> x) { return x.get() + 1; });
      own.set_value(&f);
      CHECK(f.get() == 10);
      CHECK(code == tendril::make_error_code(tendril::errc::would_deadlock));

      tendril::promise<tendril::shared_future<void>*> own_shared;
      auto where_shared = own_shared.get_future();
      auto s = tendril::async([&] {
                 tendril::shared_future<void>* const self = where_shared.get();
                 code = error_of([&] { self->wait(); });
               }).share();
      code.clear();
      own_shared.set_value(&s);
      s.get();
      CHECK(code == tendril::make_error_code(tendril::errc::would_deadlock));

      tendril::promise<void> begin;
      tendril::promise<tendril::future<int>*> own_inner;
      auto where_inner = own_inner.get_future();
      auto unwrapped = begin.get_future().then([&](tendril::future<void>) {
        return tendril::async([&] {
          tendril::future<int>* const self = where_inner.get();
          code = error_of([&] { self->wait(); });
          return 3;
        });
      });
      code.clear();
      tendril::fiber starter([&] { begin.set_value(); });
      starter.join();
      own_inner.set_value(&unwrapped);
      CHECK(unwrapped.get() == 3);
      CHECK(code == tendril::make_error_code(tendril::errc::would_deadlock));
    });
  }

  TEST_CASE("a promise destroyed while a fiber, a thread, continuations wait") {
    with_workers([](tendril::runtime&) {
      const auto broken = [](auto&& read) {
        return future_failure_of(read).code == std::future_errc::broken_promise;
      };
      tendril::promise<int> for_fiber;
      tendril::promise<int> for_thread;
      tendril::promise<int> for_continuation;
      tendril::promise<int> for_many;
      auto f = for_fiber.get_future();
      auto t = for_thread.get_future();
      auto c = for_continuation.get_future().then(
          [&](tendril::future<int> x) { return broken([&] { x.get(); }); });
      auto s = for_many.get_future().share();
      auto sc = s.then([&](tendril::shared_future<int> x) { return broken([&] { x.get(); }); });
      bool fiber_saw = false;
      bool thread_saw = false;
      int shared_saw = 0;
      tendril::fiber fiber([&] { fiber_saw = broken([&] { f.get(); }); });
      std::thread thread([&] { thread_saw = broken([&] { t.get(); }); });
      std::thread sharer([&, s] { shared_saw += broken([&] { s.get(); }); });
      tendril::fiber breaker([&] {
        for (auto* p : {&for_fiber, &for_thread, &for_continuation, &for_many}) {
          const tendril::promise<int> taken(std::move(*p));
        }
      });
      breaker.join();
      fiber.join();
      thread.join();
      sharer.join();
      CHECK(fiber_saw);
      CHECK(thread_saw);
      CHECK(shared_saw == 1);
      CHECK(c.get());
      CHECK(sc.get());
    });
  }

  TEST_CASE("a promise destroyed while a coroutine waits, in a task and by way of shared futures") {
    with_workers([](tendril::runtime&) {
      tendril::promise<int> p;
      tendril::promise<int> q;
      const auto wait_for = [](tendril::future<int> f) -> tendril::task<std::error_code> {
        try {
          co_await std::move(f);
        } catch (const std::future_error& e) {
          co_return e.code();
        }
        co_return {};
      };
      auto f = p.get_future();
      auto shared = q.get_future().share();
      std::error_code direct;
      std::error_code through_shared;
      tendril::fiber first([&] { direct = tendril::await(wait_for(std::move(f))); });
      tendril::fiber second([&] {
        through_shared = tendril::await(
            wait_for(shared.then([](tendril::shared_future<int> s) { return s.get(); })));
      });
      tendril::fiber breaker([&] {
        tendril::this_fiber::yield();
        const tendril::promise<int> a(std::move(p));
        const tendril::promise<int> b(std::move(q));
      });
      breaker.join();
      first.join();
      second.join();
      CHECK(direct == std::future_errc::broken_promise);
      CHECK(through_shared == std::future_errc::broken_promise);
    });
  }

  TEST_CASE("a thunk that waits for its own result is told; a request stops it") {
    with_workers([](tendril::runtime&) {
      tendril::promise<tendril::future<int>*> own;
      auto where = own.get_future();
      std::error_code code;
      auto f = tendril::thunk([&] {
        tendril::future<int>* const self = where.get();
        code = error_of([&] { self->wait(); });
        return 4;
      })();
      own.set_value(&f);
      CHECK(f.get() == 4);
      CHECK(code == tendril::make_error_code(tendril::errc::would_deadlock));

      auto sleeper =
          tendril::thunk([] { tendril::this_fiber::sleep_for(std::chrono::hours(1)); })();
      CHECK(sleeper.request_stop());
      CHECK(error_of([&] { sleeper.get(); }) == std::errc::operation_canceled);
    });
  }

  TEST_CASE("when constructing the value throws, the promise is still pending") {
    struct sore {
      explicit sore(int n) : value(n) {}
      sore(const sore& other) : value(other.value) {
        if (value < 0) throw std::runtime_error("copy");
      }
      int value;
    };
    tendril::promise<sore> p;
    auto f = p.get_future();
    int hooks = 0;
    p.on_cancel([&] { ++hooks; });
    const sore bad(-1);
    CHECK(message_of([&] { p.set_value(bad); }) == "copy");
    CHECK_FALSE(f.is_ready());
    CHECK(f.request_stop());  // the hook is still there
    CHECK(hooks == 1);
    p.set_value(sore(3));
    CHECK(f.get().value == 3);
  }

  TEST_CASE("a result whose move throws: from async it is the future's, from get the reader's") {
    struct brittle {
      explicit brittle(int moves) : left(moves) {}
      brittle(brittle&& other) : left(other.left - 1) {
        if (left < 0) throw std::runtime_error("moved once too often");
      }
      int left;
    };
    with_workers([](tendril::runtime&) {
      auto f = tendril::async([] { return brittle(0); });
      CHECK(message_of([&] { (void)f.get(); }) == "moved once too often");
      auto g = tendril::async([] { return brittle(1); });
      CHECK(message_of([&] { (void)g.get(); }) == "moved once too often");
      CHECK_FALSE(g.valid());
    });
  }
}
