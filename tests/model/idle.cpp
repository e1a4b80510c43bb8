// SPDX-License-Identifier: Apache-2.0
//
// Going to sleep against making work, every interleaving. First the bare protocol: queue, fence, look for
// sleepers, against: count yourself asleep, fence, look at the queue. Without either fence the
// explorer must find the runnable fiber that nobody runs. Then the scheduler's own, in which at most
// one worker is being woken at a time and the last searcher takes over the duty to wake: here every
// worker that finds a fiber runs it for ever, so each fiber must wake a worker of its own.
#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "model/explorer.hpp"
#include "sched/run_queue.hpp"

namespace {

using namespace tendril;
using model::model_atomics;
using std::memory_order_acq_rel;
using std::memory_order_relaxed;
using std::memory_order_seq_cst;

struct item {
  model::plain<int> taken{0};
};
using queue_type = detail::basic_run_queue<item, 4, model_atomics>;

model::result one_producer_one_sleeper(const char* name, bool producer_fences,
                                       bool sleeper_fences) {
  return model::explore(name, [=](model::execution& run) {
    item work;
    queue_type queue, mine;
    model::atomic<int> asleep{0};
    model::semaphore poller{0};
    const auto claim_sleeper = [&] { return asleep.exchange(0, memory_order_acq_rel) == 1; };
    const bool done = run.threads({[&] {
                                     queue.push(&work);
                                     if (producer_fences) model::fence_seq_cst();
                                     if (asleep.load(memory_order_relaxed) == 1 && claim_sleeper())
                                       poller.release();
                                   },
                                   [&] {
                                     for (;;) {
                                       item* got = nullptr;
                                       if (queue.steal_into(mine, got) != 0) {
                                         got->taken.set(1);
                                         return;
                                       }
                                       asleep.store(1, memory_order_relaxed);
                                       if (sleeper_fences) model::fence_seq_cst();
                                       if (!queue.empty() && claim_sleeper()) continue;
                                       poller.acquire();  // or the producer was faster: it wakes us
                                     }
                                   }});
    if (done) run.check(work.taken.get() == 1, "the fiber ran");
  });
}

/// Mistakes that leave a fiber lying while a worker sleeps.
enum class mistake {
  none,
  last_searcher_goes_away,  // one that found a fiber does not look whether there are more
  claim_given_back,  // a worker that was chosen while it was falling asleep, and saw work itself,
                     // stops counting as a searcher: others, seeing it search, have woken nobody
};

/// scheduler::announce_work and what belongs to it, for workers 1 and 2; worker 0 makes the work.
struct scheduler_model {
  explicit scheduler_model(mistake m) : made(m) {}

  const mistake made;
  std::array<queue_type, 3> queues;
  std::array<model::semaphore, 3> pollers;
  model::atomic<std::uint64_t> sleepers{0};
  model::atomic<std::uint32_t> searching{0};

  void announce_work() {
    model::fence_seq_cst();
    if (sleepers.load(memory_order_relaxed) == 0) return;
    std::uint32_t nobody = 0;
    if (!searching.compare_exchange_strong(nobody, 1, memory_order_seq_cst, memory_order_relaxed))
      return;
    for (std::uint64_t m = sleepers.load(memory_order_seq_cst); m != 0;
         m = sleepers.load(memory_order_seq_cst)) {
      const unsigned i = (m & 2) != 0 ? 1 : 2;
      if (clear_sleeper(i)) {
        pollers[i].release();
        return;
      }
    }
    searching.fetch_sub(1, memory_order_seq_cst);
  }

  bool work_in_sight() { return !queues[0].empty(); }

  void end_search(bool found) {
    if (searching.fetch_sub(1, memory_order_seq_cst) != 1 || !found) return;
    if (made != mistake::last_searcher_goes_away && work_in_sight()) announce_work();
  }

