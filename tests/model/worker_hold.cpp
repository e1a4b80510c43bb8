// SPDX-License-Identifier: Apache-2.0
//
// Taking a worker away from a thread that may come back at any instant: the thread enters, uses the worker and
// leaves, a few times; the monitor tries to claim it, and uses it if it succeeds. What the worker owns is
// one plain variable, so that the explorer reports a race wherever both have it. Each weakening of the
// protocol must be found.
#include "sched/worker_hold.hpp"

#include <doctest/doctest.h>

#include <string>

#include "model/explorer.hpp"
#include "model/weakened_atomics.hpp"

namespace {

using namespace tendril;
using std::memory_order_relaxed;

struct worker {
  model::plain<int> uses{0};
};

template <class Base, bool Heavy = true, bool Answers = true>
struct fences : Base {
  static void light_fence() noexcept {}
  static bool heavy_fence() noexcept {
    if (Heavy) model::fence_everywhere();
    return Answers;
  }
};

/// The crew's lock, by which a thread learns how a claim ended.
class lock {
 public:
  void acquire() { free_.acquire(); }
  void release() { free_.release(); }

 private:
  model::semaphore free_{1};
};

enum class mistake { none, does_not_ask };

template <class Atomics>
model::result thread_and_monitor(const char* name, int entries, mistake made = mistake::none) {
  return model::explore(name, [=](model::execution& run) {
    using hold_type = detail::basic_worker_hold<worker, Atomics>;
    worker w;
    hold_type hold;
    lock crew;
    hold.take(&w);
    hold.leave();
    bool taken = false;
    int used = 0;
    const bool done = run.threads(
        {[&] {
           for (int i = 0; i != entries; ++i) {
             worker* mine = hold.enter().worker;
             if (hold_type::is_claimed(mine) && made == mistake::none) {
               crew.acquire();
               mine = hold.held();
               crew.release();
             }
             if (hold_type::is_worker(mine)) {
               mine->uses.set(mine->uses.get() + 1);
               ++used;
             } else if (made == mistake::does_not_ask) {
               model::check(mine == nullptr, "taken for an orphan while it has its worker");
             }
             hold.leave();
           }
         },
         [&] {
           crew.acquire();
           if (!hold.looks_inside() && hold.claim(&w)) {
             w.uses.set(w.uses.get() + 100);
             taken = true;
             hold.finish_claim();
           }
           crew.release();
         }});
    if (!done) return;
    run.check(w.uses.get() == used + (taken ? 100 : 0), "a use was lost");
    run.check((hold.held() == nullptr) == taken, "a worker has one holder");
  });
}

/// The thread that is given the worker sees what the one before did to it.
model::result three_holders(const char* name) {
  return model::explore(name, [](model::execution& run) {
    using hold_type = detail::basic_worker_hold<worker, fences<model::model_atomics>>;
    worker w;
    hold_type first, second;
    model::semaphore given{0};
    first.take(&w);
    first.leave();
    const bool done = run.threads({[&] {
                                     worker* const mine = first.enter().worker;
                                     if (hold_type::is_worker(mine)) mine->uses.set(1);
                                     first.leave();
                                   },
                                   [&] {
                                     if (first.claim(&w)) first.finish_claim();
                                     else return;
                                     given.release();
                                   },
                                   [&] {
                                     if (given.count() == 0) return;
                                     given.acquire();
                                     second.take(&w);
                                     w.uses.set(w.uses.get() + 10);
                                     second.leave();
                                   }});
    if (done) run.check(w.uses.get() <= 11, "each use once");
  });
}

TEST_SUITE("worker_hold") {
  TEST_CASE("of thread and claimant one has the worker, whatever the interleaving") {
    using atomics = fences<model::model_atomics>;
    CHECK(thread_and_monitor<atomics>("worker_hold: 1 entry", 1).passed());
    CHECK(thread_and_monitor<atomics>("worker_hold: 2 entries", 2).passed());
    CHECK(thread_and_monitor<atomics>("worker_hold: 3 entries", 3).passed());
    CHECK(three_holders("worker_hold: 3 holders").passed());
  }

  TEST_CASE("without the heavy fence both have it") {
    const auto found =
        thread_and_monitor<fences<model::model_atomics, false>>("worker_hold: no heavy fence", 2);
    CHECK(found.failure.find("data race") != std::string::npos);
  }

  TEST_CASE("without release or acquire the claimant misses what the thread did") {
    const auto released =
        thread_and_monitor<fences<model::no_release>>("worker_hold: no release", 2);
    CHECK(released.failure.find("data race") != std::string::npos);
    const auto acquired =
        thread_and_monitor<fences<model::no_acquire>>("worker_hold: no acquire", 2);
    CHECK(acquired.failure.find("data race") != std::string::npos);
  }

  TEST_CASE("a thread that does not ask how a claim ended mistakes itself for an orphan") {
    const auto found = thread_and_monitor<fences<model::model_atomics>>("worker_hold: does not ask",
                                                                        2, mistake::does_not_ask);
    CHECK(found.failure.find("taken for an orphan") != std::string::npos);
  }

  TEST_CASE("where there is no heavy fence nothing is ever claimed") {
    CHECK(thread_and_monitor<fences<model::model_atomics, false, false>>(
              "worker_hold: no membarrier", 2)
              .passed());
  }
}

}  // namespace
