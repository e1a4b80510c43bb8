// SPDX-License-Identifier: Apache-2.0
#include <tendril/await.hpp>

#include "support/allocations.hpp"
#include "support/errors.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/channel.hpp>
#include <tendril/mutex.hpp>
#include <tendril/semaphore.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <functional>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using tendril::await;
using tendril::await_callback;
using tendril::test::on_everyone;
using tendril::test::stack_of_its_own;
using tendril::test::with_workers;

namespace {

/// Resumes handles on a thread of its own, in the order in which they come.
class resumer {
 public:
  resumer()
      : thread_([this] {
          for (std::coroutine_handle<> h : queue_) h.resume();
        }) {}
  ~resumer() {
    queue_.close();
    thread_.join();
  }
  void operator()(std::coroutine_handle<> h) { queue_.send(h); }

 private:
  tendril::channel<std::coroutine_handle<>> queue_{1024};
  std::thread thread_;
};

enum class how { ready, on_thread, at_once, declines, transfers };

/// An awaitable of each kind, which counts what is called.
template <class Suspended>
struct probe {
  how kind;
  resumer* other;
  int value;

  bool await_ready() const noexcept { return kind == how::ready; }
  Suspended await_suspend(std::coroutine_handle<> h) const {
    if (kind == how::on_thread) (*other)(h);
    if (kind == how::at_once) h.resume();
    if constexpr (std::is_same_v<Suspended, bool>) return kind != how::declines;
    if constexpr (std::is_same_v<Suspended, std::coroutine_handle<>>) {
      if (kind == how::transfers) return h;
      return std::noop_coroutine();
    }
  }
  int await_resume() const noexcept { return value; }
};

struct has_member {
  probe<void> inner;
  probe<void> operator co_await() const { return inner; }
};
struct has_free {
  probe<bool> inner;
};
probe<bool> operator co_await(const has_free& x) { return x.inner; }

/// Moves only, and refers to itself from where another thread finds it.
struct mover {
  resumer* other;
  std::unique_ptr<int> held;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) const { (*other)(h); }
  std::unique_ptr<int> await_resume() noexcept { return std::move(held); }
};
struct stays {
  resumer* other;
  int& target;
  stays(resumer* r, int& t) : other(r), target(t) {}
  stays(const stays&) = delete;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) const { (*other)(h); }
  int& await_resume() const noexcept { return target; }
};
struct large {
  resumer* other;
  std::array<int, 200> filled{};
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    filled.fill(3);
    (*other)(h);
  }
  std::array<int, 200>&& await_resume() noexcept { return std::move(filled); }
};
struct throws_at {
  int where;
  bool await_ready() const {
    if (where == 0) throw std::runtime_error("ready");
    return false;
  }
  void await_suspend(std::coroutine_handle<> h) const {
    if (where == 1) throw std::runtime_error("suspend");
    h.resume();
  }
  void await_resume() const { throw std::runtime_error("resume"); }
};

