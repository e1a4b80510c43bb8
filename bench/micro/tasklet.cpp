// SPDX-License-Identifier: Apache-2.0
//
// Question: what does it cost that tasklets share their stacks?
//   round_trip/reserved, hit  to a fiber on a stack of its own; to a tasklet that is still in its slot
//   round_trip/miss, miss_1k, miss_4k, miss_16k  to one that is not, by turns with another one that so is sent
//                             away: two copies of as many live bytes as the counter says, out of the first-level cache
//                             as far as they fit
//   life_D/X                  a computation is created, waits below D frames, goes on and ends; beside fibers on stacks
//                             of their own and coroutine chains
//
// Does not show: stacks and images that caches have forgotten, and many at once (E14c); who shares with whom (E14p).
#include "bench/micro/harness.hpp"
#include "bench/scenario/deep_lives.hpp"
#include "bench/scenario/tasklet_round_trips.hpp"

#include <chrono>
#include <cstdint>
#include <string>

namespace bench::micro {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void add_round_trip(const std::string& name, const round_trips::setting& s) {
  add("bm_tasklet/round_trip/" + name, 1, [s](std::int64_t n) {
    round_trips trips(s);
    trips.run(2 * static_cast<std::int64_t>(s.clients), now);  // blocks for the images are there
    return duration(trips.run(n, now));
  });
}

void add_life(const char* model, long depth) {
  add("bm_tasklet/life_" + std::to_string(depth) + "/" + model, 1,
      [model = std::string(model), depth](std::int64_t n) {
        deep_lives lives(model, depth, 1, 64);
        lives.run(16, now);
        return duration(lives.run(n, now));
      });
}

}  // namespace

void register_tasklet() {
  add_round_trip("reserved", {0, 2, 0});
  add_round_trip("hit", {64, 2, 0});
  add_round_trip("miss", {1, 2, 0});
  add_round_trip("miss_1k", {1, 2, live_1k});
  add_round_trip("miss_4k", {1, 2, live_4k});
  add_round_trip("miss_16k", {1, 2, live_16k});
  for (const long depth : {1L, 10L, 100L})
    for (const char* const model :
         {"reserved", "tasklet", "thunk", "thunk_tasklet", "task", "lean"})
      add_life(model, depth);
}

}  // namespace bench::micro
