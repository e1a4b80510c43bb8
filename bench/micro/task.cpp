// SPDX-License-Identifier: Apache-2.0
//
// Question: what do task<T>'s calls and waits cost?
//   sync_call           co_await of a task that does not wait, frame included
//   sync_call_operator_new  the same, the frame by operator new: a lean coroutine without an arena
//   await_ready_future  co_await of a future that is ready
//   await_from_outside  await(task) on a fiber, of a task that does not wait: its frame is allocated
//   suspend_resume      a wait for a future that is completed from outside, promise and future included
//   promise_alone       what the promise and the future of that cost
//
// Does not show: resumption by another thread, deep chains.
#include "bench/micro/harness.hpp"

#include <tendril/await.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>

#include <coroutine>
#include <cstdint>
#include <new>
#include <utility>

namespace bench::micro {
namespace {

using tendril::task;

volatile std::int64_t one = 1;  // so that no compiler sees the result

[[gnu::noinline]] task<std::int64_t> add_one(std::int64_t n) { co_return n + one; }

task<std::int64_t> calls(std::int64_t n) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i != n; ++i) sum = co_await add_one(sum);
  co_return sum;
}

task<std::int64_t> ready_futures(std::int64_t n) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i != n; ++i) sum += co_await tendril::make_ready_future(i);
  co_return sum;
}

task<std::int64_t> waits(std::int64_t n, tendril::promise<std::int64_t>& p) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i != n; ++i) sum += co_await p.get_future();
  co_return sum;
}

/// The least that a lazily started coroutine with symmetric transfer is.
class bare_task {
 public:
  struct promise_type {
    std::int64_t value;
    std::coroutine_handle<> after;
    bare_task get_return_object() {
      return bare_task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    auto final_suspend() noexcept {
      struct transfer {
        bool await_ready() noexcept { return false; }
        std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> h) noexcept {
          return h.promise().after;
        }
        void await_resume() noexcept {}
      };
      return transfer{};
    }
    void return_value(std::int64_t v) noexcept { value = v; }
    void unhandled_exception() noexcept { std::terminate(); }
  };

  bare_task(bare_task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  ~bare_task() {
    if (handle_) handle_.destroy();
  }
  bool await_ready() const noexcept { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> h) const noexcept {
    handle_.promise().after = h;
    return handle_;
  }
  std::int64_t await_resume() const noexcept { return handle_.promise().value; }
  std::int64_t run() const {
    handle_.promise().after = std::noop_coroutine();
    handle_.resume();
    return handle_.promise().value;
  }

 private:
  explicit bare_task(std::coroutine_handle<promise_type> h) noexcept : handle_(h) {}
  std::coroutine_handle<promise_type> handle_;
};

[[gnu::noinline]] bare_task bare_add_one(std::int64_t n) { co_return n + one; }
bare_task bare_calls(std::int64_t n) {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i != n; ++i) sum = co_await bare_add_one(sum);
  co_return sum;
}

/// body(n) on a fiber of one worker.
template <class Body>
duration on_a_fiber(std::int64_t n, Body body) {
  duration took{};
  tendril::run({.workers = 1}, [&] {
    const stopwatch watch;
    body(n);
    took = watch.elapsed();
  });
  return took;
}

}  // namespace

void register_task() {
  const std::string prefix = "bm_task/";
  add(prefix + "sync_call", 1, [](std::int64_t n) {
    return on_a_fiber(n,
                      [](std::int64_t k) { expect_equal("calls", k, tendril::await(calls(k))); });
  });
  add(prefix + "sync_call_operator_new", 1, [](std::int64_t n) {
    return on_a_fiber(n, [](std::int64_t k) { expect_equal("calls", k, bare_calls(k).run()); });
  });
  add(prefix + "await_ready_future", 1, [](std::int64_t n) {
    return on_a_fiber(n, [](std::int64_t k) {
      expect_equal("sum", k * (k - 1) / 2, tendril::await(ready_futures(k)));
    });
  });
  add(prefix + "await_from_outside", 1, [](std::int64_t n) {
    return on_a_fiber(n, [](std::int64_t k) {
      std::int64_t sum = 0;
      for (std::int64_t i = 0; i != k; ++i) sum = tendril::await(add_one(sum));
      expect_equal("sum", k, sum);
    });
  });
  add(prefix + "suspend_resume", 1, [](std::int64_t n) {
    return on_a_fiber(n, [](std::int64_t k) {
      tendril::promise<std::int64_t> p;
      auto sum = tendril::start(waits(k, p));
      for (std::int64_t i = 0; i != k; ++i) {
        tendril::promise<std::int64_t> now = std::exchange(p, tendril::promise<std::int64_t>());
        now.set_value(i);
      }
      expect_equal("sum", k * (k - 1) / 2, sum.get());
    });
  });
  add(prefix + "promise_alone", 1, [](std::int64_t n) {
    return on_a_fiber(n, [](std::int64_t k) {
      std::int64_t sum = 0;
      tendril::promise<std::int64_t> p;
      for (std::int64_t i = 0; i != k; ++i) {
        auto f = p.get_future();
        tendril::promise<std::int64_t> now = std::exchange(p, tendril::promise<std::int64_t>());
        now.set_value(i);
        sum += f.get();
      }
      expect_equal("sum", k * (k - 1) / 2, sum);
    });
  });
}

}  // namespace bench::micro
