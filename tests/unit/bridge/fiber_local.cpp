// SPDX-License-Identifier: Apache-2.0
#include "support/errors.hpp"
#include "support/migration.hpp"
#include "support/with_workers.hpp"

#include <tendril/error.hpp>
#include <tendril/fiber_local.hpp>
#include <tendril/future.hpp>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using tendril::fiber_local;
using tendril::test::on_everyone;
using tendril::test::with_workers;

namespace {

/// Appends when it is destroyed.
struct mark {
  mark(std::vector<std::string>& to, std::string text) : log(&to), what(std::move(text)) {}
  mark(const mark&) = delete;
  mark& operator=(const mark&) = delete;
  ~mark() { log->push_back(what); }
  std::vector<std::string>* log;
  std::string what;
};

/// Calls f when it is destroyed.
struct at_end {
  explicit at_end(std::function<void()> what) : f(std::move(what)) {}
  at_end(const at_end&) = delete;
  at_end& operator=(const at_end&) = delete;
  ~at_end() {
    if (f) f();
  }
  std::function<void()> f;
};

/// f on a thread, then on a fiber; each has ended when this returns.
template <class F>
void on_thread_and_fiber(F f) {
  std::thread(f).join();
  tendril::run({.workers = 1}, f);
}

template <class T>
std::vector<T> doubled(std::vector<T> once) {
  const std::vector<T> copy = once;
  once.insert(once.end(), copy.begin(), copy.end());
  return once;
}

}  // namespace

