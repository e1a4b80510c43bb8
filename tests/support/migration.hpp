// SPDX-License-Identifier: Apache-2.0
//
// Moving a fiber to a chosen worker, for tests of what must travel along.
//
// Idea: a *porter* is pinned to each worker. A fiber that wants to go to worker w parks and has the
// porter of w wake it: who is woken by a running fiber is queued on that fiber's worker, in the slot
// that thieves leave alone. Where that fails (the passenger was woken before it was parked, the
// monitor lifted the ban on theft) it tries again: move_to() returns on worker w, or not at all.
//
// Nothing here throws or touches errno between the park and the return, so what the caller finds
// changed was changed by the switch.
#pragma once

#include <tendril/detail/waiting.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

namespace tendril::test {

class shuttle {
 public:
  /// Starts the porters on rt; called off its fibers, as its end is.
  explicit shuttle(runtime& rt) {
    for (unsigned i = 0; i != rt.workers(); ++i) porters_.push_back(std::make_unique<porter>());
    rt.run([this, n = static_cast<int>(rt.workers())] {
      for (int i = 0; i != n; ++i) {
        porter& p = *porters_[static_cast<std::size_t>(i)];
        p.body = fiber({.name = "porter", .affinity = i}, [&p] { carry(p); });
      }
    });
  }
  ~shuttle() {
    for (const auto& p : porters_) {
      p->closing.store(true);
      if (detail::waiter* const w = p->self.load()) detail::unpark(w);
      p->body.join();
    }
  }
  shuttle(const shuttle&) = delete;
  shuttle& operator=(const shuttle&) = delete;

  /// On a fiber without affinity: parks at least once, continues on worker w.
  ///
  /// \switch yes
  void move_to(int w) noexcept {
    do {
      const auto p = std::make_unique<passenger>();
      p->who = detail::current_waiter();
      porter& by = *porters_[static_cast<std::size_t>(w)];
      {
        const std::lock_guard hold(by.mutex);
        by.waiting.push_back(p.get());
      }
      by.calls.store(true);
      if (detail::waiter* const porter_waiter = by.self.load()) detail::unpark(porter_waiter);
      detail::wait_until_done(
          [](const void* a) noexcept { return static_cast<const passenger*>(a)->carried.load(); },
          p.get(), {.cancelable = false, .reason = "shuttle::move_to"});
    } while (this_fiber::worker_index() != w);
  }

  /// To another worker than the present one.
  void move_on() noexcept {
    move_to((this_fiber::worker_index() + 1) % static_cast<int>(porters_.size()));
  }

 private:
  struct passenger {
    detail::waiter* who = nullptr;
    std::atomic<bool> carried{false};
  };
  struct porter {
    fiber body;
    std::atomic<detail::waiter*> self{nullptr};
    std::atomic<bool> calls{false};
    std::atomic<bool> closing{false};
    std::mutex mutex;
    std::vector<passenger*> waiting;
  };

  static void carry(porter& p) {
    p.self.store(detail::current_waiter());
    while (!p.closing.load()) {
      std::vector<passenger*> now;
      p.calls.store(false);
      {
        const std::lock_guard hold(p.mutex);
        now.swap(p.waiting);
      }
      for (passenger* const one : now) {
        detail::waiter* const who = one->who;
        one->carried.store(true);  // its memory is the passenger's again
        detail::unpark(who);
      }
      detail::wait_until_done(
          [](const void* a) noexcept {
            const auto& me = *static_cast<const porter*>(a);
            return me.calls.load() || me.closing.load();
          },
          &p, {.cancelable = false, .reason = "porter"});
    }
    p.self.store(nullptr);
  }

  std::vector<std::unique_ptr<porter>> porters_;
};

}  // namespace tendril::test