template <class F>
std::string message_of(F f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_SUITE("await") {
  TEST_CASE(
      "awaitables: suspending by nothing, bool and handle; resumed elsewhere, at once or not at "
      "all") {
    with_workers([](tendril::runtime&) {
      resumer other;
      std::atomic<int> right = 0;
      on_everyone(4, 2, [&](int i) {
        for (int n = 0; n != 30; ++n) {
          const int v = 100 * i + n;
          right += await(probe<void>{how::ready, &other, v}) == v;
          right += await(probe<void>{how::on_thread, &other, v}) == v;
          right += await(probe<void>{how::at_once, &other, v}) == v;
          right += await(probe<bool>{how::on_thread, &other, v}) == v;
          right += await(probe<bool>{how::declines, &other, v}) == v;
          right += await(probe<std::coroutine_handle<>>{how::on_thread, &other, v}) == v;
          right += await(probe<std::coroutine_handle<>>{how::transfers, &other, v}) == v;
          right += await(has_member{{how::on_thread, &other, v}}) == v;
          const has_free named{{how::on_thread, &other, v}};
          right += await(named) == v;
        }
      });
      CHECK(right == 6 * 30 * 9);
    });
  }

  TEST_CASE("awaitables: what only moves, what cannot, references, what is large") {
    with_workers([](tendril::runtime&) {
      resumer other;
      std::atomic<int> right = 0;
      on_everyone(2, 1, [&](int) {
        right += *await(mover{&other, std::make_unique<int>(5)}) == 5;
        int target = 0;
        const stays fixed(&other, target);
        right += &await(fixed) == &target;
        right += &await(stays(&other, target)) == &target;
        const std::array<int, 200> filled = await(large{&other, {}});
        right += filled[0] == 3 && filled[199] == 3;
      });
      CHECK(right == 3 * 4);
    });
  }

  TEST_CASE("awaitables that throw leave nothing behind") {
    with_workers([](tendril::runtime&) {
      std::array<std::string, 3> said;
      on_everyone(1, 0, [&](int) {
        for (int where = 0; where != 3; ++where)
          said[static_cast<std::size_t>(where)] = message_of([&] { await(throws_at{where}); });
      });
      CHECK(said == std::array<std::string, 3>{"ready", "suspend", "resume"});
    });
  }

  TEST_CASE("an awaitable costs no allocation once warm") {
    tendril::runtime rt({.workers = 1});
    resumer other;
    std::uint64_t used = 0;
    rt.run([&] {
      await(probe<void>{how::at_once, &other, 1});
      await(probe<void>{how::on_thread, &other, 1});
      // As a tasklet this fiber is copied, and a copy that is folded for the first time leaves a pattern.
      std::uint64_t folds = 0;
      do {
        folds = rt.stats().tasklets.folds;
        const std::uint64_t before = tendril::test::allocations();
        for (int i = 0; i != 100; ++i) {
          await(probe<void>{how::ready, &other, 1});
          await(probe<void>{how::at_once, &other, 1});
          await(probe<void>{how::on_thread, &other, 1});
        }
        used = tendril::test::allocations() - before;
      } while (rt.stats().tasklets.folds != folds);
    });
    CHECK(used == 0);
  }

  TEST_CASE("tendril's futures") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> right = 0;
      on_everyone(2, 2, [&](int) {
        right += await(tendril::async([] { return 4; })) == 4;
        auto f = tendril::async([] { return std::make_unique<int>(5); });
        right += *await(f) == 5;
        right += !f.valid();
        auto s = tendril::async([] { return 6; }).share();
        right += await(s) == 6;
        right += await(s) == 6;
      });
      CHECK(right == 4 * 5);
    });
  }

  TEST_CASE("futures that are moved from, read or default-constructed, on a fiber and a thread") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> right = 0;
      on_everyone(2, 2, [&](int) {
        const auto refused = [](auto&& wait) {
          try {
            wait();
          } catch (const std::future_error& e) {
            return e.code() == std::future_errc::no_state;
          }
          return false;
        };
        tendril::future<int> never;
        auto source = tendril::make_ready_future(1);
        auto taken = std::move(source);
        right += await(taken) == 1;
        right += refused([&] { await(never); });
        right += refused([&] { await(source); });
        right += refused([&] { await(taken); });
        right += refused([&] { await(std::move(taken)); });
        right += refused([] { await(tendril::shared_future<int>()); });
      });
      CHECK(right == 4 * 6);
    });
  }
}

TEST_SUITE("await_std") {
  TEST_CASE("values, references, exceptions, deferred ones, shared ones") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> right = 0;
      on_everyone(
          3, 1,
          [&](int) {
            std::promise<std::unique_ptr<int>> moving;
            std::promise<int&> referring;
            std::promise<void> failing;
            std::promise<std::string> sharing;
            auto a = moving.get_future();
            auto b = referring.get_future();
            auto c = failing.get_future();
            auto d = sharing.get_future().share();
            int target = 0;
            std::thread setter([&] {
              moving.set_value(std::make_unique<int>(7));
              referring.set_value(target);
              failing.set_exception(std::make_exception_ptr(std::runtime_error("std")));
              sharing.set_value("shared");
            });
            right += *await(std::move(a)) == 7;
            right += &await(b) == &target;
            right += message_of([&] { await(std::move(c)); }) == "std";
            right += await(d) == "shared" && await(std::move(d)) == "shared";
            right += await(std::async(std::launch::deferred, [] { return 8; })) == 8;
            setter.join();
          },
          stack_of_its_own());
      CHECK(right == 4 * 5);
    });
  }

  TEST_CASE("waiting fibers leave their worker to others") {
    tendril::runtime rt({.workers = 1});
    const tendril::test::watchdog dog("await_std", &rt);
    std::promise<int> p;
    int got = 0;
    tendril::fiber waiting([&, f = p.get_future()]() mutable { got = await(std::move(f)); });
    tendril::fiber setting([&] { p.set_value(3); });
    waiting.join();
    setting.join();
    CHECK(got == 3);
  }

  TEST_CASE("misuse and being stopped") {
    std::future<int> none;
    std::error_code code;
    try {
      await(std::move(none));
    } catch (const std::future_error& e) {
      code = e.code();
    }
    CHECK(code == std::future_errc::no_state);
    tendril::runtime rt({.workers = 1});
    std::promise<int> p;
    auto f = p.get_future();
    std::error_code stopped;
    tendril::fiber waiting([&] {
      try {
        await(f);
      } catch (const std::system_error& e) {
        stopped = e.code();
      }
    });
    waiting.request_stop();
    waiting.join();
    CHECK(stopped == std::errc::operation_canceled);
    CHECK(f.valid());
    p.set_value(1);
    CHECK(await(f) == 1);
  }
}

