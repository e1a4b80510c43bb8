// SPDX-License-Identifier: Apache-2.0
//
// Question: what does native_call add to a call of a trivial function in a shared library, through the PLT,
// on a thread and on a reserved fiber, where it should add nothing?
//
//   direct    the plain call      throwing  native_call: the target may throw
//   noexcept  it does not         batched   1,000 calls in one native_call
//
// Does not show: segmented fibers, whose code must be compiled for them: experiment E8. Direct calls and the
// others take turns within a run only there, too; compare medians of several repetitions.
#include "bench/micro/harness.hpp"
#include "bench/micro/tendril_fibers.hpp"
#include "bench/support/foreign/foreign.hpp"

#include <tendril/ffi.hpp>

#include <algorithm>
#include <cstdint>
#include <string>

namespace bench::micro {
namespace {

/// x = f(x), n times; f adds 1.
template <class F>
[[gnu::noinline]] duration in_loop(std::int64_t n, F f) {
  int x = 0;
  const stopwatch watch;
  for (std::int64_t i = 0; i != n; ++i) x = f(x);
  const duration took = watch.elapsed();
  expect_equal("calls", static_cast<int>(n), x);
  return took;
}

[[gnu::noinline]] duration in_batches(std::int64_t n) {
  constexpr std::int64_t batch = 1000;
  int x = 0;
  const stopwatch watch;
  for (std::int64_t left = n; left != 0;) {
    const std::int64_t now = std::min(left, batch);
    tendril::native_call([&x, now] {
      for (std::int64_t i = 0; i != now; ++i) x = foreign_trivial(x);
    });
    left -= now;
  }
  const duration took = watch.elapsed();
  expect_equal("calls", static_cast<int>(n), x);
  return took;
}

duration direct(std::int64_t n) {
  return in_loop(n, [](int x) { return foreign_trivial(x); });
}
duration without_throwing(std::int64_t n) {
  return in_loop(n, [](int x) { return tendril::native_call_noexcept<foreign_trivial>(x); });
}
duration throwing(std::int64_t n) {
  return in_loop(n, [](int x) { return tendril::native_call<foreign_trivial>(x); });
}

template <class Body>
void add_everywhere(const std::string& name, Body body) {
  add(name + "/thread", 1, body);
  add(name + "/reserved", 1, [body](std::int64_t n) {
    duration took{};
    tendril_fibers::run(1, [&] { tendril_fibers::spawn([&] { took = body(n); }).join(); });
    return took;
  });
}

}  // namespace

void register_native_call() {
  add_everywhere("native_call/direct", &direct);
  add_everywhere("native_call/noexcept", &without_throwing);
  add_everywhere("native_call/throwing", &throwing);
  add_everywhere("native_call/batched", &in_batches);
}

}  // namespace bench::micro
