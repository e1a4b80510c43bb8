// SPDX-License-Identifier: Apache-2.0
//
// Ambient values that a fiber which starts as a call has from its host: lent while the host stands still, kept
// for the fiber once it goes on.
#include "support/everywhere.hpp"

#include <tendril/ambient.hpp>
#include <tendril/await.hpp>
#include <tendril/future.hpp>
#include <tendril/shared_future.hpp>
#include <tendril/task.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

using tendril::ambient;
using tendril::ambient_scope;
using tendril::future;
using tendril::promise;
using tendril::thunk;
using tendril::test::everywhere;

namespace {

/// A value that tells how many of its kind there are.
class counted {
 public:
  counted(std::atomic<int>& alive, std::string text) : alive_(alive), text_(std::move(text)) {
    ++alive_;
  }
  counted(const counted&) = delete;
  counted& operator=(const counted&) = delete;
  ~counted() { --alive_; }
  const std::string& text() const { return text_; }

 private:
  std::atomic<int>& alive_;
  const std::string text_;
};

/// A variable of such values.
class tracked {
 public:
  explicit tracked(std::atomic<int>& alive) : alive_(alive) {}
  void set(std::string text) { value_.set(std::make_shared<counted>(alive_, std::move(text))); }
  void clear() { value_.clear(); }
  std::string get() const {
    const auto now = value_.get();
    return now != nullptr ? now->text() : "none";
  }

 private:
  std::atomic<int>& alive_;
  ambient<std::shared_ptr<counted>> value_;
};

std::string count(const std::atomic<int>& alive) { return std::to_string(alive) + " "; }

/// At its end it sets the variable again, in whichever flow that is.
struct sets_at_end {
  explicit sets_at_end(tracked& v) : to(v) {}
  sets_at_end(const sets_at_end&) = delete;
  sets_at_end& operator=(const sets_at_end&) = delete;
  ~sets_at_end() { to.set("last"); }
  tracked& to;
};

}  // namespace

