// SPDX-License-Identifier: Apache-2.0
//
// Question: what does it cost to call a function as a thunk: when it does not wait (sync), beside the same call
// without one (call), on a fiber, on a plain thread, and on tasklets; and when it waits once (suspend), beside a
// fiber that is started for it and does not wait (async)? Each future is read.
//
// Does not show: the cost of the second and later waits, which are those of any fiber.
#include "bench/micro/harness.hpp"
#include "bench/micro/tendril_fibers.hpp"

#include <tendril/async.hpp>
#include <tendril/thunk.hpp>

#include <cstdint>

namespace bench::micro {
namespace {

[[gnu::noinline]] std::int64_t one_more(std::int64_t x) {
  asm volatile("" : "+r"(x));
  return x + 1;
}
[[gnu::noinline]] std::int64_t one_more_later(std::int64_t x) {
  tendril::this_fiber::yield();
  return x + 1;
}

/// n calls, each with the last one's result. Of the runtime each takes `fibers`: none, if it is no more than a call.
template <class Call>
duration chain(tendril::runtime& rt, std::int64_t n, std::int64_t fibers, Call call) {
  const std::uint64_t before = rt.stats().fibers_spawned;
  const stopwatch watch;
  std::int64_t x = 0;
  for (std::int64_t i = 0; i != n; ++i) x = call(x);
  const duration took = watch.elapsed();
  expect_equal("calls", n, x);
  expect_equal("fibers", n * fibers, static_cast<std::int64_t>(rt.stats().fibers_spawned - before));
  return took;
}

template <class Call>
duration on_fiber(std::int64_t n, std::int64_t fibers, Call call) {
  duration took{};
  tendril_fibers::run(1, [&] { took = chain(*tendril::runtime::current(), n, fibers, call); });
  return took;
}

}  // namespace

void register_thunk() {
  const auto sync = [](std::int64_t x) { return tendril::thunk(one_more)(x).get(); };
  const auto suspend = [](std::int64_t x) { return tendril::thunk(one_more_later)(x).get(); };
  const auto async = [](std::int64_t x) { return tendril::async(one_more, x).get(); };
  add("bm_thunk/call", 1, [](std::int64_t n) { return on_fiber(n, 0, one_more); });
  add("bm_thunk/sync", 1, [sync](std::int64_t n) { return on_fiber(n, 0, sync); });
  add("bm_thunk/sync_thread", 1, [sync](std::int64_t n) {
    tendril::runtime rt({.workers = 1});
    return chain(rt, n, 0, sync);
  });
  const auto on_tasklet = tendril::thunk(one_more, tendril::stack_kind::tasklet);
  const auto on_tasklet_later = tendril::thunk(one_more_later, tendril::stack_kind::tasklet);
  add("bm_thunk/sync_tasklet", 1, [on_tasklet](std::int64_t n) {
    return on_fiber(n, 0, [&](std::int64_t x) { return on_tasklet(x).get(); });
  });
  add("bm_thunk/suspend_tasklet", 1, [on_tasklet_later](std::int64_t n) {
    return on_fiber(n, 1, [&](std::int64_t x) { return on_tasklet_later(x).get(); });
  });
  add("bm_thunk/suspend", 1, [suspend](std::int64_t n) { return on_fiber(n, 1, suspend); });
  add("bm_thunk/async", 1, [async](std::int64_t n) { return on_fiber(n, 1, async); });
}

}  // namespace bench::micro
