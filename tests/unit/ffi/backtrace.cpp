// SPDX-License-Identifier: Apache-2.0
//
// What a trace says that is taken on the native stack: the frames of the caller, on its own stack, follow.
#include "places.hpp"

#include <tendril/ffi.hpp>

#include <doctest/doctest.h>
#include <execinfo.h>

#include <algorithm>
#include <array>
#include <string>

namespace {

using namespace tendril::test;

std::array<void*, 64> trace;
int traced = 0;
std::array<void*, 2> callers;

[[gnu::noinline]] int take_trace(int x) {
  note_foreign_call();
  traced = ::backtrace(trace.data(), static_cast<int>(trace.size()));
  return x;
}

[[gnu::noinline]] void inner(bool inlined) {
  callers[0] = __builtin_return_address(0);
  volatile int result =
      inlined ? tendril::native_call_noexcept(take_trace, 1) : tendril::native_call(take_trace, 1);
  result = result + 1;
}
[[gnu::noinline]] void outer(bool inlined) {
  callers[1] = __builtin_return_address(0);
  inner(inlined);
  asm volatile("");  // no tail call
}

}  // namespace

TEST_SUITE("ffi.backtrace") {
  TEST_CASE("goes on in the caller's frames") {
    for (const bool inlined : {false, true}) {
      CAPTURE(inlined);
      std::size_t found = 0;
      everywhere(
          [&] {
            outer(inlined);
            found = 0;
            for (int i = 0; i != traced && found != 2; ++i)
              if (trace[static_cast<std::size_t>(i)] == callers[found]) ++found;
          },
          [&](const std::string& place) {
            CAPTURE(place);
            CHECK(found == 2);
            CHECK(foreign_calls.load() == 1);
            CHECK(misplaced_calls.load() == 0);
          });
    }
  }
}
