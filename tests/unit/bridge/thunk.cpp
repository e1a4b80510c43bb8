// SPDX-License-Identifier: Apache-2.0
//
// What a thunk hands over: values, exceptions, references, what can only be moved, members; whether it waits or
// not, called from fibers and from plain threads.
#include "support/allocations.hpp"
#include "support/errors.hpp"
#include "support/everywhere.hpp"
#include "support/with_workers.hpp"

#include <tendril/await.hpp>
#include <tendril/channel.hpp>
#include <tendril/error.hpp>
#include <tendril/future.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

using tendril::future;
using tendril::thunk;
using tendril::test::error_of;
using tendril::test::everywhere;
using tendril::test::with_workers;
using tendril::this_fiber::yield;

namespace {

std::string text(int n) { return std::to_string(n); }

template <class T>
std::string result_of(future<T> f) {
  try {
    if constexpr (std::is_void_v<T>) {
      f.get();
      return "nothing";
    } else {
      return text(f.get());
    }
  } catch (const std::exception& e) {
    return e.what();
  }
}

/// Makes a call that does not wait, and one that waits until it has returned. call(wait) returns its future.
template <class Call>
std::string both(Call call) {
  const auto state = [](const auto& f) {
    return std::string(f.is_ready() ? "ready " : "pending ");
  };
  auto at_once = call([] {});
  std::string out = state(at_once) + result_of(std::move(at_once)) + ", ";
  tendril::promise<void> gate;
  auto later = call([&gate] { gate.get_future().get(); });
  out += state(later);
  gate.set_value();
  return out + result_of(std::move(later));
}

int twice(int x) { return 2 * x; }
int twice_later(int x) {
  yield();
  return 2 * x;
}

struct counter {
  int value = 0;
  int add(int n) { return value += n; }
  int add_later(int n) {
    yield();
    return value += n;
  }
};

// One operation with two faces, each of which is by default a bridge to the other: a class may override
// either, and callers call either.
class transfer {
 public:
  virtual ~transfer() = default;
  virtual int run(int depth) { return run_async(depth).get(); }
  virtual future<int> run_async(int depth) {
    return thunk(&transfer::run)(static_cast<transfer*>(this), depth);
  }
};
/// A level with the fiber's face.
class plain_level : public transfer {
 public:
  int run(int depth) override {
    if (depth == 0) return 1;
    yield();
    return 1 + run_async(depth - 1).get();
  }
};
/// A level above it, with the future's face; it uses the base's through the other one.
class future_level : public plain_level {
 public:
  future<int> run_async(int depth) override {
    return thunk([this, depth] { return 10 + plain_level::run(depth); })();
  }
};
/// And the fiber's again, on top.
class top_level : public future_level {
 public:
  int run(int depth) override { return 100 + future_level::run_async(depth).get(); }
};

}  // namespace

