// SPDX-License-Identifier: Apache-2.0
//
// tendril::fiber against the interface of std::jthread, and the calling fiber's own affairs.
#include "support/errors.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <system_error>
#include <vector>

namespace {

using tendril::errc;
using tendril::fiber;
using tendril::runtime;
using tendril::test::error_of;
using tendril::test::message_of;
using tendril::test::run_on_own_stack;
using tendril::test::with_workers;
namespace this_fiber = tendril::this_fiber;

void wait_for(const std::atomic<bool>& flag) {
  while (!flag.load()) this_fiber::yield();
}

int twice(int& value) { return value *= 2; }

}  // namespace

TEST_SUITE("fiber") {
  TEST_CASE("arguments are decayed and moved into the fiber") {
    with_workers([](runtime& rt) {
      std::string text;
      int number = 21, moved = 0, by_reference = 0;
      run_on_own_stack(rt, [&] {
        char array[] = "decayed";
        fiber a([&](std::string s) { text = std::move(s); }, array);
        fiber b([&](std::unique_ptr<int> p) { moved = *p; }, std::make_unique<int>(7));
        fiber c(twice, std::ref(number));
        struct object {
          int value;
          void add(int n, int* out) { *out = value + n; }
        } target{40};
        fiber d(&object::add, &target, 2, &by_reference);
        a.join();
        b.join();
        c.join();
        d.join();
      });
      CHECK(text == "decayed");
      CHECK(moved == 7);
      CHECK(number == 42);
      CHECK(by_reference == 42);
    });
  }

  TEST_CASE("a callable of any size, alignment and move-only captures runs and is destroyed once") {
    with_workers([](runtime& rt) {
      const auto counted = std::make_shared<int>(0);
      bool aligned = false;
      int sum = 0;
      rt.run([&] {
        std::array<char, 400> big{};
        big[399] = 3;
        fiber a([big, counted, &sum] { sum += big[399] + (*counted)++; });
        a.join();
        struct alignas(64) wide {
          char bytes[64] = {};
        };
        fiber b([w = wide{}, counted, &aligned] {
          aligned = reinterpret_cast<std::uintptr_t>(&w) % 64 == 0 && *counted == 1;
        });
        b.join();
        fiber c([p = std::make_unique<int>(5), counted, &sum]() mutable { sum += *p; });
        c.join();
      });
      CHECK(aligned);
      CHECK(sum == 8);
      CHECK(counted.use_count() == 1);
    });
  }

  TEST_CASE("a callable that takes a stop_token first gets the fiber's own") {
    with_workers([](runtime& rt) {
      bool stopped = false, same = false;
      int argument = 0;
      run_on_own_stack(rt, [&] {
        std::atomic<bool> started{false};
        fiber f(
            [&](std::stop_token t, int n) {
              argument = n;
              same = t == this_fiber::get_stop_token();
              started = true;
              while (!t.stop_requested()) this_fiber::yield();
              stopped = true;
            },
            9);
        wait_for(started);
        f.request_stop();
        f.join();
      });
      CHECK(argument == 9);
      CHECK(same);
      CHECK(stopped);
    });
  }

  TEST_CASE("join rethrows, also when the fiber ended long before") {
    with_workers([](runtime& rt) {
      std::string early, late;
      rt.run([&] {
        fiber a([] { throw std::runtime_error("early"); });
        while (rt.stats().fibers_finished == 0) this_fiber::yield();
        early = message_of([&] { a.join(); });
        fiber b([] {
          this_fiber::yield();
          throw std::runtime_error("late");
        });
        late = message_of([&] { b.join(); });
        if (a.joinable() || b.joinable()) late = "joinable";
      });
      CHECK(early == "early");
      CHECK(late == "late");
    });
  }

  TEST_CASE("joining what is not joinable, and oneself, is refused") {
    with_workers([](runtime& rt) {
      std::error_code none, twice_joined, self;
      run_on_own_stack(rt, [&] {
        fiber empty;
        none = error_of([&] { empty.join(); });
        fiber f([] {});
        f.join();
        twice_joined = error_of([&] { f.join(); });
        fiber me;
        std::atomic<bool> assigned{false}, tried{false};
        me = fiber([&] {
          wait_for(assigned);
          self = error_of([&] { me.join(); });
          tried = true;
        });
        assigned = true;
        wait_for(tried);  // the handle is one of the two's at a time
        me.join();
      });
      CHECK(none == std::errc::invalid_argument);
      CHECK(twice_joined == std::errc::invalid_argument);
      CHECK(self == errc::would_deadlock);
    });
  }

  TEST_CASE("a thread joins, stops and destroys fibers") {
    with_workers([](runtime&) {
      std::string text;
      fiber a([] { throw std::runtime_error("to a thread"); });
      text = message_of([&] { a.join(); });
      CHECK(text == "to a thread");
      std::atomic<int> ended{0};
      {
        fiber b([&](std::stop_token t) {
          while (!t.stop_requested()) this_fiber::yield();
          ++ended;
        });
      }
      CHECK(ended == 1);
    });
  }

  TEST_CASE("the destructor requests stop, waits, and drops the exception") {
    with_workers([](runtime& rt) {
      bool ended = false;
      run_on_own_stack(rt, [&] {
        std::atomic<bool> started{false};
        {
          fiber f([&] {
            started = true;
            try {
              this_fiber::sleep_for(std::chrono::hours(1));
            } catch (...) {
              ended = true;
              throw;
            }
          });
          wait_for(started);
        }
      });
      CHECK(ended);
    });
  }

  TEST_CASE("move, move assignment and swap") {
    with_workers([](runtime& rt) {
      bool first_ended = false, moved_from = false, swapped = false, same_id = false;
      run_on_own_stack(rt, [&] {
        std::atomic<bool> started{false};
        fiber a([&](std::stop_token t) {
          started = true;
          while (!t.stop_requested()) this_fiber::yield();
          first_ended = true;
        });
        wait_for(started);
        fiber b([] {});
        const fiber::id b_id = b.get_id();
        a = std::move(b);  // stops and joins what a held
        moved_from = first_ended && !b.joinable() && b.get_id() == fiber::id();
        same_id = a.get_id() == b_id;
        fiber empty;
        swap(a, empty);
        swapped = !a.joinable() && empty.get_id() == b_id;
        empty.swap(a);
        swapped = swapped && a.joinable() && !empty.joinable();
        fiber c(std::move(a));
        c.join();
      });
      CHECK(first_ended);
      CHECK(moved_from);
      CHECK(same_id);
      CHECK(swapped);
    });
  }

  TEST_CASE("a cancelled join leaves the fiber joinable") {
    with_workers([](runtime& rt) {
      std::error_code canceled;
      bool joined = false;
      run_on_own_stack(rt, [&] {
        std::atomic<bool> release{false}, waiting{false};
        fiber outer([&] {
          fiber inner([&] { wait_for(release); });
          waiting = true;
          canceled = error_of([&] { inner.join(); });
          release = true;
          {
            fiber rest(std::move(inner));  // joined by its destructor, which nothing cancels
          }
          joined = true;
        });
        wait_for(waiting);
        outer.request_stop();
        outer.join();
      });
      CHECK(canceled == std::errc::operation_canceled);
      CHECK(joined);
    });
  }

  TEST_CASE("ids are unique over fibers and workers, print, hash and compare") {
    with_workers([](runtime& rt) {
      std::set<tendril::fiber_id> ids;
      constexpr std::size_t count = 1000;
      bool consistent = true;
      run_on_own_stack(rt, [&] {
        std::mutex mutex;
        for (std::size_t batch = 0; batch != 10; ++batch) {
          std::vector<fiber> all;
          for (std::size_t i = 0; i != count / 10; ++i)
            all.emplace_back([&] {
              const std::lock_guard hold(mutex);
              ids.insert(this_fiber::get_id());
            });
          for (const fiber& f : all) consistent = consistent && f.get_id().value() != 0;
          for (fiber& f : all) f.join();
        }
      });
      CHECK(ids.size() == count);
      CHECK(consistent);
      std::ostringstream out;
      out << tendril::fiber_id(12);
      CHECK(out.str() == "12");
      CHECK(std::hash<tendril::fiber_id>()(*ids.begin()) ==
            std::hash<tendril::fiber_id>()(*ids.begin()));
      CHECK(this_fiber::get_id() == tendril::fiber_id());
    });
  }

  TEST_CASE("names are kept up to 31 bytes, and are the fiber's own") {
    with_workers([](runtime& rt) {
      std::string seen, cut, none = "unset", recycled = "unset";
      rt.run([&] {
        std::string name = "reader";
        fiber a({.name = name}, [&] { seen = this_fiber::name(); });
        name = "changed";
        a.join();
        fiber b({.name = std::string(100, 'x')}, [&] { cut = this_fiber::name(); });
        b.join();
        fiber c([&] { recycled = this_fiber::name(); });
        c.join();
        none = this_fiber::name();
      });
      CHECK(seen == "reader");
      CHECK(cut == std::string(31, 'x'));
      CHECK(recycled.empty());
      CHECK(none.empty());
      CHECK(this_fiber::name().empty());
    });
  }

  TEST_CASE("on a plain thread this_fiber says so") {
    runtime rt({.workers = 1});
    CHECK_FALSE(this_fiber::is_fiber());
    CHECK(this_fiber::worker_index() == -1);
    CHECK_FALSE(this_fiber::stop_requested());
    CHECK_FALSE(this_fiber::get_stop_token().stop_possible());
    this_fiber::yield();
    CHECK(rt.run([] { return this_fiber::is_fiber() && this_fiber::worker_index() == 0; }));
    CHECK(fiber::hardware_concurrency() >= 1);
  }
}

