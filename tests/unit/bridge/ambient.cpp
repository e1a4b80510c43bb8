// SPDX-License-Identifier: Apache-2.0
#include "support/allocations.hpp"
#include "support/migration.hpp"
#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/ambient.hpp>
#include <tendril/future.hpp>
#include <tendril/latch.hpp>
#include <tendril/scope.hpp>
#include <tendril/task.hpp>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

using tendril::ambient;
using tendril::ambient_flow;
using tendril::ambient_mode;
using tendril::ambient_scope;
using tendril::ambient_values;
using tendril::test::on_everyone;
using tendril::test::run_on_own_stack;
using tendril::test::with_workers;

namespace {

/// Runs f on a thread of its own and on a fiber: flows that have no values yet.
template <class F>
void on_fresh_flows(F f) {
  std::thread(f).join();
  tendril::run({.workers = 1}, f);
}

/// Sets the variable in a callee, and tells what the caller sees.
template <ambient_mode Mode>
std::string after_callee(ambient<std::string>& name) {
  name.set("Outer");
  ambient_flow::call<Mode>([&] { name.set("Inner"); });
  return name.get();
}

struct counted {
  explicit counted(std::atomic<int>& n) : alive(&n) { ++*alive; }
  counted(const counted& other) : alive(other.alive) { ++*alive; }
  counted& operator=(const counted&) = delete;
  ~counted() { --*alive; }
  std::atomic<int>* alive;
};

}  // namespace

