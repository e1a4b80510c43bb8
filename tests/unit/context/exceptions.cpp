// SPDX-License-Identifier: Apache-2.0
//
// Exceptions of fibers that park while they handle or propagate one. The C++ runtime keeps the caught
// exceptions and the count of uncaught ones per thread; here they must be per fiber.
#include "support/migration.hpp"
#include "support/with_workers.hpp"

#include <doctest/doctest.h>

#include <array>
#include <atomic>
#include <exception>
#include <stdexcept>
#include <string>

namespace {

using tendril::fiber;
using tendril::runtime;
using tendril::test::shuttle;
using tendril::test::with_workers;
namespace this_fiber = tendril::this_fiber;

std::string message_of(const std::exception_ptr& e) {
  if (!e) return "none";
  try {
    std::rethrow_exception(e);
  } catch (const std::exception& x) {
    return x.what();
  } catch (...) {
    return "unknown";
  }
}

/// Two fibers take turns: each runs a step, then lets the other run its next one.
class turns {
 public:
  void wait_for(int turn) noexcept {
    while (turn_.load() != turn) this_fiber::yield();
  }
  void pass() noexcept { turn_.fetch_add(1); }

 private:
  std::atomic<int> turn_{0};
};

/// Calls f when an exception, or the end of its block, destroys it.
template <class F>
struct at_exit {
  F f;
  ~at_exit() { f(); }
};
template <class F>
at_exit(F) -> at_exit<F>;

}  // namespace

