// SPDX-License-Identifier: Apache-2.0
//
// What native_call may be given, beside signatures: everything std::invoke takes, functions with variable
// arguments, callbacks that call again; and what the caller finds afterwards: errno, its limit word, the
// state of the processor.
#include "foreign.hpp"
#include "places.hpp"

#ifdef TENDRIL_SPLIT_CODE
#include "platform/split_stack.hpp"
#endif

#include <tendril/ffi.hpp>

#include <doctest/doctest.h>

#include <cerrno>
#include <cfenv>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace tendril::test;
using tendril::native_call;
using tendril::native_call_noexcept;

struct account {
  int balance = 10;
  int add(int n) {
    note_foreign_call();
    return balance += n;
  }
  int get() const noexcept {
    note_foreign_call();
    return balance;
  }
  int&& take() && noexcept {
    note_foreign_call();
    return std::move(balance);
  }
};

struct overloaded {
  int operator()(int&) const { return 1; }
  int operator()(const int&) const { return 2; }
  int operator()(int&&) const noexcept { return 3; }
};

struct to_pointer {
  std::string text;
  operator const char*() const { return text.c_str(); }
};

constexpr int twice(int x) { return 2 * x; }
static_assert(native_call(twice, 4) == 8);
static_assert(native_call_noexcept<twice>(4) == 8);
static_assert(!noexcept(native_call(foreign_add, 1, 2)));
static_assert(noexcept(native_call(foreign_add_noexcept, 1, 2)));
static_assert(noexcept(native_call<foreign_add_noexcept>(1, 2)));
static_assert(noexcept(native_call_noexcept(foreign_add, 1, 2)));
static_assert(noexcept(native_call(overloaded(), 1)));
static_assert(
    std::is_same_v<decltype(native_call(&account::balance, std::declval<account&>())), int&>);
static_assert(std::is_same_v<decltype(native_call(&account::take, account())), int&&>);
static_assert(!std::is_invocable_v<decltype([](auto f) -> decltype(native_call(f, 1)) {}),
                                   int (*)(int, int)>);

/// Records values in a place, which are compared on the test's thread with what each place must give.
template <class F>
void gives(std::vector<int> expected, int calls, F f) {
  std::vector<int> got;
  std::uintptr_t before = 0;
  std::uintptr_t after = 1;
  everywhere(
      [&] {
        got.clear();
        before = limit_word_now();
        f(got);
        after = limit_word_now();
      },
      [&](const std::string& place) {
        CAPTURE(place);
        CHECK(got == expected);
        CHECK(before == after);
        CHECK(foreign_calls.load() == calls);
        CHECK(misplaced_calls.load() == 0);
      });
}

/// Walks down through foreign code and callbacks: level calls the foreign function, which calls the
/// next level.
struct descent {
  int left;
  int reached = 0;
  std::uintptr_t limits_wrong = 0;

  static int step(void* p) {
    auto& d = *static_cast<descent*>(p);
    if (on_native_stack() != in_third_place()) ++d.limits_wrong;
    ++d.reached;
    if (d.left-- == 0) return 1;
    const std::uintptr_t before = limit_word_now();
    const int n = (d.left % 2) == 0 ? native_call(foreign_call_back, &step, p)
                                    : native_call([&] { return foreign_call_back(&step, p); });
    if (limit_word_now() != before) ++d.limits_wrong;
    return n;
  }
};

#ifdef TENDRIL_SPLIT_CODE
[[gnu::noinline]] int known_when_compiling(int a) { return native_call<foreign_add>(a, 1) + 1; }
[[gnu::noinline]] int promised(int a) { return native_call_noexcept<foreign_add>(a, 1) + 1; }
[[gnu::noinline]] int in_a_closure(int a) {
  return native_call([a] { return foreign_add(a, 1); }) + 1;
}
[[gnu::noinline]] int called_plainly(int a) { return foreign_add(a, 1) + 1; }

