// SPDX-License-Identifier: Apache-2.0
//
// Question: what does a round trip between two fibers over a pair of channels cost, unbuffered
// (channel_pingpong) and with room for one value (channel_pingpong_cap1); four waits at most, two at
// least?
//
// Does not show: throughput through a larger buffer, several senders, select. With two workers it
// shows what the scheduler does with a pair that can only take turns: kept on one worker, a round trip
// costs what it costs there; spread over two, it costs two wake-ups of another processor.
#include "bench/micro/boost_fibers.hpp"
#include "bench/micro/harness.hpp"
#include "bench/micro/tendril_fibers.hpp"

#include <cstdint>
#include <string>

namespace bench::micro {
namespace {

template <class Library, class Channel>
duration ping_pong(std::int64_t n, unsigned workers) {
  duration took{};
  std::int64_t sum = 0;
  Library::run(workers, [&] {
    Channel there;
    Channel back;
    const stopwatch watch;
    auto answering = Library::spawn([&] {
      for (std::int64_t i = 0; i != n; ++i) back.send(there.receive() + 1);
    });
    auto asking = Library::spawn([&] {
      std::int64_t answers = 0;
      for (std::int64_t i = 0; i != n; ++i) {
        there.send(i);
        answers += back.receive();
      }
      sum = answers;
    });
    asking.join();
    answering.join();
    took = watch.elapsed();
  });
  expect_equal("sum of the answers", n * (n + 1) / 2, sum);
  return took;
}

template <class Library>
void add_ping_pong(unsigned workers) {
  using unbuffered = typename Library::template rendezvous<std::int64_t>;
  using one_slot = typename Library::template one_slot<std::int64_t>;
  const std::string prefix = Library::prefix;
  add(with_workers(prefix + "channel_pingpong", workers), 1,
      [workers](std::int64_t n) { return ping_pong<Library, unbuffered>(n, workers); });
  add(with_workers(prefix + "channel_pingpong_cap1", workers), 1,
      [workers](std::int64_t n) { return ping_pong<Library, one_slot>(n, workers); });
}

}  // namespace

void register_channel() {
  for (const unsigned workers : {1U, 2U}) {
    add_ping_pong<tendril_fibers>(workers);
    add_ping_pong<boost_fibers>(workers);
  }
}

}  // namespace bench::micro
