// SPDX-License-Identifier: Apache-2.0
//
// Many tasklets in few slots: they enter, leave, wait for each other's slots, are woken while they are copied, end
// while others want their slots, start while all slots are taken, and are taken along by other workers. Every
// tasklet keeps words in its frames that depend on who it is, and looks at them after every wait. A wish that
// is overlooked hangs (the watchdog ends it); one stack in two places miscounts or crashes.
#include "support/stress.hpp"
#include "support/with_workers.hpp"

#include <tendril/channel.hpp>
#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <random>
#include <system_error>
#include <vector>

namespace {

using namespace std::chrono_literals;
using tendril::runtime;
using tendril::runtime_options;
using tendril::stack_kind;
using tendril::test::rounds;
using tendril::test::stress_seed;
using tendril::test::watchdog;
namespace this_fiber = tendril::this_fiber;

runtime_options options(unsigned workers, std::size_t slots, bool strict, std::uint64_t seed) {
  runtime_options o;
  o.workers = workers;
  o.stack.kind = stack_kind::tasklet;
  o.tasklets.slots = slots;
  o.tasklets.strict = strict;
  o.seed = seed;
  return o;
}

struct shape {
  unsigned workers;
  std::size_t slots;
  bool strict;
};
constexpr shape shapes[] = {{1, 1, false}, {1, 4, false}, {2, 1, false}, {2, 4, false},
                            {4, 2, false}, {4, 8, false}, {2, 4, true},  {4, 64, true}};

/// On the heap: what tasklets share must not lie on the stack of one.
struct shared {
  explicit shared(long permits) : gate(permits) {}
  tendril::counting_semaphore<> gate;
  std::atomic<std::uint64_t> waits{0};
  std::atomic<std::uint64_t> wrong{0};
  std::atomic<std::uint64_t> ended{0};
};

/// Waits `waits` times, at a depth that changes, in ways that differ.
[[gnu::noinline]] void wander(shared& s, std::uint64_t who, unsigned depth, unsigned waits,
                              std::minstd_rand& random) {
  volatile std::uint64_t mine[3] = {who, who * depth, ~who};
  volatile std::uint64_t* const where = mine;
  if (depth != 0) {
    wander(s, who, depth - 1, waits, random);
  } else {
    for (unsigned i = 0; i != waits; ++i) {
      switch (random() % 4) {
        case 0:
          this_fiber::yield();
          break;
        case 1:
          s.gate.acquire();
          this_fiber::yield();
          s.gate.release();
          break;
        case 2:
          this_fiber::sleep_for(std::chrono::microseconds(random() % 50));
          break;
        default:
          try {
            s.gate.acquire();
            s.gate.release();
            throw who;
          } catch (std::uint64_t thrown) {
            this_fiber::yield();
            if (thrown != who) ++s.wrong;
          }
      }
      ++s.waits;
    }
  }
  if (where[0] != who || where[1] != who * depth || where[2] != ~who || where != mine) ++s.wrong;
}

}  // namespace

TEST_SUITE("tasklets") {
  TEST_CASE("wandering tasklets find their frames as they left them") {
    const std::uint64_t seed = stress_seed("wandering tasklets");
    for (const shape& sh : shapes) {
      CAPTURE(sh.workers);
      CAPTURE(sh.slots);
      CAPTURE(sh.strict);
      const auto s = std::make_unique<shared>(3);
      const auto tasklets = static_cast<std::uint64_t>(rounds(3000));
      constexpr unsigned waits = 30;
      {
        runtime rt(options(sh.workers, sh.slots, sh.strict, seed));
        const watchdog dog("wandering tasklets", &rt);
        for (std::uint64_t i = 0; i != tasklets; ++i)
          rt.spawn([&s = *s, i, seed] {
            std::minstd_rand random(static_cast<unsigned>(seed * 977 + i));
            wander(s, i + 1, static_cast<unsigned>(random() % 12), waits, random);
            ++s.ended;
          });
        rt.drain();
        CHECK(rt.stats().tasklets.slots <= sh.slots);
      }
      CHECK(s->wrong == 0);
      CHECK(s->ended == tasklets);
      CHECK(s->waits == tasklets * waits);
    }
  }

  TEST_CASE("tasklets that start and end tasklets, while slots are short") {
    const std::uint64_t seed = stress_seed("trees of tasklets");
    for (const shape& sh : shapes) {
      CAPTURE(sh.workers);
      CAPTURE(sh.slots);
      CAPTURE(sh.strict);
      const auto s = std::make_unique<shared>(1);
      const auto trees = static_cast<std::uint64_t>(rounds(400));
      {
        runtime rt(options(sh.workers, sh.slots, sh.strict, seed));
        const watchdog dog("trees of tasklets", &rt);
        for (std::uint64_t i = 0; i != trees; ++i)
          rt.spawn([&s = *s] {
            std::vector<tendril::fiber> children;
            for (unsigned c = 0; c != 8; ++c)
              children.emplace_back([&s, c] {
                if (c % 2 == 0) this_fiber::yield();
                auto done = std::make_shared<std::atomic<int>>(0);
                tendril::fiber grandchild([done] { ++*done; });
                grandchild.join();
                if (*done != 1) ++s.wrong;
              });
            for (auto& child : children) child.join();
            ++s.ended;
          });
        rt.drain();
      }
      CHECK(s->wrong == 0);
      CHECK(s->ended == trees);
    }
  }

  TEST_CASE("tasklets that are stopped wherever they wait") {
    const std::uint64_t seed = stress_seed("stopped tasklets");
    for (const shape& sh : shapes) {
      CAPTURE(sh.workers);
      CAPTURE(sh.slots);
      CAPTURE(sh.strict);
      const auto s = std::make_unique<shared>(0);
      const auto tasklets = static_cast<std::uint64_t>(rounds(2000));
      std::atomic<std::uint64_t> canceled{0};
      {
        runtime rt(options(sh.workers, sh.slots, sh.strict, seed));
        const watchdog dog("stopped tasklets", &rt);
        for (std::uint64_t i = 0; i != tasklets; ++i)
          rt.spawn([&s = *s, &canceled, i] {
            try {
              if (i % 3 == 0) this_fiber::sleep_for(1h);
              else s.gate.acquire();
              ++s.wrong;
            } catch (const std::system_error& e) {
              if (e.code() == std::errc::operation_canceled) ++canceled;
            }
          });
        rt.run([] { this_fiber::yield(); });
        rt.stop();
      }
      CHECK(s->wrong == 0);
      CHECK(canceled == tasklets);
    }
  }
}
