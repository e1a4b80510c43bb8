// SPDX-License-Identifier: Apache-2.0
//
// Question: what does a yield cost, from one fiber through the scheduler into the next, when 2 fibers
// take turns on one worker, and when 1,000 do?
//
// Does not show: yields with nobody else runnable, or with several workers stealing. 1,000 stacks no
// longer fit into the first-level cache, so yield/1000 is also a measure of how stacks share it.
#include "bench/micro/boost_fibers.hpp"
#include "bench/micro/harness.hpp"
#include "bench/micro/tendril_fibers.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace bench::micro {
namespace {

template <class Library>
duration yields(std::int64_t n, int fibers) {
  duration took{};
  std::int64_t done = 0;
  Library::run(1, [&] {
    const std::int64_t each = n / fibers;
    std::vector<typename Library::fiber> all;
    all.reserve(static_cast<std::size_t>(fibers));
    for (int i = 0; i != fibers; ++i)
      all.push_back(Library::spawn([each, &done] {
        for (std::int64_t k = 0; k != each; ++k) Library::yield();
        done += each;
      }));
    const stopwatch watch;  // one worker: none of them has run yet
    for (auto& f : all) f.join();
    took = watch.elapsed();
  });
  expect_equal("yields", n, done);
  return took;
}

template <class Library>
void add_yields(int fibers) {
  add(std::string(Library::prefix) + "yield/" + std::to_string(fibers), fibers,
      [fibers](std::int64_t n) { return yields<Library>(n, fibers); });
}

}  // namespace

void register_yield() {
  for (const int fibers : {2, 1000}) {
    add_yields<tendril_fibers>(fibers);
    add_yields<boost_fibers>(fibers);
  }
}

}  // namespace bench::micro
