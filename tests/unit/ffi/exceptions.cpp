// SPDX-License-Identifier: Apache-2.0
//
// Exceptions that cross from the native stack to the fiber's: thrown by foreign code, and by callbacks
// through foreign code.
#include "foreign.hpp"
#include "places.hpp"

#include <tendril/ffi.hpp>

#include <doctest/doctest.h>

#include <exception>
#include <string>
#include <vector>

namespace {

using namespace tendril::test;
using tendril::native_call;

/// Records in each place; compares on the test's thread. The limit word must be the caller's again.
template <class F>
void gives(const std::vector<std::string>& expected, int calls, F f) {
  std::vector<std::string> got;
  std::uintptr_t before = 0;
  std::uintptr_t after = 1;
  int uncaught = -1;
  everywhere(
      [&] {
        got.clear();
        before = limit_word_now();
        f(got);
        after = limit_word_now();
        uncaught = std::uncaught_exceptions();
      },
      [&](const std::string& place) {
        CAPTURE(place);
        CHECK(got == expected);
        CHECK(before == after);
        CHECK(uncaught == 0);
        CHECK(foreign_calls.load() == calls);
        CHECK(misplaced_calls.load() == 0);
      });
}

template <class F>
std::string caught(F f) {
  const std::uintptr_t before = limit_word_now();
  std::string result = "nothing";
  try {
    f();
  } catch (const foreign_error& e) {
    result = e.what();
    if (limit_word_now() != before) result += ", but the limit is another's";
  }
  return result;
}

struct tower {
  int left;
  int number;
  int destroyed = 0;
  int wrong = 0;

  struct level {
    tower& t;
    std::uintptr_t limit = limit_word_now();
    ~level() {
      ++t.destroyed;
      // Cleanups run with the limit of the frame that they belong to.
      if (limit_word_now() != limit) ++t.wrong;
      if (std::uncaught_exceptions() != 1) ++t.wrong;
    }
  };

  /// Foreign function and callback in turns; the innermost throws.
  static void descend(void* p) {
    auto& t = *static_cast<tower*>(p);
    const level here{t};
    if (t.left-- == 0) native_call(foreign_throw, t.number);
    native_call(foreign_unwind, &descend, p, t.destroyed);
  }
};

/// Each level catches what comes from below and throws its own.
struct translator {
  int left;
  int wrong = 0;

  static void descend(void* p) {
    auto& t = *static_cast<translator*>(p);
    const int mine = t.left--;
    const std::uintptr_t limit = limit_word_now();
    int ignored = 0;
    if (mine == 0) throw foreign_error(0);
    try {
      native_call(foreign_unwind, &descend, p, ignored);
    } catch (const foreign_error& e) {
      if (e.number != mine - 1 || limit_word_now() != limit) ++t.wrong;
      native_call(foreign_throw, mine);
    }
  }
};

}  // namespace

TEST_SUITE("ffi.exceptions") {
  TEST_CASE("of the foreign function reach the caller") {
    gives({"foreign 1", "foreign 2", "foreign 3"}, 3, [](std::vector<std::string>& got) {
      got.push_back(caught([] { native_call(foreign_throw, 1); }));
      got.push_back(caught([] { native_call<foreign_throw>(2); }));
      got.push_back(caught([] { native_call([] { foreign_throw(3); }); }));
    });
  }

  TEST_CASE("of a callback pass through foreign frames, at each depth") {
    for (const int depth : {0, 1, 2, 8, 20}) {
      CAPTURE(depth);
      gives({"foreign 7", std::to_string(2 * depth + 1), "0"}, depth + 1,
            [depth](std::vector<std::string>& got) {
              tower t{depth, 7};
              got.push_back(caught([&] { tower::descend(&t); }));
              got.push_back(std::to_string(t.destroyed));
              got.push_back(std::to_string(t.wrong));
            });
    }
  }

  TEST_CASE("are caught and replaced at each depth") {
    for (const int depth : {1, 2, 8, 20}) {
      CAPTURE(depth);
      gives({"foreign " + std::to_string(depth), "0"}, 2 * depth,
            [depth](std::vector<std::string>& got) {
              translator t{depth};
              got.push_back(caught([&] { translator::descend(&t); }));
              got.push_back(std::to_string(t.wrong));
            });
    }
  }

  TEST_CASE("leave the caller's locals alone, over-aligned ones too") {
    // Frames that are aligned when they are entered address their locals in a way of their own.
    gives({"foreign 100", "4950"}, 100, [](std::vector<std::string>& got) {
      alignas(64) volatile int first[16] = {};
      alignas(32) volatile int sums[16] = {};
      int thrown = 0;
      for (int i = 1; i <= 100; ++i) {
        first[i % 16] = i;
        try {
          native_call(foreign_throw, i);
        } catch (const foreign_error& e) {
          thrown += e.number == i && first[i % 16] == i ? 1 : 1000;
          sums[i % 16] = sums[i % 16] + i - 1;
        }
      }
      int sum = 0;
      for (const volatile int& s : sums) sum += s;
      got.push_back("foreign " + std::to_string(thrown));
      got.push_back(std::to_string(sum));
    });
  }

  TEST_CASE("that foreign code catches stay there") {
    gives({"-5", "12"}, 3, [](std::vector<std::string>& got) {
      const auto throws = +[](void*) -> int {
        native_call(foreign_throw, 5);
        return 0;
      };
      const auto returns = +[](void*) -> int { return 12; };
      got.push_back(std::to_string(native_call(foreign_catch, throws, nullptr)));
      got.push_back(std::to_string(native_call(foreign_catch, returns, nullptr)));
    });
  }

  TEST_CASE("a native call in a catch block and in a destructor leaves the exception alone") {
    gives({"5", "foreign 1", "11", "foreign 2"}, 5, [](std::vector<std::string>& got) {
      try {
        native_call(foreign_throw, 1);
      } catch (...) {
        got.push_back(std::to_string(native_call(foreign_add, 2, 3)));
        got.push_back(caught([] { throw; }));
        caught([] { native_call(foreign_throw, 9); });
      }
      struct at_end {
        std::vector<std::string>& got;
        ~at_end() {
          got.push_back(
              std::to_string(native_call(foreign_add, 5, 5) + std::uncaught_exceptions()));
          caught([] { native_call([] { throw foreign_error(8); }); });
        }
      };
      got.push_back(caught([&] {
        const at_end guard{got};
        native_call(foreign_throw, 2);
      }));
    });
  }
}
