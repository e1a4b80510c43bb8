// SPDX-License-Identifier: Apache-2.0
//
// Fibers that start as calls: what is theirs and what is the caller's, wherever the caller runs. Order is made by
// promises: who waits for one has left its host, and goes on when the test says so.
#include "support/block.hpp"
#include "support/errors.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include "platform/barrier.hpp"
#include "sched/poller.hpp"
#include "sched/scheduler.hpp"
#include "sched/thread_pin.hpp"

#include <tendril/ambient.hpp>
#include <tendril/error.hpp>
#include <tendril/fiber_local.hpp>
#include <tendril/future.hpp>
#include <tendril/scope.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <execinfo.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cfenv>
#include <cstdlib>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

using namespace std::chrono_literals;
using tendril::errc;
using tendril::future;
using tendril::promise;
using tendril::runtime;
using tendril::thunk;
using tendril::test::block;
using tendril::test::error_of;
using tendril::test::run_on_own_stack;
using tendril::test::with_workers;
namespace detail = tendril::detail;
namespace this_fiber = tendril::this_fiber;

namespace {

// Out of line: compilers keep the address of errno over a switch.
[[gnu::noinline]] void set_errno(int value) {
  errno = value;
  asm volatile("" : : : "memory");
}
[[gnu::noinline]] int get_errno() { return errno; }
[[gnu::noinline]] long thread_number() { return ::syscall(SYS_gettid); }

std::string what(const std::exception_ptr& e) {
  try {
    if (e != nullptr) std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return x.what();
  }
  return "none";
}

std::string exceptions_now() {
  return what(std::current_exception()) + "/" + std::to_string(std::uncaught_exceptions());
}

/// On a fiber with a stack of its own, and on this thread.
template <class Body>
void everywhere(const std::string& expected, Body body) {
  with_workers([&](runtime& rt) {
    CHECK(run_on_own_stack(rt, body) == expected);
    CHECK(body() == expected);
  });
}

struct on_unwinding {
  std::string& seen;
  future<std::string>& later;
  promise<void>& gate;
  ~on_unwinding() {
    seen += thunk(&exceptions_now)().get();
    later = thunk([this_gate = &gate] {
      std::string all = exceptions_now();
      try {
        throw std::runtime_error("inner");
      } catch (...) {
        this_gate->get_future().get();  // leaves its host inside this block
        all += std::string(" ") + exceptions_now();
      }
      return all + " " + exceptions_now();
    })();
    seen += std::string(" ") + std::to_string(std::uncaught_exceptions());
  }
};

/// Blocks the calling fiber's thread until its worker has gone on without it: on one worker, the fiber that ends
/// the block cannot run before.
void lose_worker() {
  const auto b = std::make_shared<block>();
  tendril::spawn([b] { b->release(); });
  b->enter();
}

[[gnu::noinline]] std::size_t trace_from_here(std::array<void*, 64>& frames) {
  const int n = ::backtrace(frames.data(), static_cast<int>(frames.size()));
  asm volatile("" : : : "memory");
  return static_cast<std::size_t>(n);
}

}  // namespace