TEST_SUITE("ambient") {
  TEST_CASE("is the initial value until it is set, and after it is cleared") {
    ambient<std::string> name("nobody");
    std::vector<std::string> seen;
    on_fresh_flows([&] {
      seen.push_back(name.get());
      if (name.get_if() != nullptr) seen.emplace_back("!");
      name.set("somebody");
      seen.push_back(name.get());
      name.clear();
      seen.push_back(name.get());
    });
    CHECK(seen ==
          std::vector<std::string>{"nobody", "somebody", "nobody", "nobody", "somebody", "nobody"});
  }

  TEST_CASE("many variables keep their values apart") {
    bool right = true;
    on_fresh_flows([&] {
      constexpr int n = 40;
      std::vector<std::unique_ptr<ambient<int>>> all;
      for (int i = 0; i != n; ++i) all.push_back(std::make_unique<ambient<int>>(-1));
      for (int i = 0; i < n; i += 2) all[static_cast<std::size_t>(i * 7 % n)]->set(i * 7 % n);
      for (int i = 0; i != n; ++i) {
        const auto& one = *all[static_cast<std::size_t>(i)];
        right = right && one.get() == (i % 2 == 0 ? i : -1);
      }
      for (int i = 0; i < n; i += 4) all[static_cast<std::size_t>(i)]->clear();
      for (int i = 0; i != n; ++i) {
        const auto& one = *all[static_cast<std::size_t>(i)];
        right = right && one.get() == (i % 4 == 2 ? i : -1);
      }
    });
    CHECK(right);
  }

  TEST_CASE("what a callee sets: flow up shows Inner, restore and capture show Outer") {
    ambient<std::string> name;
    std::vector<std::string> seen;
    on_fresh_flows([&] {
      seen.push_back(after_callee<ambient_mode::flow_up>(name));
      seen.push_back(after_callee<ambient_mode::restore>(name));
      seen.push_back(after_callee<ambient_mode::capture>(name));
    });
    CHECK(seen == std::vector<std::string>{"Inner", "Outer", "Outer", "Inner", "Outer", "Outer"});
  }

  TEST_CASE(
      "restoring undoes a first value, a change in place, a clear, and any mixture when nested") {
    ambient<int> a, b;
    std::vector<int> seen;
    on_fresh_flows([&] {
      const auto note = [&] { seen.push_back(a.get() * 10 + b.get()); };
      ambient_flow::restoring([&] { a.set(1); });
      note();  // 0
      a.set(1);
      a.set(2);
      ambient_flow::restoring([&] {
        a.set(3);
        a.set(4);
        ambient_flow::restoring([&] {
          b.set(5);
          note();  // 45
          ambient_flow::restoring([&] { a.clear(); });
          note();  // 45
          a.set(6);
          note();  // 65
        });
        note();  // 40
        ambient_flow::restoring([] {});
        b.set(7);
      });
      note();  // 20
      ambient_flow::restoring([&] {
        a.clear();
        note();  // 0
      });
      note();  // 20
    });
    const std::vector<int> once{0, 45, 45, 65, 40, 20, 0, 20};
    std::vector<int> twice = once;
    twice.insert(twice.end(), once.begin(), once.end());
    CHECK(seen == twice);
  }

  TEST_CASE(
      "both restoring modes restore when an exception leaves the callee, and return what it "
      "returns") {
    ambient<int> a;
    std::vector<int> seen;
    on_fresh_flows([&] {
      a.set(1);
      for (const bool capturing : {false, true}) {
        const auto failing = [&] {
          a.set(2);
          throw std::runtime_error("failed");
        };
        try {
          if (capturing) ambient_flow::capturing(failing);
          else ambient_flow::restoring(failing);
        } catch (const std::runtime_error&) {
          seen.push_back(a.get());
        }
        int x = 0;
        int& r = capturing ? ambient_flow::capturing([&]() -> int& { return x; })
                           : ambient_flow::restoring([&]() -> int& { return x; });
        r = 5;
        seen.push_back(x);
      }
    });
    CHECK(seen == std::vector<int>{1, 5, 1, 5, 1, 5, 1, 5});
  }

  TEST_CASE("children of every kind inherit, and neither side sees the other's changes") {
    with_workers([](tendril::runtime& rt) {
      ambient<int> a(-1);
      std::array<int, 8> seen{};
      a.set(1);  // this thread's
      run_on_own_stack(rt, [&] {
        seen[0] = a.get();
        a.set(2);
        tendril::latch changed(1);
        tendril::fiber first([&] {
          changed.wait();
          seen[1] = a.get();
          a.set(20);
          tendril::fiber([&] { seen[2] = a.get(); }).join();
        });
        tendril::fiber sibling({.name = "sibling"}, [&] {
          changed.wait();
          seen[3] = a.get();
          a.set(30);
        });
        a.set(3);
        changed.count_down();
        auto f = tendril::async([&] { return a.get(); });
        first.join();
        sibling.join();
        seen[4] = f.get();
        const tendril::deadline_scope limit(std::chrono::hours(1));
        tendril::task_scope children;
        children.spawn([&] {
          seen[5] = a.get();
          if (tendril::deadline_scope::current() == std::chrono::steady_clock::time_point::max())
            seen[5] = -2;
        });
        children.join();
        seen[6] = a.get();
      });
      seen[7] = a.get();
      a.clear();
      CHECK(seen == std::array<int, 8>{1, 2, 20, 2, 3, 3, 3, 1});
    });
  }

  TEST_CASE(
      "a child that has a name or is asked for its stop token before it starts inherits, too") {
    tendril::runtime rt({.workers = 1});
    ambient<int> a;
    int seen = 0;
    rt.run([&] {
      a.set(1);
      tendril::fiber child([&] { seen = a.get(); });
      const auto token =
          child.get_stop_token();  // makes the extras, while the child is only queued
      child.join();
      if (token.stop_requested()) seen = -1;
    });
    CHECK(seen == 1);
  }

  TEST_CASE("inheriting takes no allocation") {
    tendril::runtime rt({.workers = 1});
    std::uint64_t with = 0, without = 0;
    rt.run([&] {
      const auto count = [] {
        tendril::fiber([] {}).join();  // warm
        const std::uint64_t before = tendril::test::allocations();
        for (int i = 0; i != 100; ++i) tendril::fiber([] {}).join();
        return tendril::test::allocations() - before;
      };
      without = count();
      ambient<int> a;
      a.set(1);
      with = count();
    });
    CHECK(with == without);
  }

  TEST_CASE("under suppress_flow children and captures get nothing, the flow itself keeps all") {
    ambient<int> a(-1);
    std::vector<int> seen;
    tendril::run({.workers = 2}, [&] {
      a.set(1);
      const auto child = [&] { return tendril::async([&] { return a.get(); }).get(); };
      {
        const tendril::suppress_flow off;
        seen.push_back(child());
        seen.push_back(a.get());
        seen.push_back(ambient_values::capture().empty() ? 1 : 0);
        { const tendril::suppress_flow twice; }
        seen.push_back(child());
        ambient_flow::capturing([&] { a.set(2); });
        seen.push_back(a.get());
      }
      seen.push_back(child());
    });
    CHECK(seen == std::vector<int>{-1, 1, 1, -1, 1, 1});
  }

  TEST_CASE("captured values are put in force elsewhere, and may outlive the flow") {
    ambient<std::string> a("none");
    ambient_values kept;
    std::vector<std::string> seen;
    std::function<std::string()> later;
    std::thread([&] {
      a.set("first");
      kept = ambient_values::capture();
      later = ambient_flow::captured([&] { return a.get(); });
      a.set("second");
    }).join();
    on_fresh_flows([&] {
      a.set("mine");
      kept.run([&] {
        seen.push_back(a.get());
        a.set("changed");
        seen.push_back(a.get());
      });
      seen.push_back(a.get());
      seen.push_back(later());
      auto copy = kept;
      std::move(copy).run([&] {
        kept.restore();
        seen.push_back(a.get());
      });
      seen.push_back(a.get());
      kept.restore();
      seen.push_back(a.get());
      ambient_values().restore();
      seen.push_back(a.get());
    });
    std::vector<std::string> once{"first", "changed", "mine",  "first",
                                  "first", "mine",    "first", "none"};
    std::vector<std::string> twice = once;
    twice.insert(twice.end(), once.begin(), once.end());
    CHECK(seen == twice);
    CHECK(a.get() == "none");
  }

  TEST_CASE("values are destroyed when the last flow that has them ends or sets others") {
    std::atomic<int> alive{0};
    std::vector<int> seen;
    with_workers({2}, [&](tendril::runtime& rt) {
      ambient<std::shared_ptr<counted>> a;
      run_on_own_stack(rt, [&] {
        a.set(std::make_shared<counted>(alive));
        tendril::latch go(1);
        tendril::fiber child([&] { go.wait(); });
        a.clear();
        seen.push_back(alive);  // the child's
        go.count_down();
        child.join();
        seen.push_back(alive);
        {
          const ambient_scope around;
          a.set(std::make_shared<counted>(alive));
          a.set(std::make_shared<counted>(alive));
          seen.push_back(alive);
        }
        seen.push_back(alive);
        a.set(std::make_shared<counted>(alive));
      });
      seen.push_back(alive);
      std::thread([&] { a.set(std::make_shared<counted>(alive)); }).join();
      seen.push_back(alive);
    });
    CHECK(seen == std::vector<int>{1, 0, 1, 0, 0, 0});
  }

  TEST_CASE("a variable's end leaves the values of others, and no later variable sees its") {
    std::atomic<int> alive{0};
    std::vector<int> seen;
    on_fresh_flows([&] {
      ambient<int> stays;
      stays.set(1);
      {
        ambient<counted> goes{counted(alive)};
        goes.set(counted(alive));
      }
      ambient<int> next(7);
      seen.push_back(next.get());
      seen.push_back(stays.get());
    });
    CHECK(seen == std::vector<int>{7, 1, 7, 1});
    CHECK(alive == 0);  // with their flows
  }

  TEST_CASE("eight fibers read 1, set 2, sleep, and read 2 on whatever thread (E10)") {
    with_workers([](tendril::runtime& rt) {
      ambient<int> a;
      std::array<int, 8> before{}, after{};
      rt.run([&] {
        a.set(1);
        tendril::task_scope all;
        for (std::size_t i = 0; i != 8; ++i)
          all.spawn([&, i] {
            before[i] = a.get();
            a.set(2);
            tendril::this_fiber::sleep_for(std::chrono::milliseconds(i % 3));
            after[i] = a.get();
          });
        all.join();
      });
      for (const int x : before) CHECK(x == 1);
      for (const int x : after) CHECK(x == 2);
    });
  }

  TEST_CASE("values, scopes and suppression travel with a fiber that migrates") {
    tendril::runtime rt({.workers = 2});
    tendril::test::shuttle shuttle(rt);
    ambient<int> a;
    std::vector<int> seen;
    rt.run([&] {
      a.set(1);
      for (int i = 0; i != 4; ++i) {
        shuttle.move_on();
        ambient_flow::restoring([&] {
          a.set(10 + i);
          shuttle.move_on();
          seen.push_back(a.get());
          const tendril::suppress_flow off;
          shuttle.move_on();
          if (!ambient_values::capture().empty()) seen.push_back(-1);
        });
        seen.push_back(a.get());
      }
    });
    CHECK(seen == std::vector<int>{10, 1, 11, 1, 12, 1, 13, 1});
  }

  TEST_CASE(
      "a task begins with its starter's values, keeps its own over waits, and gives them back") {
    with_workers({2}, [](tendril::runtime&) {
      std::atomic<int> alive{0};
      std::vector<std::string> seen;
      int starter_sees = 0;
      {
        ambient<std::string> name("nobody");
        ambient<std::shared_ptr<counted>> held;
        tendril::promise<void> first, second;
        const auto body = [&](tendril::future<void> a, tendril::future<void> b) -> tendril::task<> {
          seen.push_back(name.get());
          co_await std::move(a);
          seen.push_back(name.get());  // in the completer's flow, with the starter's values
          name.set("task");
          held.set(std::make_shared<counted>(alive));
          co_await std::move(b);
          seen.push_back(name.get());
        };
        std::optional<tendril::future<void>> done;
        std::thread([&] {  // a flow that ends before its task does
          name.set("starter");
          done = tendril::start(body(first.get_future(), second.get_future()));
          if (name.get() == "starter") ++starter_sees;
        })
            .join();
        std::thread([&] {
          name.set("completer");
          first.set_value();
          if (name.get() == "completer") ++starter_sees;
        }).join();
        tendril::fiber([&] {
          second.set_value();
          if (name.get() == "nobody") ++starter_sees;
        }).join();
        done->get();
      }
      CHECK(seen == std::vector<std::string>{"starter", "starter", "task"});
      CHECK(starter_sees == 3);
      CHECK(alive == 0);
    });
  }

  TEST_CASE("flows that share values set, drop and pass them on at the same time") {
    with_workers({2, 4}, [](tendril::runtime& rt) {
      std::atomic<int> alive{0};
      std::atomic<int> wrong{0};
      {
        ambient<int> a;
        ambient<std::shared_ptr<counted>> b;
        rt.run([&] {
          a.set(0);
          b.set(std::make_shared<counted>(alive));
          tendril::task_scope all;
          for (int i = 1; i != 200; ++i)
            all.spawn([&, i] {
              if (a.get() != 0) ++wrong;
              if (i % 3 == 0) b.set(std::make_shared<counted>(alive));
              a.set(i);
              tendril::fiber child([&, i] {
                if (a.get() != i) ++wrong;
                ambient_flow::restoring([&] { b.clear(); });
                if (b.get() == nullptr) ++wrong;
                a.clear();
              });
              tendril::this_fiber::yield();
              child.join();
              if (a.get() != i) ++wrong;
            });
          all.join();
        });
      }
      CHECK(wrong == 0);
      CHECK(alive == 0);
    });
  }
}