  bool set_sleeper(unsigned i) { return change_sleepers(i, true); }
  bool clear_sleeper(unsigned i) { return change_sleepers(i, false); }
  bool change_sleepers(unsigned i, bool set) {
    // fetch_or and fetch_and as additions of one bit that is known to differ.
    const std::uint64_t bit = std::uint64_t{1} << i;
    std::uint64_t seen = sleepers.load(memory_order_relaxed);
    for (;;) {
      const bool was_set = (seen & bit) != 0;
      if (sleepers.compare_exchange_strong(seen, set ? seen | bit : seen & ~bit,
                                           memory_order_seq_cst, memory_order_relaxed))
        return was_set;
    }
  }

  /// False: there is work to look for, as a searcher if `claimed`.
  bool enter_sleep(unsigned i, bool& claimed) {
    set_sleeper(i);
    model::fence_seq_cst();
    if (!work_in_sight()) return true;
    claimed = !clear_sleeper(i);
    if (claimed && made == mistake::claim_given_back) {
      searching.fetch_sub(1, memory_order_seq_cst);
      claimed = false;
    }
    return false;
  }

  /// A worker that looks for one fiber, or sleeps already.
  void work(unsigned me, bool asleep) {
    bool is_searching = false;
    for (;;) {
      if (!asleep) {
        item* got = nullptr;
        if (queues[0].steal_into(queues[me], got) != 0) {
          if (is_searching) end_search(true);
          got->taken.set(1);
          return;
        }
        if (is_searching) end_search(false);
        is_searching = false;
        if (!enter_sleep(me, is_searching)) continue;
      }
      pollers[me].acquire();
      asleep = false;
      is_searching = !clear_sleeper(me);  // whoever woke us counted us
    }
  }
};

/// `asleep`: bit i says that worker i sleeps from the start.
model::result two_items_two_workers(const char* name, mistake made, std::uint64_t asleep) {
  return model::explore(name, [=](model::execution& run) {
    std::array<item, 2> items;
    model::undestroyed<scheduler_model> s(made);
    s->sleepers.store(asleep);
    const bool done = run.threads({[&] {
                                     for (item& i : items) {
                                       s->queues[0].push(&i);
                                       s->announce_work();
                                     }
                                   },
                                   [&] { s->work(1, (asleep & 2) != 0); },
                                   [&] { s->work(2, (asleep & 4) != 0); }});
    if (!done) return;
    for (item& i : items) run.check(i.taken.get() == 1, "a fiber did not run");
  });
}

TEST_SUITE("idle") {
  TEST_CASE("queue, then look, against sleep, then look") {
    CHECK(one_producer_one_sleeper("idle: both fence", true, true).passed());
  }

  TEST_CASE("without the producer's fence a fiber is left lying") {
    const auto found = one_producer_one_sleeper("idle: producer without fence", false, true);
    CHECK(found.failure.find("deadlock") != std::string::npos);
  }

  TEST_CASE("without the sleeper's fence a fiber is left lying") {
    const auto found = one_producer_one_sleeper("idle: sleeper without fence", true, false);
    CHECK(found.failure.find("deadlock") != std::string::npos);
  }

  TEST_CASE("waking one at a time wakes a worker for every fiber") {
    CHECK(two_items_two_workers("idle: 2 fibers, 2 sleepers", mistake::none, 6).passed());
    CHECK(two_items_two_workers("idle: 2 fibers, 1 sleeper", mistake::none, 4).passed());
  }

  TEST_CASE("a last searcher that does not look again leaves a fiber lying") {
    const auto found =
        two_items_two_workers("idle: last searcher goes away", mistake::last_searcher_goes_away, 6);
    CHECK(found.failure.find("deadlock") != std::string::npos);
  }

  TEST_CASE("a claim that is given back leaves a fiber lying") {
    const auto found =
        two_items_two_workers("idle: claim given back", mistake::claim_given_back, 4);
    CHECK(found.failure.find("deadlock") != std::string::npos);
  }
}

}  // namespace
