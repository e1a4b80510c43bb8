// SPDX-License-Identifier: Apache-2.0
//
// The life of a computation that waits once, deep in calls: it is created, calls down so many frames, waits at the
// bottom, is woken, returns through all of them and ends. Each frame has an integer that is used after the call. So
// many at once: all are created, then all are woken. Shared by E14c and the micro benchmarks.
//   reserved, tasklet     spawned
//   thunk, thunk_tasklet  started at once by the caller, which goes on when they wait
//   task, lean, async1    coroutines, a frame each, resumed by their handles: no scheduler is between
#pragma once

#include "bench/models/async1/task.hpp"
#include "bench/models/lean/task.hpp"
#include "bench/scenario/resumption.hpp"

#include <tendril/fiber.hpp>
#include <tendril/future.hpp>
#include <tendril/runtime.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/task.hpp>
#include <tendril/thunk.hpp>

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace bench {

struct deep_life {
  long depth = 0;
  std::int64_t sum = 0;  ///< of the integers, added while returning
  std::size_t* waiting =
      nullptr;  ///< how many of the batch are at the bottom; one thread, so no two at once
  tendril::binary_semaphore gate{0};
  resumption coroutine;

  void used(std::int64_t integer) noexcept { sum += integer; }
  std::int64_t expected() const noexcept { return depth * (depth + 1) / 2; }
};

[[gnu::noinline]] inline void live(deep_life& l, long depth) {
  std::int64_t integer = depth;
  asm volatile("" : "+r"(integer));
  if (depth != 1) {
    live(l, depth - 1);
  } else {
    ++*l.waiting;
    l.gate.acquire();
    --*l.waiting;
  }
  l.used(integer);
}

struct at_bottom_of {
  deep_life& l;
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> h) {
    l.coroutine = resumption(h);
  }
  void await_resume() const noexcept {}
};

template <class Task>
[[gnu::noinline]] Task live_in(deep_life& l, long depth) {
  std::int64_t integer = depth;
  asm volatile("" : "+r"(integer));
  if (depth != 1) co_await live_in<Task>(l, depth - 1);
  else co_await at_bottom_of{l};
  l.used(integer);
}

class deep_lives {
 public:
  /// slots: those that the tasklets share. Throws std::invalid_argument naming an unknown model.
  deep_lives(const std::string& model, long depth, std::size_t at_once, std::size_t slots)
      : batch_(batch_of(model)), at_once_(at_once), depth_(depth), runtime_(options(slots)) {}

  /// n lives, a multiple of at_once; what now() says after them less what it said before.
  template <class Now>
  double run(std::int64_t n, Now now) {
    if (n % static_cast<std::int64_t>(at_once_) != 0)
      throw std::invalid_argument("not so many at once");
    const auto took = std::make_unique<double>();
    runtime_.run([this, n, now, &took = *took] {
      std::vector<deep_life> lives(at_once_);
      std::size_t waiting = 0;
      for (deep_life& l : lives) {
        l.depth = depth_;
        l.waiting = &waiting;
      }
      const double begin = now();
      for (std::int64_t done = 0; done != n; done += static_cast<std::int64_t>(at_once_)) {
        batch_(lives);
        check(lives);
      }
      took = now() - begin;
    });
    return *took;
  }
  tendril::tasklet_stats stats() const { return runtime_.stats().tasklets; }

  static bool is_tasklet(const std::string& model) {
    return model.find("tasklet") != std::string::npos;
  }

 private:
  using batch = void (*)(std::vector<deep_life>&);

  static tendril::runtime_options options(std::size_t slots) {
    tendril::runtime_options o;
    o.workers = 1;
    o.stack.kind = tendril::stack_kind::reserved;
    o.tasklets.slots = slots;
    return o;
  }

  static void check(std::vector<deep_life>& lives) {
    for (deep_life& l : lives) {
      if (l.sum != l.expected()) throw std::logic_error("frames were left out");
      l.sum = 0;
    }
  }

  static void open_gates(std::vector<deep_life>& lives) {
    const std::size_t& waiting = *lives.front().waiting;
    while (waiting != lives.size()) tendril::this_fiber::yield();
    for (deep_life& l : lives) l.gate.release();
    // Who has left the bottom has ended when it is switched away from.
    while (waiting != 0) tendril::this_fiber::yield();
  }

  template <tendril::stack_kind Kind>
  static void of_fibers(std::vector<deep_life>& lives) {
    tendril::fiber_options o;
    o.stack.kind = Kind;
    for (deep_life& l : lives) tendril::spawn(o, [&l] { live(l, l.depth); });
    open_gates(lives);
  }

  template <tendril::stack_kind Kind>
  static void of_thunks(std::vector<deep_life>& lives) {
    const auto call = tendril::thunk([](deep_life* l) { live(*l, l->depth); }, Kind);
    std::vector<tendril::future<void>> ends;
    ends.reserve(lives.size());
    for (deep_life& l : lives) ends.push_back(call(&l));
    open_gates(lives);
    for (tendril::future<void>& end : ends) end.get();
  }

  static void resume_all(std::vector<deep_life>& lives) {
    for (deep_life& l : lives) {
      if (!l.coroutine) throw std::logic_error("a coroutine does not wait at the bottom");
      l.coroutine.resume();
    }
  }

  static void of_tasks(std::vector<deep_life>& lives) {
    for (deep_life& l : lives)
      static_cast<void>(tendril::start(live_in<tendril::task<void>>(l, l.depth)));
    resume_all(lives);
  }

  static void of_async1(std::vector<deep_life>& lives) {
    std::vector<async1::task<void>> tasks;
    tasks.reserve(lives.size());
    for (deep_life& l : lives) tasks.push_back(live_in<async1::task<void>>(l, l.depth));
    resume_all(lives);
  }

  static void of_lean(std::vector<deep_life>& lives) {
    std::vector<lean::task<void>> tasks;
    tasks.reserve(lives.size());
    for (deep_life& l : lives) {
      tasks.push_back(live_in<lean::task<void>>(l, l.depth));
      tasks.back().start();
    }
    resume_all(lives);
  }

  static batch batch_of(const std::string& model) {
    using tendril::stack_kind;
    if (model == "reserved") return of_fibers<stack_kind::reserved>;
    if (model == "tasklet") return of_fibers<stack_kind::tasklet>;
    if (model == "thunk") return of_thunks<stack_kind::reserved>;
    if (model == "thunk_tasklet") return of_thunks<stack_kind::tasklet>;
    if (model == "task") return of_tasks;
    if (model == "lean") return of_lean;
    if (model == "async1") return of_async1;
    throw std::invalid_argument(
        "unknown model '" + model +
        "'; known: reserved, tasklet, thunk, thunk_tasklet, task, lean, async1");
  }

  const batch batch_;
  const std::size_t at_once_;
  const long depth_;
  tendril::runtime runtime_;
};

}  // namespace bench
