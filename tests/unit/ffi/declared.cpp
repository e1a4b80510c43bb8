// SPDX-License-Identifier: Apache-2.0
//
// Calls of foreign functions that the program has declared by tendril_foreign_functions(): foreign_hungry.
#include "platform/split_stack.hpp"
#include "unit/ffi/foreign.hpp"

#include <tendril/tendril.hpp>

#include <doctest/doctest.h>

#include <vector>

namespace {

using tendril::stack_kind;
using tendril::test::foreign_add;
using tendril::test::foreign_error;
using tendril::test::foreign_hungry;

[[gnu::noinline]] int calls_declared(int a, int b) { return foreign_hungry(a, b) + 1; }
[[gnu::noinline]] int calls_another(int a, int b) { return foreign_add(a, b) + 1; }

/// Frames of about 300 bytes: each calls from another place of its segment.
[[gnu::noinline]] int at_every_depth(int depth) {
  [[maybe_unused]] volatile char frame[250];
  frame[depth % 250] = 1;
  int wrong = calls_declared(depth, 2) == depth + 3 ? 0 : 1;
  try {
    calls_declared(depth, -1);
    ++wrong;
  } catch (const foreign_error& e) {
    if (e.number != depth) ++wrong;
  }
  if (depth != 0) wrong += at_every_depth(depth - 1);
  return wrong + frame[depth % 250] - 1;
}

template <class F>
bool adjusted(F* f) {
  return tendril::platform::prologue_was_adjusted(reinterpret_cast<const void*>(f));
}

}  // namespace

TEST_SUITE("ffi.declared") {
  TEST_CASE("the linker leaves their callers alone") {
    CHECK_FALSE(adjusted(&calls_declared));
    CHECK(adjusted(&calls_another));
  }

  TEST_CASE("they find room and may throw, wherever they are called from") {
    for (const stack_kind kind : {stack_kind::segmented, stack_kind::reserved}) {
      std::vector<int> wrong(8, -1);
      tendril::run({.workers = 2, .stack = {kind}}, [&] {
        std::vector<tendril::fiber> fibers;
        for (int& w : wrong) fibers.emplace_back([&w] { w = at_every_depth(100); });
        for (tendril::fiber& f : fibers) f.join();
      });
      CHECK(wrong == std::vector<int>(8, 0));
    }
    CHECK(at_every_depth(100) == 0);
  }
}
