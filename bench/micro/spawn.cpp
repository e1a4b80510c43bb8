// SPDX-License-Identifier: Apache-2.0
//
// Question: what does it cost to start a fiber that does next to nothing and to wait for its end; one
// after the other (spawn_join), and a million started before the first is joined (spawn_batch)?
//
// Does not show: fibers that live long enough to need a stack each: a Tendril fiber gets its stack
// when it first runs, so one worker runs the whole batch on a few warm ones, while Boost.Fiber makes
// the stack at the start and touches it, a million times 8 KiB. With two workers the figure depends
// on whether the second one gets to steal: it is noisy. Nor does the median show the first batch of a
// process, which has to get the memory of a million control blocks from the system: that is the first
// repetition of spawn_batch, in --benchmark_out.
#include "bench/micro/boost_fibers.hpp"
#include "bench/micro/harness.hpp"
#include "bench/micro/std_threads.hpp"
#include "bench/micro/tendril_fibers.hpp"

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace bench::micro {
namespace {

constexpr std::int64_t batch_fibers = 1'000'000;
// 16 KiB of address space each, of which two or three pages are touched, and the control blocks.
constexpr std::uint64_t boost_batch_bytes = std::uint64_t{12} << 30;

template <class Library>
duration spawn_join(std::int64_t n, unsigned workers) {
  duration took{};
  std::int64_t ran = 0;  // join() orders the increments
  Library::run(workers, [&] {
    const stopwatch watch;
    for (std::int64_t i = 0; i != n; ++i) Library::spawn([&ran] { ++ran; }).join();
    took = watch.elapsed();
  });
  expect_equal("fibers run", n, ran);
  return took;
}

template <class Library>
duration spawn_batch(std::int64_t n) {
  if (std::is_same_v<Library, boost_fibers>) require_memory(boost_batch_bytes);
  duration took{};
  std::int64_t ran = 0;
  Library::run(1, [&] {
    std::vector<typename Library::fiber> all;
    all.reserve(static_cast<std::size_t>(batch_fibers));
    const stopwatch watch;
    for (std::int64_t done = 0; done != n; done += batch_fibers) {
      for (std::int64_t i = 0; i != batch_fibers; ++i)
        all.push_back(Library::spawn([&ran] { ++ran; }));
      for (auto& f : all) f.join();
      all.clear();
    }
    took = watch.elapsed();
  });
  expect_equal("fibers run", n, ran);
  return took;
}

template <class Library>
benchmark::internal::Benchmark* add_batch() {
  return benchmark::RegisterBenchmark(
             (std::string(Library::prefix) + "spawn_batch/w1").c_str(),
             [](benchmark::State& state) {
               measure(state, batch_fibers, [](std::int64_t n) { return spawn_batch<Library>(n); });
               state.SetItemsProcessed(state.iterations());
             })
      ->UseManualTime()
      ->MeasureProcessCPUTime();
}

template <class Library>
void add_spawn_join(unsigned workers) {
  add(with_workers(std::string(Library::prefix) + "spawn_join", workers), 1,
      [workers](std::int64_t n) { return spawn_join<Library>(n, workers); });
}

}  // namespace

void register_spawn() {
  for (const unsigned workers : {1U, 2U}) {
    add_spawn_join<tendril_fibers>(workers);
    add_spawn_join<boost_fibers>(workers);
  }
  add("std_thread/spawn_join", 1, [](std::int64_t n) { return spawn_join<std_threads>(n, 0); });

  add_batch<tendril_fibers>();
  add_batch<boost_fibers>()->Repetitions(1);  // some 6 s, and noise is not what sets it apart
}

}  // namespace bench::micro
