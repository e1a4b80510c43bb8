// SPDX-License-Identifier: Apache-2.0
//
// park_word, every interleaving: no wake-up is lost (the explorer would find a waiter parked for ever), a
// waiter is scheduled exactly once for each park, by someone who sees its saved context. And the
// shortcut that its comment forbids is shown to lose one.
#include "sched/park_word.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <string>

#include "model/explorer.hpp"
#include "model/weakened_atomics.hpp"

namespace {

using namespace tendril;
using model::model_atomics;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;

/// A fiber and its word. What waits for the word waits for relaxed flags: nothing but the word makes
/// the wakers' writes visible in time.
template <class ParkWord>
struct fiber {
  ParkWord word;
  model::plain<int> context{0};   // written when the fiber is switched away from, read when resumed
  model::semaphore run_queue{0};  // counts how often it was scheduled

  template <class Condition>
  void wait_for(Condition condition) {
    while (!condition()) {
      if (word.try_consume()) continue;
      context.set(context.get() + 1);     // saved; from here on, another stack
      if (!word.commit_park()) continue;  // made runnable at once
      run_queue.acquire();
    }
  }

  void wake() {
    if (!word.unpark()) return;
    // Ours to schedule. A second one who thought so would race with this access.
    context.set(context.get() + 1);
    run_queue.release();
  }
};

template <class ParkWord>
model::result two_wakers(const char* name) {
  return model::explore(name, [](model::execution& run) {
    fiber<ParkWord> f;
    model::atomic<int> x{0}, y{0};
    const bool done = run.threads({[&] {
                                     f.wait_for([&] {
                                       return x.load(memory_order_relaxed) == 1 &&
                                              y.load(memory_order_relaxed) == 1;
                                     });
                                   },
                                   [&] {
                                     x.store(1, memory_order_relaxed);
                                     f.wake();
                                   },
                                   [&] {
                                     y.store(1, memory_order_relaxed);
                                     f.wake();
                                   }});
    if (done) run.check(f.run_queue.count() == 0, "scheduled while running");
  });
}

/// One who moves the stack of a waiter while it is parked, and one who wakes it meanwhile.
template <class ParkWord>
model::result mover_and_waker(const char* name) {
  return model::explore(name, [](model::execution& run) {
    fiber<ParkWord> f;
    model::atomic<int> x{0};
    const bool done =
        run.threads({[&] { f.wait_for([&] { return x.load(memory_order_relaxed) == 1; }); },
                     [&] {
                       x.store(1, memory_order_relaxed);
                       f.wake();
                     },
                     [&] {
                       if (!f.word.try_hold()) return;
                       f.context.set(f.context.get() + 1);
                       if (!f.word.release_hold()) return;
                       f.context.set(f.context.get() + 1);
                       f.run_queue.release();
                     }});
    if (done) run.check(f.run_queue.count() == 0, "scheduled while running");
  });
}

/// As slots.hpp says: one departs, another wants it moved. Wish first: by whom it is written before the look.
template <bool WishFirst>
model::result departure_and_wish(const char* name) {
  return model::explore(name, [](model::execution& run) {
    detail::basic_park_word<model_atomics> word;
    model::plain<int> stack{0};
    model::atomic<int> wish{0}, moved{0};
    model::semaphore lock{1};
    // What the slot's lock is for: the second finds that nobody waits any more.
    const auto move_if_parked = [&] {
      lock.acquire();
      if (word.try_hold()) {
        stack.set(stack.get() + 1);
        moved.store(1, memory_order_relaxed);
        word.release_hold();
      }
      lock.release();
    };
    const bool done = run.threads({[&] {
                                     stack.set(1);
                                     if (!word.commit_park()) return;
                                     if (wish.load(memory_order_relaxed) == 1) move_if_parked();
                                   },
                                   [&] {
                                     if (WishFirst) wish.store(1, memory_order_relaxed);
                                     move_if_parked();
                                     if (!WishFirst) wish.store(1, memory_order_relaxed);
                                   }});
    if (done) run.check(moved.load(memory_order_relaxed) == 1, "the wish was overlooked");
  });
}

/// Takes no notice of who woke the waiter while it was held.
class forgetful_park_word : public detail::basic_park_word<model_atomics> {
 public:
  bool release_hold() noexcept {
    detail::basic_park_word<model_atomics>::release_hold();
    return false;
  }
};

/// As basic_park_word, but unpark() returns early when it sees a permit.
class shortcut_park_word {
 public:
  bool unpark() noexcept {
    if (word_.load(memory_order_relaxed) > 0) return false;
    return word_.fetch_add(1, memory_order_acq_rel) == -1;
  }
  bool try_consume() noexcept {
    if (word_.load(memory_order_relaxed) == 0) return false;
    word_.exchange(0, memory_order_acquire);
    return true;
  }
  bool commit_park() noexcept {
    const std::int64_t before = word_.fetch_sub(1, memory_order_acq_rel);
    if (before > 1) word_.exchange(0, memory_order_acquire);
    return before == 0;
  }