TEST_SUITE("await_callback") {
  TEST_CASE("called in start, later, elsewhere; nothing, one result, several") {
    with_workers([](tendril::runtime&) {
      tendril::channel<std::function<void()>> work(16);
      std::thread other([&] {
        for (auto& f : work) f();
      });
      std::atomic<int> right = 0;
      on_everyone(3, 2, [&](int i) {
        await_callback([](auto done) { done(); });
        right += await_callback<int>([&](auto done) { work.send([done, i] { done(i); }); }) == i;
        right += *await_callback<std::unique_ptr<int>>(
                     [](auto done) { done(std::make_unique<int>(9)); }) == 9;
        const auto [number, text] = await_callback<int, std::string>(
            [&](auto done) { work.send([done] { done(1, "one"); }); });
        right += number == 1 && text == "one";
        // Through a void*, as C interfaces carry it.
        using done_type = tendril::callback_done<int>;
        right += await_callback<int>([&](done_type done) {
                   void* const p = std::move(done).to_pointer();
                   work.send([p] { done_type::from_pointer(p)(6); });
                 }) == 6;
      });
      work.close();
      other.join();
      CHECK(right == 5 * 4);
    });
  }

  TEST_CASE("never called, called twice, exceptions") {
    with_workers([](tendril::runtime&) {
      std::array<std::error_code, 3> codes;
      std::array<std::string, 2> said;
      std::atomic<int> got = 0;
      const auto code_of = [](auto f) {
        try {
          f();
        } catch (const std::future_error& e) {
          return e.code();
        }
        return std::error_code();
      };
      tendril::fiber f([&] {
        codes[0] = code_of([] { await_callback<int>([](auto) {}); });
        codes[1] = code_of([] {
          await_callback<int>(
              [](auto done) { std::thread([moved = std::move(done)] {}).detach(); });
        });
        got = await_callback<int>([&](auto done) {
          done(1);
          codes[2] = code_of([&] { done(2); });
        });
        said[0] = message_of([] {
          await_callback<int>([](auto done) {
            done.set_exception(std::make_exception_ptr(std::runtime_error("set")));
          });
        });
        said[1] = message_of(
            [] { await_callback<int>([](auto) { throw std::runtime_error("start"); }); });
      });
      f.join();
      CHECK(codes[0] == std::future_errc::broken_promise);
      CHECK(codes[1] == std::future_errc::broken_promise);
      CHECK(codes[2] == std::future_errc::promise_already_satisfied);
      CHECK(got == 1);
      CHECK(said == std::array<std::string, 2>{"set", "start"});
    });
  }

  TEST_CASE("a stop request calls the operation off, which still completes") {
    with_workers([](tendril::runtime&) {
      tendril::binary_semaphore started(0);
      std::atomic<int> called_off = 0;
      int got = 0;
      tendril::fiber waiting([&] {
        std::function<void(int)> pending;
        got = await_callback<int>(
            [&](auto done) {
              pending = done;
              started.release();
            },
            [&] {
              ++called_off;
              pending(-1);
            });
      });
      started.acquire();
      waiting.request_stop();
      waiting.join();
      CHECK(called_off == 1);
      CHECK(got == -1);
    });
  }

  TEST_CASE("without a way to call it off, a stop request waits") {
    tendril::runtime rt({.workers = 2});
    tendril::binary_semaphore started(0);
    std::function<void(int)> pending;
    int got = 0;
    tendril::fiber waiting([&] {
      got = await_callback<int>([&](auto done) {
        pending = done;
        started.release();
      });
    });
    started.acquire();
    waiting.request_stop();
    pending(4);
    waiting.join();
    CHECK(got == 4);
  }
}