TEST_SUITE("hot_start") {
  TEST_CASE("exceptions in flight are the caller's, those of the body its own") {
    everywhere("none/0 1 outer/0 | none/0 inner/0 none/0", [] {
      std::string seen;
      future<std::string> later;
      promise<void> gate;
      try {
        const on_unwinding guard{seen, later, gate};
        throw std::runtime_error("outer");
      } catch (...) {
        seen += std::string(" ") + thunk([] { return std::string(); })().get() + exceptions_now();
      }
      gate.set_value();
      return seen + " | " + later.get();
    });
  }

  TEST_CASE("errno is left to the caller, as by a function; the fiber takes its own along") {
    everywhere("5 6 | 6", [] {
      promise<void> gate;
      set_errno(0);
      thunk([] { set_errno(5); })().get();
      std::string seen = std::to_string(get_errno());
      auto later = thunk([&gate] {
        set_errno(6);
        gate.get_future().get();
        return std::to_string(get_errno());
      })();
      seen += std::string(" ") + std::to_string(get_errno());
      set_errno(7);
      gate.set_value();
      return seen + " | " + later.get();
    });
  }

  TEST_CASE("rounding modes are inherited and left to the caller, as by a function") {
    const auto mode = [](int m) {
      return std::string(m == FE_TONEAREST    ? "nearest"
                         : m == FE_UPWARD     ? "up"
                         : m == FE_DOWNWARD   ? "down"
                         : m == FE_TOWARDZERO ? "zero"
                                              : "none");
    };
    const auto rounds_up = [] {
      const volatile double one = 1, three = 3;
      const volatile double up = one / three, down = -one / three;
      return up > -down ? "+" : "";
    };
    everywhere("up+ down | down nearest zero", [&] {
      const auto now = [&] { return mode(std::fegetround()); };
      promise<void> gate;
      auto opened = gate.get_future();
      std::string seen;
      std::fesetround(FE_UPWARD);
      thunk([&] {
        seen = now() + rounds_up();
        std::fesetround(FE_DOWNWARD);
      })()
          .get();
      seen += std::string(" ") + now() + " | ";
      auto later = thunk([&, started = now()] {
        const std::string inherited = now();
        std::fesetround(FE_TOWARDZERO);
        opened.get();  // takes its mode along
        return inherited == started ? now() : inherited;
      })();
      seen += now();
      std::fesetround(FE_TONEAREST);
      gate.set_value();
      const std::string after = later.get();
      return seen + std::string(" ") + now() + std::string(" ") + after;
    });
  }

  TEST_CASE("it has an id of its own, which it keeps; a later call has another") {
    with_workers([](runtime& rt) {
      const auto body = [] {
        const tendril::fiber_id mine = this_fiber::get_id();
        promise<void> gate;
        const auto id = [] { return this_fiber::get_id(); };
        const tendril::fiber_id first = thunk(id)().get(), second = thunk(id)().get();
        tendril::fiber_id before, after;
        auto later = thunk([&] {
          before = this_fiber::get_id();
          gate.get_future().get();
          after = this_fiber::get_id();
        })();
        gate.set_value();
        later.get();
        return first != mine && second != mine && second != first && before == after &&
               before != second && before != tendril::fiber_id() && mine == this_fiber::get_id();
      };
      CHECK(run_on_own_stack(rt, body));
      CHECK(body());
    });
  }

  TEST_CASE("it counts as a fiber from its first wait on") {
    with_workers([](runtime& rt) {
      rt.run([] { thunk([] {})().get(); });
      const auto before = rt.stats().fibers_spawned;
      for (int i = 0; i != 10; ++i) thunk([] {})().get();
      CHECK(rt.stats().fibers_spawned == before);
      for (int i = 0; i != 10; ++i) thunk([] { this_fiber::yield(); })().get();
      CHECK(rt.stats().fibers_spawned == before + 10);
      rt.drain();
      CHECK(rt.stats().fibers_finished == before + 10);
    });
  }

  TEST_CASE(
      "its thread keeps stacks for the next calls, however many, and however those before ended") {
    struct nest {
      static void run(int depth) {
        if (depth != 0) thunk([=] { run(depth - 1); })().get();
      }
    };
    constexpr int most_kept = 64, some = 40;
    const auto stacks_kept = [](runtime& rt) {
      nest::run(some);  // as many are there now, at least
      for (int i = 0; i != 2 * most_kept; ++i) thunk([] { this_fiber::yield(); })().get();
      for (int i = 0; i != 2 * most_kept; ++i) thunk([] { return this_fiber::get_id(); })().get();
      try {
        throw std::runtime_error("the long way");
      } catch (const std::runtime_error&) {
        nest::run(1);
      }
      nest::run(some);
      const std::size_t kept = rt.stats().stacks.in_use;
      nest::run(2 * most_kept);
      return std::array{kept, rt.stats().stacks.in_use};
    };
    tendril::runtime_options o;
    o.workers = 1;
    o.stack.kind = tendril::stack_kind::reserved;  // the others are not among stats().stacks
    runtime rt(o);
    CHECK(rt.run([&] { return stacks_kept(rt); }) ==
          std::array<std::size_t, 2>{some + 1, most_kept + 1});
  }

  TEST_CASE("what a call has kept for its fiber is gone when it returns") {
    everywhere("set gone unset no no 1 kept", [] {
      struct flag {
        std::string* to;
        ~flag() { *to += " gone"; }
      };
      std::string seen;
      static tendril::ambient<int> value(0);
      const tendril::ambient_scope outer;
      value.set(1);
      {
        const tendril::fiber_local<flag> local([&] { return flag{&seen}; });
        thunk([&] {
          static_cast<void>(*local);
          seen = "set";
          value.set(2);  // no scope: the fiber owns it
          static_cast<void>(this_fiber::get_stop_token());
        })()
            .get();
      }
      // The next one has the same stack.
      thunk([&] {
        seen += value.get() == 1 ? " unset" : " set";
        seen += this_fiber::get_stop_token().stop_requested() ? " yes" : " no";
      })()
          .get();
      thunk([&] { seen += this_fiber::stop_requested() ? " yes" : " no"; })().get();
      seen += " " + std::to_string(value.get());
      // Nested calls, of which the innermost has something to clear away.
      const std::string inner = thunk([&] {
                                  return thunk([&] {
                                           value.set(3);
                                           return std::string("kept");
                                         })()
                                      .get();
                                })()
                                    .get();
      return seen + " " + inner;
    });
  }

  TEST_CASE("on a plain thread where the system has no barrier for its sake") {
    tendril::platform::fail_heavy_barriers(true);
    int at_once = 0, later = 0;
    {
      runtime rt({.workers = 1});
      std::thread([&] {  // a new one, as guests keep to what they have found
        promise<int> gate;
        at_once = thunk([] { return 1; })().get();
        auto waits = thunk([&] { return gate.get_future().get(); })();
        gate.set_value(2);
        later = waits.get();
      })
          .join();
    }
    tendril::platform::fail_heavy_barriers(false);
    CHECK(at_once == 1);
    CHECK(later == 2);
  }

  TEST_CASE("it inherits the deadline of its caller") {
    everywhere("timed out", [] {
      const tendril::deadline_scope limit(0ms);
      auto f = thunk([] { tendril::counting_semaphore<>(0).acquire(); })();
      return error_of([&] { f.get(); }) == std::errc::timed_out ? std::string("timed out")
                                                                : std::string("other");
    });
  }

  TEST_CASE("a stop request finds it before and after its first wait") {
    for (const bool on_fiber : {true, false}) {
      CAPTURE(on_fiber);
      runtime rt({.workers = 2});
      const tendril::test::watchdog dog("stop", &rt);
      future<void> waiting, starting;
      bool seen = false;
      const auto body = [&] {
        waiting = thunk([] { tendril::counting_semaphore<>(0).acquire(); })();
        rt.request_stop();
        starting = thunk([&] {
          seen = this_fiber::stop_requested() && this_fiber::get_stop_token().stop_requested();
          tendril::counting_semaphore<>(0).acquire();
        })();
      };
      if (on_fiber) rt.run(body);
      else body();
      rt.drain();
      CHECK(seen);
      CHECK(error_of([&] { waiting.get(); }) == std::errc::operation_canceled);
      CHECK(error_of([&] { starting.get(); }) == std::errc::operation_canceled);
    }
  }

  TEST_CASE("its future can stop it, and it cannot wait for itself") {
    everywhere("canceled deadlock", [] {
      auto f = thunk([] { tendril::counting_semaphore<>(0).acquire(); })();
      f.request_stop();
      std::string seen =
          error_of([&] { f.get(); }) == std::errc::operation_canceled ? "canceled" : "other";
      promise<void> gate;
      future<void> own;
      std::error_code e;
      own = thunk([&] {
        gate.get_future().get();
        e = error_of([&] { own.get(); });
      })();
      future<void> const* const it = &own;
      gate.set_value();
      while (!it->is_ready()) this_fiber::yield();
      return seen + (e == errc::would_deadlock ? " deadlock" : " other");
    });
  }

  TEST_CASE("without a runtime, or after its end, the call says so and nothing runs") {
    bool ran = false;
    const auto body = [&ran] { ran = true; };
    const auto t = thunk(body);
    CHECK(error_of([&] { t().get(); }) == errc::no_runtime);
    auto rt = std::make_unique<runtime>(tendril::runtime_options{.workers = 1});
    const auto named = thunk(*rt, body);
    named().get();
    t().get();
    CHECK(ran);
    ran = false;
    rt.reset();
    CHECK(error_of([&] { named().get(); }) == errc::runtime_stopping);
    CHECK(error_of([&] { t().get(); }) == errc::no_runtime);
    runtime next({.workers = 1});  // in the place of the first
    CHECK(error_of([&] { named().get(); }) == errc::runtime_stopping);
    CHECK(!ran);
    t().get();
    CHECK(ran);
    CHECK(next.run([&] { return error_of([&] { named().get(); }); }) == errc::runtime_stopping);
  }

  TEST_CASE("a runtime's thunk on another runtime's fiber, and the other way round above it") {
    runtime a({.workers = 1}), b({.workers = 2});
    const tendril::test::watchdog dog("two runtimes", &a);
    const auto where = [] { return runtime::current(); };
    std::array<runtime*, 5> seen{};
    promise<void> gate;
    future<void> later;
    a.run([&] {
      seen[0] = thunk(b, where)().get();
      later = thunk(b, [&] {
        seen[1] = thunk(a, where)().get();  // a guest above a guest
        seen[2] = thunk(where)().get();
        gate.get_future().get();
        seen[3] = runtime::current();
      })();
      seen[4] = runtime::current();
    });
    gate.set_value();
    later.get();
    CHECK(seen == std::array{&b, &a, &b, &b, &a});
  }

  TEST_CASE("threads that end after their calls leave nothing, and what waits is finished") {
    with_workers([](runtime& rt) {
      for (int i = 0; i != 20; ++i) {
        promise<int> gate;
        future<int> later;
        std::thread([&] {
          thunk([] {})().get();
          later = thunk([&] { return gate.get_future().get(); })();
        }).join();
        gate.set_value(i);
        CHECK(later.get() == i);
      }
      rt.drain();
      CHECK(rt.stats().fibers_alive() == 0);
    });
  }

  TEST_CASE("the end of a runtime waits for calls on other threads, and for what becomes of them") {
    std::atomic<bool> inside{false}, go{false}, ended{false};
    std::thread caller;
    {
      runtime rt({.workers = 1});
      caller = std::thread([&] {
        auto f = thunk([&] {
          inside = true;
          while (!go) std::this_thread::yield();
          this_fiber::sleep_for(1ms);  // the runtime's from here on
          ended = true;
        })();
        f.get();
      });
      while (!inside) std::this_thread::yield();
      std::thread([&] { go = true; }).detach();
    }
    CHECK(ended);
    caller.join();
  }

  TEST_CASE("in the scheduler context") {
    with_workers([](runtime& rt) {
      struct callback : detail::worker_task {
        callback() noexcept {
          run = [](detail::worker_task& t) noexcept {
            auto& self = static_cast<callback&>(t);
            self.at_once = thunk([] { return this_fiber::is_fiber(); })();
            self.later = thunk([g = &self.gate] {
              g->get_future().get();
              return this_fiber::is_fiber();
            })();
            self.on_fiber = this_fiber::is_fiber();
            self.done.release();
          };
        }
        future<bool> at_once, later;
        promise<void> gate;
        bool on_fiber = true;
        tendril::counting_semaphore<> done{0};
      };
      callback c;
      rt.run([&] {
        detail::post_to_worker(0, c);
        c.done.acquire();
      });
      CHECK(c.at_once.is_ready());
      CHECK(c.at_once.get());
      CHECK(!c.on_fiber);
      c.gate.set_value();
      CHECK(c.later.get());
    });
  }

  TEST_CASE("a pinned fiber starts one that is not") {
    with_workers([](runtime& rt) {
      promise<void> gate;
      long before = 0, after = 1;
      const auto parks = rt.stats().pinned_parks;
      auto later = rt.run([&] {
        detail::pin_thread();
        before = thread_number();
        auto f = thunk([&] {
          const unsigned pins = detail::thread_pins();
          gate.get_future().get();
          return pins;
        })();
        after = thread_number();
        detail::unpin_thread();
        return f;
      });
      gate.set_value();
      CHECK(later.get() == 0);
      CHECK(before == after);
      CHECK(rt.stats().pinned_parks == parks);
    });
  }

  TEST_CASE("one that is pinned itself blocks its thread, and its caller with it") {
    with_workers([](runtime& rt) {
      const bool ready = rt.run([] {
        promise<void> gate;
        auto f = thunk([&] {
          detail::pin_thread();
          tendril::spawn([&] { gate.set_value(); });
          gate.get_future().get();
          detail::unpin_thread();
        })();
        return f.is_ready();
      });
      CHECK(ready);
    });
  }

  TEST_CASE("one that blocks its thread loses the worker; it and its callers move off in turn") {
    runtime rt({.workers = 1, .on_blocked_worker = [](std::string_view) {}});
    const tendril::test::watchdog dog("orphaned", &rt);
    const std::string seen = rt.run([] {
      std::string order;
      promise<void> gate;
      future<void> inner;
      auto outer = thunk([&] {
        inner = thunk([&] {
          lose_worker();
          order += std::string("orphaned") + std::to_string(this_fiber::worker_index());
          gate.get_future().get();
        })();
        order += std::string(" middle") + std::to_string(this_fiber::worker_index());
        this_fiber::yield();
      })();
      order += std::string(" outer") + std::to_string(this_fiber::worker_index());
      this_fiber::yield();
      order += std::string(" worker") + std::to_string(this_fiber::worker_index());
      outer.get();
      gate.set_value();
      inner.get();
      return order;
    });
    CHECK(seen == "orphaned-1 middle-1 outer-1 worker0");
    rt.drain();
    CHECK(rt.stats().workers_handed_over >= 1);
  }

  TEST_CASE("the caller moves to another worker while it waits") {
    runtime rt({.workers = 2});
    const tendril::test::watchdog dog("migration", &rt);
    const bool right = run_on_own_stack(rt, [] {
      bool good = true;
      for (int i = 0; i != 200; ++i) {
        promise<int> gate;
        auto f = thunk([&](int x) { return x + gate.get_future().get(); })(i);
        for (int k = 0; k != 3; ++k) this_fiber::yield();
        tendril::fiber other([&] { gate.set_value(1); });
        good = f.get() == i + 1 && good;
        other.join();
      }
      return good;
    });
    CHECK(right);
  }

  TEST_CASE("a trace ends at the base of its stack") {
    with_workers({1}, [](runtime& rt) {
      std::array<void*, 64> around{}, inside{};
      std::size_t outer = 0, inner = 0;
      rt.run([&] {
        outer = trace_from_here(around);
        thunk([&] { inner = trace_from_here(inside); })().get();
      });
      CHECK(inner >= 2);
      // The frames of who called are in the first trace and not in the second. Not counted: those that
      // took the traces, one of them a sanitizer's.
      std::size_t common = 0;
      for (std::size_t i = 2; i < outer; ++i)
        common += static_cast<std::size_t>(std::count(
            inside.begin() + 2, inside.begin() + static_cast<std::ptrdiff_t>(inner), around[i]));
      // The start of any stack is the same piece of code, and so is where a segmented one grows.
      const char* const kind = std::getenv("TENDRIL_STACK");
      const bool grows = kind != nullptr && std::string_view(kind) == "segmented";
      CHECK(common <= std::size_t{grows ? 2U : 1U});
    });
  }
}
