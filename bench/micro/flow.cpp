// SPDX-License-Identifier: Apache-2.0
//
// Question: what does the state that travels with a fiber cost its code: reading a fiber_local and an ambient
// value; a call in each of the three ambient modes; starting a child that inherits?
//
//   bm_fiber_local/get       one of a handful of variables     .../thread_local   the baseline that is wrong
//                                                               on fibers: a thread's, not a fiber's
//   bm_ambient/get           one of three values
//   bm_ambient/<mode>        a call that sets nothing, with three values in force; a flow_up call is a plain one
//   bm_ambient/<mode>_none   the same with none
//   bm_ambient/set           in a flow that shares its values with nobody
//   bm_ambient/spawn         start and join a child that inherits; spawn_none: that has nothing to inherit
//
// Does not show: caches that other fibers have used meanwhile. The flow's own lines are in the first level here.
#include "bench/micro/harness.hpp"
#include "bench/micro/tendril_fibers.hpp"

#include <tendril/ambient.hpp>
#include <tendril/fiber_local.hpp>

#include <cstdint>
#include <string>
#include <utility>

namespace bench::micro {
namespace {

using tendril::ambient;
using tendril::ambient_flow;
using tendril::ambient_mode;

/// On a fiber; body returns the time of its measured part.
template <class Body>
duration on_fiber(Body body) {
  duration took{};
  tendril_fibers::run(1, [&] { tendril_fibers::spawn([&] { took = body(); }).join(); });
  return took;
}

thread_local std::int64_t thread_value = 1;

/// The address, each time anew, as code on a fiber would need it.
[[gnu::noinline]] std::int64_t& thread_value_now() {
  asm volatile("" : : : "memory");
  return thread_value;
}

duration read_thread_local(std::int64_t n) {
  return on_fiber([n] {
    std::int64_t sum = 0;
    const stopwatch watch;
    for (std::int64_t i = 0; i != n; ++i) sum += thread_value_now();
    const duration took = watch.elapsed();
    expect_equal("sum", n, sum);
    return took;
  });
}

duration read_fiber_local(std::int64_t n) {
  return on_fiber([n] {
    const tendril::fiber_local<std::int64_t> before, value([] { return std::int64_t{1}; }), after;
    *before = *value + *after;
    std::int64_t sum = 0;
    const stopwatch watch;
    for (std::int64_t i = 0; i != n; ++i) sum += *value;
    const duration took = watch.elapsed();
    expect_equal("sum", n, sum);
    return took;
  });
}

struct three_values {
  ambient<std::int64_t> first, second, third;
  explicit three_values(bool set) {
    if (!set) return;
    first.set(1);
    second.set(2);
    third.set(3);
  }
};

duration read_ambient(std::int64_t n) {
  return on_fiber([n] {
    const three_values all(true);
    std::int64_t sum = 0;
    const stopwatch watch;
    for (std::int64_t i = 0; i != n; ++i) sum += all.third.get();
    const duration took = watch.elapsed();
    expect_equal("sum", 3 * n, sum);
    return took;
  });
}

duration set_ambient(std::int64_t n) {
  return on_fiber([n] {
    three_values all(true);
    const stopwatch watch;
    for (std::int64_t i = 0; i != n; ++i) all.third.set(i);
    const duration took = watch.elapsed();
    expect_equal("value", n - 1, all.third.get());
    return took;
  });
}

[[gnu::noinline]] std::int64_t callee(std::int64_t x) {
  asm volatile("" : "+r"(x));
  return x + 1;
}

template <ambient_mode Mode>
duration call_in(std::int64_t n, bool values) {
  return on_fiber([n, values] {
    const three_values all(values);
    std::int64_t x = 0;
    const stopwatch watch;
    for (std::int64_t i = 0; i != n; ++i) x = ambient_flow::call<Mode>([x] { return callee(x); });
    const duration took = watch.elapsed();
    expect_equal("calls", n, x);
    expect_equal("values", values ? 3 : 0, all.third.get());
    return took;
  });
}

duration spawn_children(std::int64_t n, bool values) {
  return on_fiber([n, values] {
    const three_values all(values);
    std::int64_t seen = 0;
    const stopwatch watch;
    for (std::int64_t i = 0; i != n; ++i)
      tendril_fibers::spawn([&] { seen += all.third.get(); }).join();
    const duration took = watch.elapsed();
    expect_equal("values", values ? 3 * n : 0, seen);
    return took;
  });
}

template <ambient_mode Mode>
void add_mode(const std::string& name) {
  add("bm_ambient/" + name, 1, [](std::int64_t n) { return call_in<Mode>(n, true); });
  add("bm_ambient/" + name + "_none", 1, [](std::int64_t n) { return call_in<Mode>(n, false); });
}

}  // namespace

void register_flow() {
  add("bm_fiber_local/get", 1, &read_fiber_local);
  add("bm_fiber_local/thread_local", 1, &read_thread_local);
  add("bm_ambient/get", 1, &read_ambient);
  add("bm_ambient/set", 1, &set_ambient);
  add_mode<ambient_mode::flow_up>("flow_up");
  add_mode<ambient_mode::restore>("restore");
  add_mode<ambient_mode::capture>("capture");
  add("bm_ambient/spawn", 1, [](std::int64_t n) { return spawn_children(n, true); });
  add("bm_ambient/spawn_none", 1, [](std::int64_t n) { return spawn_children(n, false); });
}

}  // namespace bench::micro
