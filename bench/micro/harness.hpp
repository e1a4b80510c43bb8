// SPDX-License-Identifier: Apache-2.0
//
// How every micro benchmark measures.
//
//  1. One Google Benchmark iteration is one operation (a switch, a yield, a round trip), so the Time
//     column is the figure itself. The operations of a run are performed in one go, by a body that
//     takes their number and returns how long they took: starting a runtime is not in the figure.
//  2. Time is the wall clock; CPU is the whole process's, workers included, and covers preparations.
//  3. A body proves its work by expect_equal(); a wrong count or sum skips the benchmark with an
//     error instead of reporting a figure.
//  4. The same template measures Tendril, Boost.Fiber and threads, through the three policies
//     tendril_fibers, boost_fibers and std_threads. They have the same members:
//
//       prefix                   what a benchmark's name starts with
//       run(workers, f)          runs f where fibers can be started, and waits for it
//       fiber                    joinable; spawn(f) starts one, spawn_detached(f) one nobody joins
//       yield(), sleep_for(d)
//       mutex, condition_variable
//       rendezvous<T>            unbuffered channel; send(v), receive()
//       one_slot<T>              channel that buffers one value
//       buffered<T, N>           channel that buffers at least N
#pragma once

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace bench::micro {

using duration = std::chrono::duration<double>;

class stopwatch {
 public:
  duration elapsed() const { return clock::now() - begin_; }

 private:
  using clock = std::chrono::steady_clock;
  clock::time_point begin_ = clock::now();
};

inline void expect_equal(std::string_view what, std::int64_t expected, std::int64_t got) {
  if (expected == got) return;
  throw std::logic_error(std::string(what) + ": expected " + std::to_string(expected) + ", got " +
                         std::to_string(got));
}

/// Has body(n) perform n operations, n a multiple of `batch`, and reports the time it returns.
template <class Body>
void measure(benchmark::State& state, std::int64_t batch, Body body) {
  const std::int64_t n = (state.max_iterations + batch - 1) / batch * batch;
  try {
    while (state.KeepRunningBatch(n)) {
      const duration took = body(n);
      state.SetIterationTime(took.count());
    }
  } catch (const std::exception& e) {
    state.SkipWithError(e.what());
  }
}

/// Registers measure(state, batch, body) under `name`.
template <class Body>
benchmark::internal::Benchmark* add(const std::string& name, std::int64_t batch, Body body) {
  return benchmark::RegisterBenchmark(
             name.c_str(), [batch, body](benchmark::State& state) { measure(state, batch, body); })
      ->UseManualTime()
      ->MeasureProcessCPUTime();
}

inline std::string with_workers(std::string name, unsigned workers) {
  return std::move(name) + "/w" + std::to_string(workers);
}

/// Skips the benchmark where the machine has less memory to spare.
void require_memory(std::uint64_t bytes);

// One a theme, each in the file of that name; main.cpp calls them.
void register_switch();
void register_yield();
void register_spawn();
void register_channel();
void register_future();
void register_mutex();
void register_native_call();
void register_flow();
void register_sleepers();
void register_skynet();
void register_task();
void register_tasklet();
void register_thunk();

}  // namespace bench::micro
