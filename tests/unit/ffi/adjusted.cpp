// SPDX-License-Identifier: Apache-2.0
//
// Functions that call unsplit code: linkers make them ask for 16 KiB. Where the assembler has put a comparison into
// their prologues (cmake/split_prologues.s), small ones find by themselves that there is room.
#include "platform/split_stack.hpp"
#include "unit/ffi/foreign.hpp"

#include <tendril/tendril.hpp>

#include <doctest/doctest.h>

#include <execinfo.h>

#include <algorithm>
#include <cstdint>
#include <vector>

extern "C" {
void __morestack();
void __morestack_allocate_stack_space();
}

namespace {

using tendril::stack_kind;
using tendril::test::foreign_add;
using tendril::test::foreign_call_back_noexcept;
using tendril::test::foreign_throw;

// Its code lies between these two. Not named in a function: the linker would change that for the other entry.
void (*const volatile runtime_begin)() = &__morestack;
void (*const volatile runtime_end)() = &__morestack_allocate_stack_space;

/// How often the runtime stands between the functions that have been called. Its own frame is large.
int detours() {
  void* trace[100];
  const int n = ::backtrace(trace, 100);
  const auto from = reinterpret_cast<std::uintptr_t>(runtime_begin);
  const auto to = reinterpret_cast<std::uintptr_t>(runtime_end);
  return static_cast<int>(std::count_if(trace, trace + n, [from, to](void* at) {
    return reinterpret_cast<std::uintptr_t>(at) - from < to - from;
  }));
}

int note_detours(void* to) noexcept {
  *static_cast<int*>(to) = detours();
  return 1;
}

// The plain form, so that there is no native call in it.
[[gnu::noinline]] int looks(int* found) {
  return foreign_call_back_noexcept(&note_detours, found) + 1;
}
[[gnu::noinline]] int looks_from_further_down(int* found) {
  return looks(found) + foreign_add(0, 1);
}
[[gnu::noinline]] int adds(int n) { return foreign_add(n, 1) + 1; }
[[gnu::noinline]] int calls_split_code(int n) { return adds(n) + 1; }

[[gnu::noinline]] int throws_from_there(int n) {
  try {
    foreign_throw(n);
  } catch (const tendril::test::foreign_error& e) {
    return e.number;
  }
  return 0;
}

/// Arguments in memory, on either side of a detour.
[[gnu::noinline]] int adds_many(int a, int b, int c, int d, int e, int f, int g, int h) {
  return foreign_add(a + b + c + d + e + f, g - h) + 1;
}

struct found {
  int room = -1;     ///< detours of a function that has room
  int nested = -1;   ///< and of one that it calls
  int no_room = -1;  ///< on the first segment
  int wrong = 0;
};

/// A frame that fits no first segment, so that there is room around.
[[gnu::noinline]] void with_room(found& f) {
  volatile char frame[24 << 10];
  frame[0] = 1;
  asm volatile("" : : "r"(frame) : "memory");
  if (looks(&f.room) != 3) ++f.wrong;
  if (looks_from_further_down(&f.nested) != 4) ++f.wrong;
}

/// Each level calls from another place of a segment: with room, without, and where there is just none.
[[gnu::noinline]] int at_every_depth(int depth) {
  [[maybe_unused]] volatile char frame[200];
  frame[depth % 200] = 1;
  int wrong = adds(depth) == depth + 2 ? 0 : 1;
  if (adds_many(1, 2, 3, 4, 5, 6, 7, 8) != 21) ++wrong;
  if (throws_from_there(depth + 1) != depth + 1) ++wrong;
  if (depth != 0) wrong += at_every_depth(depth - 1);
  return wrong + frame[depth % 200] - 1;
}

/// Without, each function makes a detour.
constexpr int each = TENDRIL_ROOM_CHECKS != 0 ? 0 : 1;

template <class F>
const void* code_of(F* f) {
  return reinterpret_cast<const void*>(f);
}

}  // namespace

TEST_SUITE("ffi.adjusted") {
  TEST_CASE("who calls unsplit code is adjusted, and no other") {
    CHECK(tendril::platform::prologue_was_adjusted(code_of(&adds)));
    CHECK(tendril::platform::prologue_was_adjusted(code_of(&adds_many)));
    CHECK_FALSE(tendril::platform::prologue_was_adjusted(code_of(&calls_split_code)));
    CHECK(calls_split_code(1) == 4);
  }

  TEST_CASE("with room the call is direct, without it goes to another segment") {
    found f;
    tendril::run({.workers = 1, .stack = {stack_kind::segmented}}, [&f] {
      tendril::fiber([&f] {
        if (looks(&f.no_room) != 3) ++f.wrong;
        with_room(f);
      }).join();
    });
    CHECK(f.wrong == 0);
    CHECK(f.no_room == 1);
    CHECK(f.room == 1 + each);  // the large frame has gone to another segment
    CHECK(f.nested == 1 + 2 * each);
  }

  TEST_CASE("off segmented stacks there is no limit") {
    found f;
    with_room(f);
    CHECK(f.wrong == 0);
    CHECK(f.room == each);
  }

  TEST_CASE("results, arguments in memory and exceptions, at every depth") {
    for (const stack_kind kind : {stack_kind::segmented, stack_kind::reserved}) {
      std::vector<int> wrong(4, -1);
      tendril::run({.workers = 2, .stack = {kind}}, [&] {
        std::vector<tendril::fiber> fibers;
        for (int& w : wrong) fibers.emplace_back([&w] { w = at_every_depth(200); });
        for (tendril::fiber& f : fibers) f.join();
      });
      CHECK(wrong == std::vector<int>(4, 0));
    }
  }
}