 private:
  model::atomic<std::int64_t> word_{0};
};

/// Parks, but takes no notice of a permit that came before.
class deaf_park_word : public shortcut_park_word {
 public:
  bool commit_park() noexcept {
    try_consume();
    return shortcut_park_word::commit_park();
  }
};

TEST_SUITE("park_word") {
  TEST_CASE("two wakers, and a waiter that needs both") {
    CHECK(two_wakers<detail::basic_park_word<model_atomics>>("park_word: 2 wakers").passed());
  }

  TEST_CASE("a waker that skips the update when it sees a permit loses a wake-up") {
    const auto found = two_wakers<shortcut_park_word>("park_word: skipping unpark");
    CHECK(found.failure.find("deadlock") != std::string::npos);
  }

  TEST_CASE("parking over a permit loses a wake-up") {
    const auto found = two_wakers<deaf_park_word>("park_word: permit ignored");
    CHECK(found.failure.find("deadlock") != std::string::npos);
  }

  TEST_CASE("without release or acquire the saved context is not seen") {
    const auto fails = [](const model::result& found) { return !found.failure.empty(); };
    CHECK(fails(two_wakers<detail::basic_park_word<model::no_release>>("park_word: no release")));
    CHECK(fails(two_wakers<detail::basic_park_word<model::no_acquire>>("park_word: no acquire")));
  }

  TEST_CASE("who moves a parked waiter excludes its waker, and wakes it in the waker's place") {
    CHECK(mover_and_waker<detail::basic_park_word<model_atomics>>("park_word: held").passed());
    const auto found = mover_and_waker<forgetful_park_word>("park_word: wake-up while held");
    CHECK(found.failure.find("deadlock") != std::string::npos);
    CHECK(
        !mover_and_waker<detail::basic_park_word<model::no_release>>("park_word: hold, no release")
             .passed());
    CHECK(
        !mover_and_waker<detail::basic_park_word<model::no_acquire>>("park_word: hold, no acquire")
             .passed());
  }

  TEST_CASE("a departure and a wish to move see each other") {
    CHECK(departure_and_wish<true>("park_word: wish, then hold").passed());
    CHECK(!departure_and_wish<false>("park_word: hold, then wish").passed());
  }

  TEST_CASE("a stray wake-up from an earlier wait harms no later one") {
    const auto found = model::explore("park_word: stray wake-up", [](model::execution& run) {
      fiber<detail::basic_park_word<model_atomics>> f;
      model::atomic<int> first{0}, second{0};
      const auto is_set = [](model::atomic<int>& flag) {
        return [&flag] { return flag.load(memory_order_relaxed) == 1; };
      };
      const bool done = run.threads({[&] {
                                       f.wait_for(is_set(first));
                                       f.wait_for(is_set(second));
                                     },
                                     [&] {
                                       first.store(1, memory_order_relaxed);
                                       f.wake();
                                       f.wake();  // once too often
                                     },
                                     [&] {
                                       second.store(1, memory_order_relaxed);
                                       f.wake();
                                     }});
      if (done) run.check(f.run_queue.count() == 0, "scheduled while running");
    });
    CHECK(found.passed());
  }
}

}  // namespace