TEST_SUITE("fiber.detach") {
  TEST_CASE("a detached fiber runs on; its exception goes to the handler") {
    for (const unsigned workers : {1U, 2U}) {
      std::mutex mutex;
      std::vector<std::string> seen;
      {
        runtime rt({.workers = workers,
                    .on_unhandled_exception = [&](std::string_view name, std::exception_ptr e) {
                      const std::lock_guard hold(mutex);
                      seen.push_back(std::string(name) + ": " +
                                     message_of([&] { std::rethrow_exception(e); }));
                    }});
        rt.run([&] {
          fiber before({.name = "before"}, [] {
            this_fiber::yield();
            throw std::runtime_error("one");
          });
          before.detach();
          fiber after({.name = "after"}, [] { throw std::runtime_error("two"); });
          const auto reported = [&] {  // by the handler, on whatever worker it ran
            const std::lock_guard hold(mutex);
            return !seen.empty();
          };
          while (rt.stats().fibers_finished == 0 || !reported()) this_fiber::yield();
          while (rt.stats().fibers_alive() != 1) this_fiber::yield();
          after.detach();
        });
      }
      std::sort(seen.begin(), seen.end());
      CHECK(seen == std::vector<std::string>{"after: two", "before: one"});
    }
  }

  TEST_CASE(
      "after its end, with an exception, in the second of two runtimes") {  // went to the first's handler
    std::atomic<int> first{0}, second{0};
    {
      runtime one(
          {.workers = 1,
           .on_unhandled_exception = [&](std::string_view, std::exception_ptr) { ++first; }});
      runtime two(
          {.workers = 1,
           .on_unhandled_exception = [&](std::string_view, std::exception_ptr) { ++second; }});
      two.run([&] {
        fiber f([] { throw std::runtime_error("x"); });
        while (two.stats().fibers_finished == 0) this_fiber::yield();
        f.detach();
      });
    }
    CHECK(first == 0);
    CHECK(second == 1);
  }

  TEST_CASE("after an end by a stop request counts as a normal end") {
    std::atomic<int> unhandled{0};
    {
      runtime rt(
          {.workers = 1,
           .on_unhandled_exception = [&](std::string_view, std::exception_ptr) { ++unhandled; }});
      rt.run([&] {
        fiber f([] { this_fiber::sleep_for(std::chrono::hours(1)); });
        this_fiber::yield();
        f.request_stop();
        while (rt.stats().fibers_finished == 0) this_fiber::yield();
        f.detach();
      });
    }
    CHECK(unhandled == 0);
  }

  TEST_CASE("detaching what is not joinable is refused") {
    fiber f;
    CHECK(error_of([&] { f.detach(); }) == std::errc::invalid_argument);
  }
}