TEST_SUITE("fiber_local") {
  TEST_CASE("each flow makes its own at its first use, and keeps it") {
    with_workers([](tendril::runtime&) {
      std::atomic<int> made{0};
      constexpr int flows = 12;
      std::array<int, flows> got{};
      {
        fiber_local<int> value([&] {
          ++made;
          return 5;
        });
        on_everyone(8, 4, [&](int i) {
          if (value.get_if() != nullptr) return;
          *value += i;
          tendril::this_fiber::yield();
          *value += 100;
          got[static_cast<std::size_t>(i)] = value.get();
        });
      }
      CHECK(made == flows);
      for (int i = 0; i != flows; ++i) CHECK(got[static_cast<std::size_t>(i)] == 105 + i);
    });
  }

  TEST_CASE("starts as T() without a maker") {
    int seen = -1;
    tendril::run({.workers = 1}, [&] {
      const fiber_local<int> n;
      seen = *n;
    });
    CHECK(seen == 0);
  }

  TEST_CASE("is the same variable on whatever thread the fiber runs") {
    tendril::runtime rt({.workers = 2});
    tendril::test::shuttle shuttle(rt);
    const fiber_local<std::string> text;
    bool same = true;
    rt.run([&] {
      std::string* const mine = &text.get();
      for (int i = 0; i != 6; ++i) {
        shuttle.move_on();
        *text += static_cast<char>('a' + i);
        same = same && &text.get() == mine;
      }
      same = same && *mine == "abcdef";
    });
    CHECK(same);
  }

  TEST_CASE("many variables, more than a table begins with, keep their values apart") {
    std::vector<std::unique_ptr<fiber_local<int>>> all;
    for (int i = 0; i != 100; ++i)
      all.push_back(std::make_unique<fiber_local<int>>([i] { return i; }));
    int wrong = 0;
    on_thread_and_fiber([&] {
      for (std::size_t i = 100; i-- != 0;) *(*all[i]) += 1000;
      for (int i = 0; i != 100; ++i)
        if (all[static_cast<std::size_t>(i)]->get() != 1000 + i) ++wrong;
    });
    CHECK(wrong == 0);
  }

  TEST_CASE("values are destroyed newest first, before join returns") {
    std::vector<std::string> log;
    fiber_local<mark> a([&] { return mark(log, "a"); });
    fiber_local<mark> b([&] { return mark(log, "b"); });
    fiber_local<mark> c([&] { return mark(log, "c"); });
    on_thread_and_fiber([&] {
      static_cast<void>(b.get());
      static_cast<void>(c.get());
      static_cast<void>(a.get());
      static_cast<void>(b.get());
      log.emplace_back("body");
    });
    CHECK(log == doubled<std::string>({"body", "a", "c", "b"}));
  }

  TEST_CASE("a maker's own variables are older than what it makes") {
    std::vector<std::string> log;
    fiber_local<mark> inner([&] { return mark(log, "inner"); });
    fiber_local<mark> outer([&] {
      static_cast<void>(inner.get());
      return mark(log, "outer");
    });
    on_thread_and_fiber([&] { static_cast<void>(outer.get()); });
    CHECK(log == doubled<std::string>({"outer", "inner"}));
  }

  TEST_CASE("values are destroyed on the fiber, which may switch then, with its identity") {
    with_workers([](tendril::runtime& rt) {
      tendril::fiber_id id, id_then;
      bool woken = false;
      tendril::promise<void> go;
      auto went = go.get_future();
      fiber_local<at_end> last([&] {
        return at_end([&] {
          id_then = tendril::this_fiber::get_id();
          tendril::this_fiber::yield();
          went.get();
          woken = true;
        });
      });
      rt.run([&] {
        tendril::fiber waits([&] {
          id = tendril::this_fiber::get_id();
          static_cast<void>(last.get());
        });
        tendril::fiber wakes([&] { go.set_value(); });
        waits.join();
        wakes.join();
      });
      CHECK(id == id_then);
      CHECK(woken);
    });
  }

  TEST_CASE("destructors may use other variables: what is there still, and anew what is not") {
    std::vector<std::string> log;
    int older_seen = 0;
    fiber_local<int> older([] { return 1; });
    fiber_local<mark> gone([&] { return mark(log, "gone"); });
    fiber_local<at_end> uses([&] {
      return at_end([&] {
        log.emplace_back("uses");
        older_seen += *older;           // still there
        static_cast<void>(gone.get());  // destroyed already: made again
      });
    });
    on_thread_and_fiber([&] {
      *older = 7;
      static_cast<void>(uses.get());
      static_cast<void>(gone.get());
    });
    CHECK(log == doubled<std::string>({"gone", "uses", "gone"}));
    CHECK(older_seen == 14);
  }

  TEST_CASE("a destructor that uses its own variable some times is destroyed again as often") {
    int left = 0;
    int destroyed = 0;
    fiber_local<at_end>* self = nullptr;
    fiber_local<at_end> again([&] {
      return at_end([&] {
        ++destroyed;
        if (left-- > 0) static_cast<void>(self->get());
      });
    });
    self = &again;
    on_thread_and_fiber([&] {
      left = 5;
      static_cast<void>(again.get());
    });
    CHECK(destroyed == 12);
  }

  TEST_CASE("a maker that throws leaves nothing, and is asked again") {
    int asked = 0;
    std::vector<int> seen;
    fiber_local<int> value([&]() -> int {
      if (++asked % 2 == 1) throw std::runtime_error("not yet");
      return 3;
    });
    on_thread_and_fiber([&] {
      try {
        static_cast<void>(value.get());
      } catch (const std::runtime_error&) {
        seen.push_back(value.get_if() == nullptr ? -1 : -2);
      }
      seen.push_back(*value);
    });
    CHECK(seen == std::vector<int>{-1, 3, -1, 3});
  }

  TEST_CASE("a maker that uses the variable it makes is an error, not a loop") {
    fiber_local<int>* self = nullptr;
    fiber_local<int> value([&] { return **self + 1; });
    self = &value;
    std::vector<std::error_code> seen;
    on_thread_and_fiber([&] {
      try {
        static_cast<void>(value.get());
      } catch (const std::system_error& e) {
        seen.push_back(e.code());
      }
    });
    CHECK(seen == std::vector<std::error_code>(2, tendril::errc::would_deadlock));
  }

  TEST_CASE("reset destroys at once; the next use makes a new one") {
    std::vector<std::string> log;
    int made = 0;
    fiber_local<mark> value([&] { return mark(log, std::to_string(++made)); });
    fiber_local<mark> other([&] { return mark(log, "other"); });
    tendril::run({.workers = 1}, [&] {
      value.reset();
      static_cast<void>(value.get());
      static_cast<void>(other.get());
      value.reset();
      log.emplace_back("reset");
      if (value.get_if() != nullptr) log.emplace_back("!");
      static_cast<void>(value.get());
    });
    CHECK(log == std::vector<std::string>{"1", "reset", "2", "other"});
  }

  TEST_CASE("a variable that takes the place of a destroyed one does not see its values") {
    std::vector<std::string> log;
    std::vector<bool> seen;
    on_thread_and_fiber([&] {
      for (int i = 0; i != 3; ++i) {
        fiber_local<mark> value([&log, i] { return mark(log, std::to_string(i)); });
        seen.push_back(value.get_if() == nullptr);
        seen.push_back(value->what == std::to_string(i));
      }
      log.emplace_back("body");
    });
    CHECK(seen == std::vector<bool>(12, true));
    // What the destroyed variables left goes at the flow's end.
    CHECK(log == doubled<std::string>({"body", "2", "1", "0"}));
  }

  TEST_CASE("an exception that ends the fiber does not keep its values") {
    std::vector<std::string> log;
    fiber_local<mark> value([&] { return mark(log, "value"); });
    tendril::run({.workers = 1}, [&] {
      tendril::fiber f([&] {
        static_cast<void>(value.get());
        throw std::runtime_error("end");
      });
      try {
        f.join();
      } catch (const std::runtime_error&) {
        log.emplace_back("caught");
      }
    });
    CHECK(log == std::vector<std::string>{"value", "caught"});
  }

  TEST_CASE("the handler of unhandled exceptions may use them") {
    std::vector<std::string> log;
    fiber_local<mark> value([&] { return mark(log, "value"); });
    {
      tendril::runtime rt({.workers = 1, .on_unhandled_exception = [&](auto, auto) {
                             static_cast<void>(value.get());
                             log.emplace_back("handler");
                           }});
      rt.spawn([] { throw std::runtime_error("end"); });
    }
    CHECK(log == std::vector<std::string>{"handler", "value"});
  }

  TEST_CASE("a thread_local that is destroyed after the thread's values may use them again") {
    static std::vector<std::string> log;
    static fiber_local<mark> value([] { return mark(log, "value"); });
    struct late {
      ~late() {
        log.emplace_back("late");
        static_cast<void>(value.get());
      }
    };
    std::thread([] {
      static thread_local const late first;  // constructed before, so destroyed after
      static_cast<void>(&first);
      static_cast<void>(value.get());
    }).join();
    CHECK(log == std::vector<std::string>{"value", "late", "value"});
  }

  TEST_CASE("flows that end and begin all the time leave nothing behind") {
    std::atomic<int> alive{0};
    struct counted {
      explicit counted(std::atomic<int>& n) : count(n) { ++count; }
      ~counted() { --count; }
      std::atomic<int>& count;
    };
    with_workers([&](tendril::runtime& rt) {
      fiber_local<std::unique_ptr<counted>> a([&] { return std::make_unique<counted>(alive); });
      fiber_local<std::unique_ptr<counted>> b([&] { return std::make_unique<counted>(alive); });
      std::atomic<int> wrong{0};
      rt.run([&] {
        for (int round = 0; round != 20; ++round) {
          std::vector<tendril::fiber> all;
          for (int i = 0; i != 50; ++i)
            all.emplace_back([&, i] {
              if (i % 2 != 0) static_cast<void>(a.get());
              tendril::this_fiber::yield();
              if (i % 3 != 0) static_cast<void>(b.get());
              if ((a.get_if() != nullptr) != (i % 2 != 0)) ++wrong;
            });
          for (auto& f : all) f.join();
          if (alive != 0) ++wrong;
        }
      });
      CHECK(wrong == 0);
    });
    CHECK(alive == 0);
  }
}
