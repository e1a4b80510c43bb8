// SPDX-License-Identifier: Apache-2.0
//
// Question: how long does a tree of a million leaves take, in which every node starts ten fibers, each
// of which sends the sum of its subtree up a channel; 1,111,111 fibers in all?
//
// Does not show: joining without channels, which fork-join libraries do in a tenth of the time; and
// little of the context switch: most of it is starting fibers, and memory. A scheduler that runs the
// tree breadth-first has a million stacks alive at once, so the order of spawning decides.
#include "bench/micro/boost_fibers.hpp"
#include "bench/micro/harness.hpp"
#include "bench/micro/tendril_fibers.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace bench::micro {
namespace {

constexpr std::int64_t leaves = 1'000'000;
constexpr std::int64_t fan_out = 10;
// Breadth-first: a stack of 16 KiB for each fiber, two or three pages of it touched.
constexpr std::uint64_t boost_bytes = std::uint64_t{12} << 30;

/// Whether a parent must join its children before its channel goes.
enum class lifetime {
  channel_suffices,  ///< whoever has received the last value may destroy the channel
  join_children,     ///< a child may still be inside send() then
};

template <class Library, lifetime Lifetime>
void node(typename Library::template buffered<std::int64_t, fan_out>& up, std::int64_t first,
          std::int64_t size) {
  if (size == 1) {
    up.send(first);
    return;
  }
  typename Library::template buffered<std::int64_t, fan_out> sums;
  const std::int64_t part = size / fan_out;
  [[maybe_unused]] std::array<typename Library::fiber, fan_out> children;
  for (std::int64_t i = 0; i != fan_out; ++i) {
    auto child = [&sums, from = first + i * part, part] {
      node<Library, Lifetime>(sums, from, part);
    };
    if constexpr (Lifetime == lifetime::join_children)
      children[static_cast<std::size_t>(i)] = Library::spawn(std::move(child));
    else Library::spawn_detached(std::move(child));
  }
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i != fan_out; ++i) sum += sums.receive();
  if constexpr (Lifetime == lifetime::join_children)
    for (auto& c : children) c.join();
  up.send(sum);
}

template <class Library, lifetime Lifetime>
duration skynet(std::int64_t n, unsigned workers) {
  if (std::is_same_v<Library, boost_fibers>) require_memory(boost_bytes);
  duration took{};
  for (std::int64_t i = 0; i != n; ++i) {
    std::int64_t total = 0;
    Library::run(workers, [&] {
      typename Library::template buffered<std::int64_t, fan_out> result;
      const stopwatch watch;
      auto root = Library::spawn([&] { node<Library, Lifetime>(result, 0, leaves); });
      total = result.receive();
      root.join();
      took += watch.elapsed();
    });
    expect_equal("sum of the leaves", leaves * (leaves - 1) / 2, total);
  }
  return took;
}

template <class Library, lifetime Lifetime>
benchmark::internal::Benchmark* add_skynet(unsigned workers) {
  return add(with_workers(std::string(Library::prefix) + "skynet", workers), 1,
             [workers](std::int64_t n) { return skynet<Library, Lifetime>(n, workers); })
      ->Iterations(1)
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

void register_skynet() {
  add_skynet<tendril_fibers, lifetime::channel_suffices>(1);
  add_skynet<tendril_fibers, lifetime::channel_suffices>(2);
  // On one thread the parent cannot run before the child has left send(); on two it can.
  add_skynet<boost_fibers, lifetime::channel_suffices>(1)->Repetitions(1);  // some 8 s
  add_skynet<boost_fibers, lifetime::join_children>(2);
}

}  // namespace bench::micro