TEST_SUITE("context.exceptions") {
  TEST_CASE("a fiber parks in a catch block and rethrows, while another does the same") {
    with_workers([](runtime& rt) {
      std::array<std::string, 2> current, caught;
      std::array<int, 2> uncaught{-1, -1};
      rt.run([&] {
        turns t;
        const auto body = [&](std::size_t me, const char* text) {
          const int first = static_cast<int>(me);
          t.wait_for(first);
          try {
            try {
              throw std::runtime_error(text);
            } catch (...) {
              t.pass();
              t.wait_for(first + 2);  // the other has thrown and caught meanwhile, and has not left
              current[me] = message_of(std::current_exception());
              uncaught[me] = std::uncaught_exceptions();
              t.pass();
              t.wait_for(first + 4);
              throw;
            }
          } catch (const std::exception& e) {
            caught[me] = e.what();
          }
          t.pass();
        };
        fiber a([&] { body(0, "of a"); });
        fiber b([&] { body(1, "of b"); });
        a.join();
        b.join();
      });
      CHECK(current[0] == "of a");
      CHECK(current[1] == "of b");
      CHECK(uncaught == std::array<int, 2>{0, 0});
      CHECK(caught[0] == "of a");
      CHECK(caught[1] == "of b");
    });
  }

  TEST_CASE("a fiber rethrows on another worker than the one it caught on") {
    runtime rt({.workers = 2});
    shuttle s(rt);
    std::string current, caught, leftover;
    int from = -1, to = -1;
    rt.run([&] {
      for (int round = 0; round != 100; ++round) {
        try {
          try {
            throw std::runtime_error("travels");
          } catch (const std::exception&) {
            from = this_fiber::worker_index();
            s.move_on();
            to = this_fiber::worker_index();
            current = message_of(std::current_exception());
            throw;
          }
        } catch (const std::exception& e) {
          caught = e.what();
        }
        leftover = message_of(std::current_exception());
        if (current != "travels" || caught != "travels" || leftover != "none" || from == to) break;
      }
    });
    CHECK(from != to);
    CHECK(current == "travels");
    CHECK(caught == "travels");
    CHECK(leftover == "none");
  }

  TEST_CASE("the worker that is left behind keeps no trace of the exception") {
    runtime rt({.workers = 2});
    shuttle s(rt);
    std::string seen = "not run";
    int uncaught = -1;
    rt.run([&] {
      s.move_to(0);
      try {
        throw std::runtime_error("left behind?");
      } catch (...) {
        s.move_to(1);
        fiber other({.affinity = 0}, [&] {
          seen = message_of(std::current_exception());
          uncaught = std::uncaught_exceptions();
        });
        other.join();
      }
    });
    CHECK(seen == "none");
    CHECK(uncaught == 0);
  }

  TEST_CASE("a fiber that starts while its starter handles an exception starts without one") {
    with_workers([](runtime& rt) {
      std::string seen = "not run", mine;
      int uncaught = -1;
      rt.run([&] {
        try {
          throw std::runtime_error("the starter's");
        } catch (...) {
          fiber child([&] {
            seen = message_of(std::current_exception());
            uncaught = std::uncaught_exceptions();
            try {
              throw std::logic_error("the child's");
            } catch (...) {
              this_fiber::yield();
            }
          });
          child.join();
          mine = message_of(std::current_exception());
        }
      });
      CHECK(seen == "none");
      CHECK(uncaught == 0);
      CHECK(mine == "the starter's");
    });
  }

  TEST_CASE("uncaught_exceptions is right in destructors that park during unwinding") {
    with_workers([](runtime& rt) {
      constexpr int fibers = 8;
      std::array<int, fibers> before{}, after{}, outside{};
      std::array<std::string, fibers> caught;
      rt.run([&] {
        std::array<fiber, fibers> all;
        for (std::size_t i = 0; i != fibers; ++i)
          all[i] = fiber([&, i] {
            for (int round = 0; round != 20; ++round) {
              try {
                at_exit park{[&] {
                  before[i] = std::uncaught_exceptions();
                  for (std::size_t n = 0; n != i + 1; ++n) this_fiber::yield();
                  after[i] = std::uncaught_exceptions();
                }};
                outside[i] = std::uncaught_exceptions();
                // Every other fiber leaves its block without an exception, at the same time.
                if (i % 2 == 0) throw std::runtime_error(std::to_string(i));
                caught[i] = "nothing";
              } catch (const std::exception& e) {
                caught[i] = e.what();
              }
              if (before[i] != after[i]) return;
            }
          });
        for (fiber& one : all) one.join();
      });
      for (std::size_t i = 0; i != fibers; ++i) {
        const int expected = i % 2 == 0 ? 1 : 0;
        CHECK(before[i] == expected);
        CHECK(after[i] == expected);
        CHECK(outside[i] == 0);
        CHECK(caught[i] == (i % 2 == 0 ? std::to_string(i) : "nothing"));
      }
    });
  }

  TEST_CASE("a destructor migrates in the middle of unwinding") {
    runtime rt({.workers = 2});
    shuttle s(rt);
    int before = -1, after = -1, after_inner = -1, finally = -1;
    std::string inner, outer;
    rt.run([&] {
      try {
        at_exit travel{[&] {
          before = std::uncaught_exceptions();
          s.move_on();
          after = std::uncaught_exceptions();
          try {  // a second exception while the first is in flight, across another move
            at_exit again{[&] { s.move_on(); }};
            throw std::logic_error("inner");
          } catch (const std::exception& e) {
            inner = e.what();
          }
          after_inner = std::uncaught_exceptions();
        }};
        throw std::runtime_error("outer");
      } catch (const std::exception& e) {
        outer = e.what();
      } finally = std::uncaught_exceptions();
    });
    CHECK(before == 1);
    CHECK(after == 1);
    CHECK(after_inner == 1);
    CHECK(finally == 0);
    CHECK(inner == "inner");
    CHECK(outer == "outer");
  }

  TEST_CASE("nested exceptions keep their order across parks") {
    with_workers([](runtime& rt) {
      constexpr int fibers = 4;
      std::array<std::string, fibers> order;
      rt.run([&] {
        std::array<fiber, fibers> all;
        for (std::size_t i = 0; i != fibers; ++i)
          all[i] = fiber([&, i] {
            std::string text = std::to_string(i);
            try {
              throw std::runtime_error(text + "a");
            } catch (...) {
              this_fiber::yield();
              try {
                std::throw_with_nested(std::logic_error(text + "b"));
              } catch (const std::exception& b) {
                this_fiber::yield();
                order[i] += b.what();
                try {
                  std::rethrow_if_nested(b);
                } catch (const std::exception& a) {
                  this_fiber::yield();
                  order[i] += a.what();
                }
                this_fiber::yield();
                order[i] += message_of(std::current_exception());
              }
              this_fiber::yield();
              order[i] += message_of(std::current_exception());
            }
            order[i] += message_of(std::current_exception());
          });
        for (fiber& one : all) one.join();
      });
      for (std::size_t i = 0; i != fibers; ++i) {
        const std::string n = std::to_string(i);
        CHECK(order[i] == n + "b" + n + "a" + n + "b" + n + "a" + "none");
      }
    });
  }

  TEST_CASE("an exception passes through deep frames with destructors and reaches join") {
    with_workers([](runtime& rt) {
      int destroyed = 0;
      std::string caught;
      rt.run([&] {
        struct recursion {
          static void down(int depth, int& count) {
            at_exit note{[&] {
              ++count;
              if (count % 16 == 0) this_fiber::yield();
            }};
            if (depth == 0) throw std::out_of_range("the bottom");
            down(depth - 1, count);
          }
        };
        fiber f([&] { recursion::down(63, destroyed); });
        try {
          f.join();
        } catch (const std::out_of_range& e) {
          caught = e.what();
        }
      });
      CHECK(destroyed == 64);
      CHECK(caught == "the bottom");
    });
  }
}