TEST_SUITE("thunk") {
  TEST_CASE("runs at once, and is ready when it did not wait") {
    everywhere("call 1 after 1 42", [] {
      std::string order;
      auto f = thunk([&](int x) {
        order += "call " + std::to_string(tendril::this_fiber::is_fiber());
        return x + 1;
      })(41);
      return order + " after " + std::to_string(f.is_ready()) + " " + text(f.get());
    });
  }

  TEST_CASE("the caller goes on when it waits, and it when what it waits for comes") {
    everywhere("began returned ended pending 7", [] {
      std::string order;  // each entry happens before the next one's writer goes on
      tendril::promise<int> awaited;
      auto f = thunk([&](future<int> input) {
        order += "began ";
        const int x = input.get();
        order += "ended ";
        return x;
      })(awaited.get_future());
      order += "returned ";
      const std::string state = f.is_ready() ? "ready " : "pending ";
      awaited.set_value(7);
      const int x = f.get();
      return order + state + std::to_string(x);
    });
  }

  TEST_CASE("hands over values, references, nothing, and what can only be moved") {
    everywhere("ready 3, pending 3 | ready nothing, pending nothing | same same | 5 6", [] {
      int referred = 0;
      const auto same = [&](bool later) {
        int& r = thunk([&, later]() -> int& {
                   if (later) yield();
                   return referred;
                 })()
                     .get();
        return std::string(&r == &referred ? "same" : "other");
      };
      auto owned = thunk([](int x, bool later) {
        if (later) yield();
        return std::make_unique<int>(x);
      });
      std::string out = both([](auto wait) { return thunk([wait] { return wait(), 3; })(); });
      out += " | " + both([](auto wait) { return thunk([wait] { wait(); })(); });
      out += " | " + same(false) + " " + same(true);
      return out + " | " + text(*owned(5, false).get()) + " " + text(*owned(6, true).get());
    });
  }

  TEST_CASE("an exception is the future's, thrown before the first wait or after it") {
    everywhere("ready thrown, pending thrown", [] {
      return both([](auto wait) {
        return thunk([wait]() -> int {
          wait();
          throw std::runtime_error("thrown");
        })();
      });
    });
  }

  TEST_CASE("calls functions, members, functors, and once what cannot be copied") {
    everywhere("8 8 | 3 7 | 4 9 | 10 6 11", [] {
      counter c;
      std::string out = text(thunk(twice)(4).get()) + " " + text(thunk(&twice_later)(4).get());
      out += " | " + text(thunk(&counter::add)(&c, 3).get());
      out += " " + text(thunk(&counter::add_later)(std::ref(c), 4).get());
      const std::function<int(int)> functor = [](int x) { return x * x; };
      out += " | " + text(thunk(functor)(2).get()) + " " + text(thunk(std::cref(functor))(3).get());
      auto once = thunk([p = std::make_unique<int>(10)] { return *p; });
      out += " | " + text(std::move(once)().get());
      out += " " + std::to_string(thunk(&std::string::size)(std::string("a copy")).get());
      out += " " + text(thunk(&counter::value)(std::ref(c)).get() + 4);
      return out;
    });
  }

  TEST_CASE("arguments are copied before the caller goes on, unless std::ref says otherwise") {
    everywhere("first second", [] {
      tendril::promise<void> go;
      std::string copied = "first", referred = "first";
      auto f = thunk([&go](const std::string& a, std::string& b) {
        go.get_future().get();
        return a + " " + b;
      })(copied, std::ref(referred));
      copied = referred = "second";
      go.set_value();
      return f.get();
    });
  }

  TEST_CASE("arguments and callable are gone when the future is ready") {
    everywhere("0 0", [] {
      const auto alive = std::make_shared<int>(0);
      std::string out;
      for (const bool later : {false, true}) {
        auto f = thunk([own = alive, later](std::shared_ptr<int>) {
          if (later) yield();
        })(alive);
        f.get();
        out += (out.empty() ? "" : " ") + std::to_string(alive.use_count() - 1);
      }
      return out;
    });
  }

  TEST_CASE("one virtual with a future's and a fiber's override on different levels") {
    everywhere("1 4 | 11 44 | 111 144", [] {
      // transfer::run_async is the bridge to run; future_level's own makes it 10 more a level.
      const auto both = [](transfer&& t) {
        return text(t.run_async(0).get()) + " " + text(thunk(&transfer::run)(&t, 3).get());
      };
      std::string out = both(plain_level());
      {
        future_level t;
        out += " | " + text(t.run_async(0).get()) + " " +
               text(thunk(&transfer::run_async)(&t, 3).get().get());
      }
      {
        top_level t;
        out += " | " + text(t.run(0)) + " " + text(t.run(3));
      }
      return out;
    });
  }

  TEST_CASE("64 levels of thunk in thunk, ready or with a wait at the bottom") {
    everywhere("ready 64, pending 64", [] {
      struct nest {
        static int down(int levels, const std::function<void()>& wait) {
          if (levels != 0) return 1 + thunk(&nest::down)(levels - 1, std::ref(wait)).get();
          wait();
          return 0;
        }
      };
      return both([](std::function<void()> wait) { return thunk(&nest::down)(64, wait); });
    });
  }

  TEST_CASE("64 levels of thunk, awaited, in thunk") {
    everywhere("ready 64, pending 64, ready bottom, pending bottom", [] {
      struct nest {
        static int down(int levels, const std::function<void()>& wait) {
          if (levels == 0) {
            wait();
            return 0;
          }
          auto below = thunk(&nest::down)(levels - 1, std::ref(wait));
          return 1 + tendril::await(std::move(below));
        }
      };
      std::string out =
          both([](std::function<void()> wait) { return thunk(&nest::down)(64, wait); });
      return out + ", " + both([](std::function<void()> wait) {
               return thunk(&nest::down)(64, [wait] {
                 wait();
                 throw std::runtime_error("bottom");
               });
             });
    });
  }

  TEST_CASE("a call that does not wait allocates nothing") {
    with_workers({1}, [](tendril::runtime& rt) {
      const auto calls = [] {
        const auto t = thunk([](int x) { return x + 1; });
        int sum = t(0).get();  // a thread's first call makes its shell
        const std::uint64_t before = tendril::test::allocations();
        for (int i = 0; i != 1000; ++i) sum += t(i).get();
        return std::pair(sum, tendril::test::allocations() - before);
      };
      const auto expected = std::pair(500'501, std::uint64_t{0});
      CHECK(rt.run(calls) == expected);
      CHECK(calls() == expected);
    });
  }

  TEST_CASE("a wait costs one allocation, for the state that is shared") {
    with_workers({1}, [](tendril::runtime& rt) {
      const std::uint64_t allocations = rt.run([] {
        const auto t = thunk([](int x) {
          yield();
          return x;
        });
        int sum = 0;
        for (int i = 0; i != 10; ++i) sum += t(i).get();
        const std::uint64_t before = tendril::test::allocations();
        for (int i = 0; i != 100; ++i) sum += t(i).get();
        return tendril::test::allocations() - before;
      });
      CHECK(allocations == 100);
    });
  }

  TEST_CASE("options: a name, an affinity, a stack of another size") {
    with_workers([](tendril::runtime& rt) {
      const auto look = [](int worker) {
        const auto t = thunk(
            [](bool later) {
              std::array<char, 200 << 10> deep{};
              volatile char* const touched = deep.data();
              touched[0] = 1;
              if (later) yield();
              return std::string(tendril::this_fiber::name()) +
                     std::to_string(later ? tendril::this_fiber::worker_index() : -2);
            },
            {.stack = {.bytes = 512 << 10}, .name = "teller", .affinity = worker});
        return t(false).get() + " " + t(true).get() + " " + t(false).get();
      };
      const int last = static_cast<int>(rt.workers()) - 1;
      const std::string expected = "teller-2 teller" + std::to_string(last) + " teller-2";
      CHECK(rt.run([&] { return look(last); }) == expected);
      CHECK(look(last) == expected);
    });
  }

  TEST_CASE("options that no runtime has are refused, those of this one at the call") {
    CHECK(error_of([] { (void)thunk([] {}, {.affinity = 64}); }) ==
          tendril::make_error_code(tendril::errc::invalid_option));
    CHECK(error_of([] { (void)thunk([] {}, {.stack = {.bytes = std::size_t{1} << 40}}); }) ==
          tendril::make_error_code(tendril::errc::invalid_option));
    with_workers({2}, [](tendril::runtime& rt) {
      const auto call = [] {
        bool ran = false;
        const auto t = thunk([&ran] { ran = true; }, {.affinity = 2});
        const std::error_code e = error_of([&t] { t().get(); });
        return std::pair(e, ran);
      };
      const auto expected =
          std::pair(tendril::make_error_code(tendril::errc::invalid_option), false);
      CHECK(rt.run(call) == expected);
      CHECK(call() == expected);
    });
  }
}
