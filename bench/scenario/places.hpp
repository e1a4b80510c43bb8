// SPDX-License-Identifier: Apache-2.0
//
// Where the models run in the experiments on async calls: all on one core, each with the scheduler that belongs
// to it. What is measured runs inside, in one go, so that starting and ending do not show.
//
// What a yield is there:
//   fibers      this_fiber::yield while a companion is runnable, which yields for ever: two switches (a fiber
//               alone would not leave its stack at all)
//   threads     std::this_thread::yield
//   async1      Task.Yield: queued on the pool, resumed from its loop
//   task, lean  queued in a lean::loop, resumed from it
#pragma once

#include "bench/models/lean/task.hpp"

#include <tendril/await.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>
#include <tendril/task.hpp>

#include <memory>
#include <utility>

namespace bench {

/// f() on a fiber; with_companion: another one is always runnable.
template <class F>
double on_fiber(tendril::runtime& runtime, bool with_companion, const F& f) {
  struct shared {
    bool over = false;
    double figure = 0;
  };
  const auto s = std::make_unique<shared>();
  runtime.run([&s = *s, &f, with_companion] {
    tendril::fiber companion([&s, with_companion] {
      while (with_companion && !s.over) tendril::this_fiber::yield();
    });
    s.figure = f();
    s.over = true;
    companion.join();
  });
  return s->figure;
}

/// The task that make() gives, awaited by a fiber; another fiber resumes what yields in `loop`.
template <class Make>
double on_tasks(tendril::runtime& runtime, lean::loop& loop, const Make& make) {
  struct shared {
    bool over = false;
    double figure = 0;
  };
  const auto s = std::make_unique<shared>();
  runtime.run([&s = *s, &loop, &make] {
    tendril::fiber looper([&s, &loop] {
      while (!s.over)
        if (!loop.run_one()) tendril::this_fiber::yield();
    });
    s.figure = tendril::await(make());
    s.over = true;
    looper.join();
  });
  return s->figure;
}

}  // namespace bench
