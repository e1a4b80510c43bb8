// SPDX-License-Identifier: Apache-2.0
//
// Question: how much CPU do 100,000 fibers take on one worker that are started, sleep once between 1
// and 1,000 ms each, and end? The counter cpu_s has it, in seconds of the process, both user and
// system; Time, in ms, can hardly be less than the longest sleep.
//
// Does not show: how late sleepers wake; nor timers that are armed and cancelled, which is what
// deadlines of I/O do. The stacks of up to 100,000 parked fibers are in the figure.
#include "bench/micro/boost_fibers.hpp"
#include "bench/micro/harness.hpp"
#include "bench/micro/tendril_fibers.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <random>
#include <string>
#include <vector>

namespace bench::micro {
namespace {

constexpr int sleepers = 100'000;

struct nap_times {
  std::vector<std::chrono::milliseconds> each;
  std::chrono::milliseconds longest{};

  nap_times() {
    std::minstd_rand random(1);  // the same for every library and repetition
    std::uniform_int_distribution<int> ms(1, 1000);
    for (int i = 0; i != sleepers; ++i) each.emplace_back(ms(random));
    longest = *std::max_element(each.begin(), each.end());
  }
};

struct outcome {
  duration wall{};
  double cpu_seconds = 0;
};

template <class Library>
outcome sleep_all() {
  const nap_times naps;
  outcome result;
  std::int64_t woke = 0;
  Library::run(1, [&] {
    std::vector<typename Library::fiber> all;
    all.reserve(sleepers);
    const std::clock_t cpu = std::clock();  // of the process
    const stopwatch watch;
    for (const auto nap : naps.each)
      all.push_back(Library::spawn([nap, &woke] {
        Library::sleep_for(nap);
        ++woke;
      }));
    for (auto& f : all) f.join();
    result.wall = watch.elapsed();
    result.cpu_seconds = static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC;
  });
  expect_equal("sleepers that woke", sleepers, woke);
  expect_equal("slept as long as the longest", 1, result.wall >= naps.longest ? 1 : 0);
  return result;
}

template <class Library>
void add_sleepers() {
  benchmark::RegisterBenchmark(
      (std::string(Library::prefix) + "sleepers/" + std::to_string(sleepers)).c_str(),
      [](benchmark::State& state) {
        double cpu_seconds = 0;
        measure(state, 1, [&](std::int64_t n) {
          duration wall{};
          for (std::int64_t i = 0; i != n; ++i) {
            const outcome one = sleep_all<Library>();
            wall += one.wall;
            cpu_seconds += one.cpu_seconds;
          }
          return wall;
        });
        state.counters["cpu_s"] =
            benchmark::Counter(cpu_seconds, benchmark::Counter::kAvgIterations);
      })
      ->UseManualTime()
      ->MeasureProcessCPUTime()
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

void register_sleepers() {
  add_sleepers<tendril_fibers>();
  add_sleepers<boost_fibers>();
}

}  // namespace bench::micro