TEST_SUITE("hot_ambient") {
  TEST_CASE("a call that does not wait gives up nothing of its caller's values") {
    everywhere("a 1 a 1 0 ", [] {
      std::atomic<int> alive{0};
      tracked v(alive);
      v.set("a");
      std::string seen;
      for (int i = 0; i != 3; ++i) seen = thunk([&] { return v.get() + " "; })().get();
      seen += count(alive) + v.get() + " ";
      seen += thunk([&] { return thunk([&] { return count(alive); })().get(); })().get();
      v.clear();
      return seen + count(alive);
    });
  }

  TEST_CASE("what it sets is its own, and goes at its end") {
    // The caller's snapshot is nobody else's: it could be changed in place, were it not lent.
    everywhere("a b 2 a 1 a none 1 a 0 ", [] {
      std::atomic<int> alive{0};
      tracked v(alive);
      v.set("first");
      v.set("a");
      std::string seen;
      thunk([&] {
        seen += v.get() + " ";
        v.set("b");
        seen += v.get() + " " + count(alive);
      })()
          .get();
      seen += v.get() + " " + count(alive);
      thunk([&] {
        seen += v.get() + " ";
        v.clear();
        seen += v.get() + " " + count(alive);
      })()
          .get();
      seen += v.get() + " ";
      v.clear();
      return seen + count(alive);
    });
  }

  TEST_CASE("once it has left its host it keeps them, whatever the host does with its own") {
    everywhere("1 a 0 ", [] {
      std::atomic<int> alive{0};
      tracked v(alive);
      promise<void> gate;
      v.set("a");
      auto later = thunk([&] {
        gate.get_future().get();
        return v.get() + " ";
      })();
      v.clear();
      std::string seen = count(alive);
      gate.set_value();
      seen += later.get();
      return seen + count(alive);
    });
  }

  TEST_CASE("so do the scopes that were open when it left") {
    everywhere("2 a inner a a 0 ", [] {
      std::atomic<int> alive{0};
      std::string seen;
      tracked v(alive);
      promise<void> gate;
      v.set("a");
      auto later = thunk([&] {
        std::string own;
        {
          const ambient_scope outer;
          {
            const ambient_scope inner;
            own += v.get() + " ";
            v.set("inner");
            gate.get_future().get();
            own += v.get() + " ";
          }
          own += v.get() + " ";
        }
        return own + v.get() + " ";
      })();
      v.clear();
      seen += count(alive);  // with the scope's own
      gate.set_value();
      seen += later.get();
      return seen + count(alive);
    });
  }

  TEST_CASE("what host and fiber set after they have parted is each one's own") {
    everywhere("b a c 0 ", [] {
      std::atomic<int> alive{0};
      tracked v(alive);
      promise<void> first, second;
      v.set("a");
      auto later = thunk([&] {
        first.get_future().get();
        std::string seen = v.get() + " ";
        v.set("c");
        second.get_future().get();
        return seen + v.get() + " ";
      })();
      v.set("b");  // in a snapshot of which somebody else has a reference by now
      first.set_value();
      std::string seen = v.get() + " ";
      second.set_value();
      seen += later.get();
      v.clear();
      return seen + count(alive);
    });
  }

  TEST_CASE("they are given back once, however often it waits, and before its future is ready") {
    everywhere("1 a 0 ", [] {
      std::atomic<int> alive{0};
      tracked v(alive);
      v.set("a");
      std::vector<future<void>> many;
      for (int i = 0; i != 50; ++i)
        many.push_back(thunk([&] {
          if (v.get() == "a") tendril::this_fiber::yield();
          if (v.get() == "a") tendril::this_fiber::yield();
        })());
      for (auto& f : many) f.get();
      std::string seen = count(alive) + v.get() + " ";
      promise<void> gate;
      auto last = thunk([&] { gate.get_future().get(); })();
      v.clear();
      gate.set_value();
      last.get();
      return seen + count(alive);
    });
  }

  TEST_CASE("a name, or a stop source that it makes, is beside them") {
    everywhere("a 0 ", [] {
      std::atomic<int> alive{0};
      tracked v(alive);
      promise<void> gate;
      v.set("a");
      const auto body = [&] {
        const std::stop_token token = tendril::this_fiber::get_stop_token();
        gate.get_future().get();
        const std::stop_token again = tendril::this_fiber::get_stop_token();
        return v.get() + (token == again ? " " : " other ");
      };
      auto later = thunk(body, tendril::fiber_options{.name = "named"})();
      v.clear();
      gate.set_value();
      std::string seen = later.get();
      return seen + count(alive);
    });
  }

  TEST_CASE("under suppress_flow it has none") {
    everywhere("none none a", [] {
      std::atomic<int> alive{0};
      tracked v(alive);
      v.set("a");
      std::string seen;
      {
        const tendril::suppress_flow none;
        seen += thunk([&] { return v.get() + " "; })().get();
        auto later = thunk([&] {
          tendril::this_fiber::yield();
          return v.get() + " ";
        })();
        seen += later.get();
      }
      seen += v.get();
      v.clear();
      return seen;
    });
  }

  TEST_CASE("one that starts another hands on what it was lent") {
    everywhere("1 a a 0 ", [] {
      std::atomic<int> alive{0};
      tracked v(alive);
      promise<void> gate;
      auto opened = gate.get_future().share();
      v.set("a");
      future<std::string> inner;
      auto outer = thunk([&] {
        inner = thunk([&] {
          opened.get();
          return v.get() + " ";
        })();
        return opened.get(), v.get() + " ";
      })();
      v.clear();
      std::string seen = count(alive);
      gate.set_value();
      seen += outer.get();
      seen += inner.get();
      return seen + count(alive);
    });
  }

  TEST_CASE("a coroutine that it starts keeps them when it is continued elsewhere") {
    everywhere("1 a a 0 ", [] {
      std::atomic<int> alive{0};
      tracked v(alive);
      promise<void> gate;
      auto opened = gate.get_future().share();
      v.set("a");
      const auto coroutine = [&]() -> tendril::task<std::string> {
        co_await opened;
        co_return v.get() + " ";
      };
      auto later = thunk([&] {
        std::string seen = tendril::await(coroutine());
        return seen + v.get() + " ";
      })();
      v.clear();
      std::string seen = count(alive);
      gate.set_value();
      seen += later.get();
      return seen + count(alive);
    });
  }

  TEST_CASE("the end of a value may set another, which goes, too") {
    everywhere("0 ", [] {
      std::atomic<int> alive{0};
      tracked v(alive);
      ambient<std::shared_ptr<sets_at_end>> last;
      promise<void> gate;
      last.set(std::make_shared<sets_at_end>(v));
      auto later = thunk([&] { gate.get_future().get(); })();
      last.clear();  // the fiber has it
      gate.set_value();
      later.get();
      return count(alive);
    });
  }
}