TEST_SUITE("fiber.affinity") {
  TEST_CASE("a pinned fiber is always on its worker") {
    runtime rt({.workers = 3});
    std::array<int, 3> wrong{};
    rt.run([&] {
      std::vector<fiber> all;
      for (int w = 0; w != 3; ++w)
        for (int copies = 0; copies != 4; ++copies)
          all.emplace_back(tendril::fiber_options{.affinity = w}, [&, w] {
            for (int round = 0; round != 30; ++round) {
              if (this_fiber::worker_index() != w) ++wrong[static_cast<std::size_t>(w)];
              if (round % 3 == 0) this_fiber::sleep_for(std::chrono::microseconds(10));
              else if (round % 3 == 1) this_fiber::yield();
              else fiber([] { this_fiber::yield(); }).join();
            }
          });
      for (fiber& f : all) f.join();
    });
    CHECK(wrong == std::array<int, 3>{});
  }

  TEST_CASE("a worker that does not exist is refused with its number") {
    runtime rt({.workers = 2});
    std::string too_large, far_too_large, negative;
    rt.run([&] {
      too_large = message_of([] { fiber f({.affinity = 2}, [] {}); });
      far_too_large = message_of([] { tendril::spawn({.affinity = 1000}, [] {}); });
      negative = message_of([] { fiber f({.affinity = -7}, [] {}); });
    });
    CHECK(too_large.find("affinity is 2; this runtime has 2 workers") != std::string::npos);
    CHECK(far_too_large.find("1000") != std::string::npos);
    CHECK(negative.find("-7") != std::string::npos);
  }
}
