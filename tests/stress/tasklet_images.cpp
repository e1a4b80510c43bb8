// SPDX-License-Identifier: Apache-2.0
//
// Tasklets on few slots and several workers: copied out, folded and brought back while others of their slot start,
// end, are woken and migrate. Aims at the hold of a resident that is woken just then, and at the order of images by
// age, which one worker changes while another brings back one of them.
#include "support/stress.hpp"
#include "support/with_workers.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace tendril;
using tendril::test::rounds;
using tendril::test::stress_seed;

namespace {

struct client {
  counting_semaphore<> wake{0};
  std::atomic<std::uint32_t> served{0};
};

/// Waits at the bottom of frames that know what is in them. Returns how many do not.
[[gnu::noinline]] unsigned wait_below(unsigned depth, std::uint64_t seed, client& c) {
  volatile std::uint64_t mine[3] = {seed, ~seed, seed * depth};
  unsigned wrong = 0;
  if (depth == 0) c.wake.acquire();
  else wrong = wait_below(depth - 1, seed * 7 + 1, c);
  return wrong + (mine[0] == seed && mine[1] == ~seed && mine[2] == seed * depth ? 0 : 1);
}

void serve(client& c, std::uint64_t seed, unsigned calls, std::atomic<unsigned>& wrong) {
  std::minstd_rand random(static_cast<unsigned>(seed));
  for (unsigned i = 0; i != calls; ++i) {
    try {
      throw std::runtime_error(std::to_string(i));
    } catch (const std::runtime_error& e) {
      wrong += wait_below(random() % 12, seed + i, c);
      if (e.what() != std::to_string(i)) ++wrong;
    }
    if (random() % 4 == 0) this_fiber::yield();
    ++c.served;
  }
}

}  // namespace

TEST_SUITE("tasklet_images") {
  TEST_CASE(
      "woken at random by threads and each other: each wake-up is served, no frame is changed") {
    const std::uint64_t seed = stress_seed("tasklet_images: woken at random");
    struct shape {
      unsigned workers;
      std::size_t slots;
      bool strict;
    };
    for (const shape& s : {shape{2, 1, false}, shape{2, 7, false}, shape{4, 3, true}}) {
      runtime_options o;
      o.workers = s.workers;
      o.stack.kind = stack_kind::tasklet;
      o.tasklets.slots = s.slots;
      o.tasklets.strict = s.strict;
      o.seed = seed;
      constexpr std::size_t clients = 60;
      const auto calls = static_cast<unsigned>(rounds(150, 10));
      std::atomic<unsigned> wrong{0};
      std::vector<client> all(clients);
      tasklet_stats stats;
      {
        runtime rt(o);
        for (std::size_t i = 0; i != clients; ++i)
          rt.spawn([&, i] { serve(all[i], seed + i * 1000, calls, wrong); });
        // Each thread wakes half of them as often as they wait, mostly the first ones, so that the others are folded.
        std::vector<std::thread> wakers;
        for (std::size_t half = 0; half != 2; ++half)
          wakers.emplace_back([&, half] {
            std::minstd_rand random(static_cast<unsigned>(seed + half));
            std::vector<unsigned> left(clients / 2, calls);
            for (std::size_t open = left.size(); open != 0;) {
              const std::size_t from =
                  random() % 8 == 0 ? random() % left.size() : left.size() - open;
              std::size_t i = from;
              while (left[i] == 0) i = (i + 1) % left.size();
              all[half * left.size() + i].wake.release();
              if (--left[i] == 0) --open;
              if (random() % 3 == 0) std::this_thread::yield();
            }
          });
        for (std::thread& t : wakers) t.join();
        rt.drain();
        stats = rt.stats().tasklets;
      }
      for (const client& c : all) CHECK(c.served == calls);
      CHECK(wrong == 0);
      CHECK(stats.restores > 0);
      CHECK(stats.folds == stats.unfolds);
    }
  }
}