template <class F>
bool adjusted(F* f) {
  return tendril::platform::prologue_was_adjusted(reinterpret_cast<const void*>(f));
}
#endif

}  // namespace

TEST_SUITE("ffi.calls") {
#ifdef TENDRIL_SPLIT_CODE
  TEST_CASE("the linker leaves functions alone that make native calls") {
    CHECK(adjusted(&called_plainly));
    CHECK_FALSE(adjusted(&known_when_compiling));
    CHECK_FALSE(adjusted(&promised));
    CHECK_FALSE(adjusted(&in_a_closure));
    CHECK(known_when_compiling(1) + promised(1) + in_a_closure(1) == 9);
  }
#endif

  TEST_CASE("functions, by every form") {
    gives({3, 5, 7, 9, 11, 13, 15, 17}, 8, [](std::vector<int>& got) {
      int (*const volatile f)(int, int) = foreign_add;
      int (*const volatile g)(int, int) noexcept = foreign_add_noexcept;
      got = {native_call(foreign_add, 1, 2),
             native_call<foreign_add>(2, 3),
             native_call_noexcept(foreign_add, 3, 4),
             native_call_noexcept<foreign_add>(4, 5),
             native_call(g, 5, 6),
             native_call(f, 6, 7),
             native_call<foreign_add_noexcept>(7, 8),
             native_call(*f, 8, 9)};
    });
  }

  TEST_CASE("closures, members and function objects") {
    gives({7, 7, 12, 12, 12, 14, 12, 1, 2, 3, 6}, 7, [](std::vector<int>& got) {
      int base = 3;
      got.push_back(native_call([&base](int n) { return foreign_add(base, n); }, 4));
      got.push_back(
          native_call([&base](int n) noexcept { return foreign_add_noexcept(base, n); }, 4));
      account a;
      got.push_back(native_call(&account::add, a, 2));
      got.push_back(native_call<&account::get>(a));
      got.push_back(native_call(&account::get, &a));
      native_call(&account::balance, a) = 14;
      got.push_back(a.balance);
      a.balance = 12;
      got.push_back(native_call(&account::take, std::move(a)));
      const int constant = 1;
      int variable = 1;
      got.push_back(native_call(overloaded(), variable));
      got.push_back(native_call(overloaded(), constant));
      got.push_back(native_call(overloaded(), 1));
      std::function<int(int)> f = [](int n) { return foreign_add(n, n); };
      got.push_back(native_call(f, 3));
    });
  }

  TEST_CASE("move-only arguments, targets and results") {
    gives({5, 1, 6}, 0, [](std::vector<int>& got) {
      auto p = std::make_unique<int>(5);
      auto q = native_call([](std::unique_ptr<int> x) { return x; }, std::move(p));
      got.push_back(*q);
      got.push_back(p == nullptr ? 1 : 0);
      auto once = [owned = std::make_unique<int>(6)]() mutable { return std::move(owned); };
      got.push_back(*native_call(std::move(once)));
    });
  }

  TEST_CASE("arguments that are converted live until the call is over") {
    gives({4, 5, 3}, 0, [](std::vector<int>& got) {
      const auto length = +[](const std::string& s) { return static_cast<int>(s.size()); };
      got.push_back(native_call(length, "four"));
      const auto pointed = +[](const char* s) noexcept { return s[0] - '0'; };
      got.push_back(native_call(pointed, to_pointer{"5 in a string too long to be kept inline"}));
      const auto referred = +[](const int& n) noexcept { return n; };
      got.push_back(native_call(referred, 3.9));
    });
  }

  TEST_CASE("functions with variable arguments") {
    for (const bool promise : {false, true}) {
      CAPTURE(promise);
      std::string text;
      everywhere(
          [&] {
            char buffer[200];
            const float single = 1.5F;
            const short small = -7;
            const char* const word = "word";
            const auto print = [&](auto f, auto... more) {
              text +=
                  std::to_string(promise ? native_call_noexcept(f, buffer, sizeof buffer, more...)
                                         : native_call(f, buffer, sizeof buffer, more...)) +
                  ":" + buffer + ";";
            };
            text.clear();
            const auto print_all = [&](auto f) {
              print(f, "none");
              print(f, "%d %s %g", small, word, single);
              print(f, "%c%c %ld", 'a', 'b', 1234567890123L);
              print(f, "%g %g %g %g %g %g %g %g", 1., 2., 3., 4., 5., 6., 7., 8.);
              print(f, "%g %g %g %g %g %g %g %g %g", 1., 2., 3., 4., 5., 6., 7., 8., 9.);
              print(f, "%d %d %d %d %d %g", 1, 2, 3, 4, 5, 6.5);
              print(f, "%Lg %p", 2.5L, nullptr);
            };
            print_all(&foreign_print);
            print_all(&foreign_print_noexcept);
          },
          [&](const std::string& place) {
            CAPTURE(place);
            const std::string once =
                "4:none;11:-7 word 1.5;16:ab 1234567890123;15:1 2 3 4 5 6 7 8;"
                "17:1 2 3 4 5 6 7 8 9;13:1 2 3 4 5 6.5;9:2.5 (nil);";
            CHECK(text == once + once);
            CHECK(foreign_calls.load() == 14);
            CHECK(misplaced_calls.load() == 0);
          });
    }
  }

  TEST_CASE("errno is what the foreign function left") {
    gives({ENOENT, EAGAIN, EPIPE, EPIPE}, 4, [](std::vector<int>& got) {
      errno = 0;
      native_call(foreign_fail_with, ENOENT);
      got.push_back(errno);
      native_call<foreign_fail_with>(EAGAIN);
      got.push_back(errno);
      native_call([] { foreign_fail_with(EPIPE); });
      got.push_back(errno);
      native_call(foreign_add, 1, 2);
      got.push_back(errno);
    });
  }

  TEST_CASE("many small calls in one") {
    gives({5050}, 100, [](std::vector<int>& got) {
      int sum = 0;
      native_call([&] {
        for (int i = 1; i <= 100; ++i) sum = foreign_add(sum, i);
      });
      got.push_back(sum);
    });
  }

  TEST_CASE("callbacks call again, nested eight deep and more") {
    for (const int depth : {1, 8, 30}) {
      CAPTURE(depth);
      gives({0, depth, 0}, depth, [depth](std::vector<int>& got) {
        descent d{depth - 1};
        // The innermost gives 1, and each foreign function doubles.
        const int n = native_call(foreign_call_back, &descent::step, static_cast<void*>(&d));
        got = {n - (1 << depth), d.reached, static_cast<int>(d.limits_wrong)};
      });
    }
  }

  TEST_CASE("the caller's registers and rounding mode survive") {
    gives({0, FE_UPWARD, FE_TONEAREST}, 200, [](std::vector<int>& got) {
      int wrong = 0;
      double a = 1.25;
      long double b = 2.5L;
      long c = 3;
      float d[8] = {1, 2, 3, 4, 5, 6, 7, 8};
      for (int i = 0; i != 100; ++i) {
        const double old_a = a;
        const long double old_b = b;
        const long old_c = c;
        a += native_call(foreign_add_noexcept, i, 1);
        b += native_call(foreign_add, i, 1);
        c += i;
        for (float& x : d) x += 1;
        if (a != old_a + i + 1 || b != old_b + i + 1 || c != old_c + i || d[7] != 9.0F + i) ++wrong;
      }
      got.push_back(wrong);
      native_call(std::fesetround, FE_UPWARD);
      got.push_back(std::fegetround());
      native_call_noexcept(std::fesetround, FE_TONEAREST);
      got.push_back(std::fegetround());
    });
  }
}
