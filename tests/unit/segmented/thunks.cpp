// SPDX-License-Identifier: Apache-2.0
//
// Fibers on segmented stacks that start as calls: from fibers of both kinds, from plain threads, and from below
// a native call, where the thread's native stack is in use already.
#include "support/with_workers.hpp"

#include <tendril/ffi.hpp>
#include <tendril/future.hpp>
#include <tendril/stack.hpp>
#include <tendril/thunk.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <string>
#include <thread>

using tendril::future;
using tendril::promise;
using tendril::runtime;
using tendril::stack_kind;
using tendril::thunk;
using tendril::test::watchdog;

namespace {

/// Some hundred bytes a level; n levels.
[[gnu::noinline]] int deep(int n) {
  std::array<volatile char, 300> frame;
  frame[0] = static_cast<char>(n);
  if (n == 0) return 0;
  const int below = deep(n - 1) + 1;
  return frame[0] == static_cast<char>(n) ? below : -1;
}

/// Grows, waits with a grown stack behind it, grows again; and the same on the native stack.
int body(promise<void>* gate) {
  int sum = deep(2000);
  if (gate != nullptr) gate->get_future().get();
  sum += deep(1000);
  return sum + tendril::native_call([] { return deep(100); });
}

int both() {
  const auto t = thunk(body, stack_kind::segmented);
  int sum = t(nullptr).get();
  promise<void> gate;
  auto later = t(&gate);
  sum += deep(500);
  gate.set_value();
  return sum + later.get();
}
constexpr int right = 2 * 3100 + 500;

tendril::runtime_options options(stack_kind kind) {
  return {.workers = 2, .stack = {kind, kind == stack_kind::reserved ? std::size_t{1} << 20 : 0}};
}

}  // namespace

TEST_SUITE("thunks") {
  TEST_CASE("from fibers of both kinds and from threads") {
    for (const stack_kind kind : {stack_kind::reserved, stack_kind::segmented}) {
      CAPTURE(static_cast<int>(kind));
      runtime rt(options(kind));
      const watchdog dog("segmented thunks", &rt);
      for (int i = 0; i != 20; ++i) {
        CHECK(rt.run(both) == right);
        CHECK(both() == right);
        int on_thread = 0;
        std::thread([&] { on_thread = both(); }).join();
        CHECK(on_thread == right);
      }
    }
  }

  TEST_CASE("below one on a reserved stack, which on a plain thread has set nothing up for them") {
    for (const stack_kind kind : {stack_kind::reserved, stack_kind::segmented}) {
      CAPTURE(static_cast<int>(kind));
      runtime rt(options(kind));
      const watchdog dog("nested thunks", &rt);
      const auto nested = thunk(
          [] {
            const auto big = [] { return tendril::native_call([] { return deep(10'000); }); };
            int sum = both() + thunk(body, stack_kind::segmented)(nullptr).get();
            // The rest of the thread's stack is there for foreign code: three megabytes of it.
            sum += thunk(big, stack_kind::segmented)().get();
            promise<void> gate;
            auto later = thunk(body, stack_kind::segmented)(&gate);
            tendril::this_fiber::yield();  // the caller has left its thread
            sum += both();
            gate.set_value();
            return sum + later.get();
          },
          {.stack = {stack_kind::reserved, std::size_t{1} << 20}});
      constexpr int nested_right = 2 * right + 2 * 3100 + 10'000;
      for (int i = 0; i != 5; ++i) {
        CHECK(rt.run([&] { return nested().get(); }) == nested_right);
        CHECK(nested().get() == nested_right);
        int on_thread = 0;
        std::thread([&] { on_thread = nested().get(); }).join();
        CHECK(on_thread == nested_right);
      }
    }
  }

  TEST_CASE("from the native stack, whose frames stay as they are") {
    runtime rt(options(stack_kind::segmented));
    const watchdog dog("below a native call", &rt);
    const bool intact = rt.run([] {
      bool good = true;
      for (int i = 0; i != 10; ++i)
        good = tendril::native_call([] {
                 std::array<volatile int, 1000> frame;
                 for (int k = 0; k != 1000; ++k) frame[static_cast<std::size_t>(k)] = k;
                 const int sum = both();
                 bool same = sum == right;
                 for (int k = 0; k != 1000; ++k)
                   same = frame[static_cast<std::size_t>(k)] == k && same;
                 return same;
               }) &&
               good;
      return good;
    });
    CHECK(intact);
  }
}
