// SPDX-License-Identifier: Apache-2.0
//
// Question: what do futures cost where nobody has to wait: reading one that was born ready
// (future/ready_get); a promise made, set and read, on one fiber (future/promise_roundtrip); a
// continuation on what is ready (future/then_ready), and on what gets ready after it (future/then_pending)?
// The second and the fourth allocate, the others do not: they count their allocations through the
// expected sums alone, the tests count them by operator new. Beside them: std's promise.
//
// Does not show: waking: a wait that parks costs a switch and a wake-up, which the channel and mutex
// benchmarks measure; nor contention, as the two sides are on one processor here.
#include "bench/micro/harness.hpp"
#include "bench/micro/tendril_fibers.hpp"

#include <tendril/future.hpp>

#include <cstdint>
#include <future>
#include <utility>

namespace bench::micro {
namespace {

/// Sums what one(i) returns for i below n, on a fiber; each should return i.
template <class One>
duration sum_up(std::int64_t n, One one) {
  duration took{};
  std::int64_t sum = 0;
  tendril_fibers::run(1, [&] {
    const stopwatch watch;
    for (std::int64_t i = 0; i != n; ++i) sum += one(i);
    took = watch.elapsed();
  });
  expect_equal("sum of the results", n * (n - 1) / 2, sum);
  return took;
}

template <class One>
void add_sum(const char* name, One one) {
  add(name, 1, [one](std::int64_t n) { return sum_up(n, one); });
}

template <class Promise>
std::int64_t round_trip(std::int64_t i) {
  Promise p;
  auto f = p.get_future();
  benchmark::DoNotOptimize(&p);
  p.set_value(i);
  benchmark::DoNotOptimize(&f);
  return f.get();
}

}  // namespace

void register_future() {
  add_sum("future/ready_get", [](std::int64_t i) {
    auto f = tendril::make_ready_future(i);
    benchmark::DoNotOptimize(f);
    return f.get();
  });
  add_sum("future/promise_roundtrip", &round_trip<tendril::promise<std::int64_t>>);
  add_sum("std/promise_roundtrip", &round_trip<std::promise<std::int64_t>>);
  add_sum("future/then_ready", [](std::int64_t i) {
    auto f = tendril::make_ready_future(i - 1);
    benchmark::DoNotOptimize(f);
    auto g = f.then([](tendril::future<std::int64_t> x) { return x.get() + 1; });
    benchmark::DoNotOptimize(g);
    return g.get();
  });
  add_sum("future/then_pending", [](std::int64_t i) {
    tendril::promise<std::int64_t> p;
    auto g = p.get_future().then([](tendril::future<std::int64_t> x) { return x.get() + 1; });
    benchmark::DoNotOptimize(&p);
    p.set_value(i - 1);
    benchmark::DoNotOptimize(g);
    return g.get();
  });
}

}  // namespace bench::micro
