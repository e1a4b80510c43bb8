// SPDX-License-Identifier: Apache-2.0
//
// The explorer itself: counts that can be worked out by hand, and the textbook litmus tests, each with
// the outcome its memory orders allow and, where they are strong enough, without it.
#include "model/explorer.hpp"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <utility>

namespace {

using namespace tendril;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

bool mentions(const std::string& text, const char* word) {
  return text.find(word) != std::string::npos;
}

/// Two threads, each stores to its own flag and then reads the other's: what they can both see.
template <class Store>
std::set<std::pair<int, int>> store_then_load(const char* name, Store store) {
  std::set<std::pair<int, int>> seen;
  const auto found = model::explore(name, [&](model::execution& run) {
    model::atomic<int> x{0}, y{0};
    int a = -1, b = -1;
    const bool done = run.threads({[&] {
                                     store(x);
                                     a = y.load(memory_order_relaxed);
                                   },
                                   [&] {
                                     store(y);
                                     b = x.load(memory_order_relaxed);
                                   }});
    if (done) seen.emplace(a, b);
  });
  CHECK(found.passed());
  return seen;
}

TEST_SUITE("explorer") {
  TEST_CASE("operations on one location are tried in every order") {
    const auto found = model::explore("orders of 2 + 2 updates", [](model::execution& run) {
      model::atomic<int> x{0};
      const auto twice = [&] {
        x.fetch_add(1);
        x.fetch_add(1);
      };
      if (run.threads({twice, twice})) run.check(x.load() == 4, "no update is lost");
    });
    CHECK(found.passed());
    CHECK(found.executions == 6);  // 4! / (2! 2!)
  }

  TEST_CASE("independent operations are tried in one order") {
    const auto found = model::explore("independent updates", [](model::execution& run) {
      model::atomic<int> x{0}, y{0}, z{0};
      run.threads({[&] { x.fetch_add(1); }, [&] { y.fetch_add(1); }, [&] { z.fetch_add(1); }});
    });
    CHECK(found.passed());
    CHECK(found.executions == 1);
  }

  TEST_CASE("sleep sets lose no outcome: the same as without them") {
    const auto outcomes = [](model::options limits) {
      std::set<int> seen;
      model::explore(
          "outcomes with and without sleep sets",
          [&](model::execution& run) {
            model::atomic<int> x{0}, y{0};
            int a = 0, b = 0, c = 0;
            const bool done = run.threads({[&] {
                                             x.store(1, memory_order_relaxed);
                                             y.store(1, memory_order_relaxed);
                                             a = x.load(memory_order_relaxed);
                                           },
                                           [&] {
                                             y.store(2, memory_order_relaxed);
                                             x.store(2, memory_order_relaxed);
                                             b = y.load(memory_order_relaxed);
                                           },
                                           [&] {
                                             c = x.load(memory_order_relaxed) * 3;
                                             c += y.load(memory_order_relaxed);
                                           }});
            if (done) seen.insert((((a * 3 + b) * 9 + c) * 3 + x.load()) * 3 + y.load());
          },
          limits);
      return seen;
    };
    model::options all;
    all.preemptions = 1000;  // more than there are: no bound in effect, and sleep sets off
    CHECK(outcomes({}) == outcomes(all));
  }

  TEST_CASE("a lost update is found") {
    const auto found = model::explore("load, then store", [](model::execution& run) {
      model::atomic<int> x{0};
      const auto add = [&] { x.store(x.load() + 1); };
      if (run.threads({add, add})) run.check(x.load() == 2, "an update was lost");
    });
    CHECK(mentions(found.failure, "an update was lost"));
  }

  TEST_CASE("a preemption bound of zero runs one thread after the other") {
    model::options limits;
    limits.preemptions = 0;
    const auto found = model::explore(
        "load, then store, not preempted",
        [](model::execution& run) {
          model::atomic<int> x{0};
          const auto add = [&] { x.store(x.load() + 1); };
          if (run.threads({add, add})) run.check(x.load() == 2, "an update was lost");
        },
        limits);
    CHECK(found.passed());
    CHECK(found.executions == 2);
  }

  TEST_CASE("a deadlock is found") {
    const auto found = model::explore("two locks in two orders", [](model::execution& run) {
      model::semaphore a{1}, b{1};
      run.threads({[&] {
                     a.acquire();
                     b.acquire();
                   },
                   [&] {
                     b.acquire();
                     a.acquire();
                   }});
    });
    CHECK(mentions(found.failure, "deadlock"));
  }

  TEST_CASE("a livelock is found") {
    const auto found = model::explore("waiting for what never comes", [](model::execution& run) {
      model::atomic<int> x{0};
      run.threads({[&] {
        while (x.load() == 0) {
        }
      }});
    });
    CHECK(mentions(found.failure, "livelock"));
  }

  TEST_CASE("a store may be passed by the thread's next load") {
    const auto seen = store_then_load("store buffering, release", [](model::atomic<int>& own) {
      own.store(1, memory_order_release);
    });
    CHECK(seen.count({0, 0}) == 1);
    CHECK(seen.size() == 4);
  }

  TEST_CASE("not with a seq_cst fence, a seq_cst store or a full update between") {
    const std::set<std::pair<int, int>> allowed{{0, 1}, {1, 0}, {1, 1}};
    CHECK(store_then_load("store buffering, fence", [](model::atomic<int>& own) {
            own.store(1, memory_order_relaxed);
            model::fence_seq_cst();
          }) == allowed);
    CHECK(store_then_load("store buffering, seq_cst", [](model::atomic<int>& own) {
            own.store(1, memory_order_seq_cst);
          }) == allowed);
    CHECK(store_then_load("store buffering, update", [](model::atomic<int>& own) {
            own.exchange(1, memory_order_acq_rel);
          }) == allowed);
  }

  TEST_CASE("a relaxed store may be overtaken, a release store overtakes nothing") {
    for (const bool release : {false, true}) {
      bool overtaken = false;
      const auto found = model::explore(
          release ? "message passing, release" : "message passing, relaxed",
          [&](model::execution& run) {
            model::atomic<int> data{0}, flag{0};
            run.threads({[&] {
                           data.store(1, memory_order_relaxed);
                           flag.store(1, release ? memory_order_release : memory_order_relaxed);
                         },
                         [&] {
                           if (flag.load(memory_order_acquire) == 1 &&
                               data.load(memory_order_relaxed) == 0)
                             overtaken = true;
                         }});
          });
      CHECK(found.passed());
      CHECK(overtaken == !release);
    }
  }

  TEST_CASE("plain data needs release and acquire, or fences") {
    enum class how { ordered, no_release, no_acquire, fences, through_update };
    const auto pass_on = [](const char* name, how way) {
      return model::explore(name, [way](model::execution& run) {
        model::plain<int> data{0};
        model::atomic<int> flag{0};
        run.threads({[&] {
                       data.set(1);
                       if (way == how::fences) model::fence_seq_cst();
                       const bool relaxed = way == how::no_release || way == how::fences;
                       flag.store(1, relaxed ? memory_order_relaxed : memory_order_release);
                     },
                     [&] {
                       const bool relaxed = way == how::no_acquire || way == how::fences;
                       const int want = way == how::through_update ? 2 : 1;
                       if (flag.load(relaxed ? memory_order_relaxed : memory_order_acquire) != want)
                         return;
                       if (way == how::fences) model::fence_seq_cst();
                       model::check(data.get() == 1, "the data is there");
                     },
                     [&] {
                       // A relaxed update continues the release sequence of the store.
                       int one = 1;
                       if (way == how::through_update)
                         flag.compare_exchange_strong(one, 2, memory_order_relaxed,
                                                      memory_order_relaxed);
                     }});
      });
    };
    CHECK(pass_on("data by release and acquire", how::ordered).passed());
    CHECK(pass_on("data by fences", how::fences).passed());
    CHECK(pass_on("data through a relaxed update", how::through_update).passed());
    CHECK(mentions(pass_on("data without release", how::no_release).failure, "data race"));
    CHECK(mentions(pass_on("data without acquire", how::no_acquire).failure, "data race"));
  }

  TEST_CASE("what follows a release store is not published by it") {
    const auto found = model::explore("data after the flag", [](model::execution& run) {
      model::plain<int> data{0};
      model::atomic<int> flag{0};
      run.threads({[&] {
                     flag.store(1, memory_order_release);
                     data.set(1);
                   },
                   [&] {
                     if (flag.load(memory_order_acquire) == 1) (void)data.get();
                   }});
    });
    CHECK(mentions(found.failure, "data race"));
  }

  TEST_CASE("writing after an unordered read is a race as well") {
    const auto found = model::explore("read and write", [](model::execution& run) {
      model::plain<int> data{0};
      model::atomic<int> x{0};
      run.threads({[&] {
                     (void)data.get();
                     x.fetch_add(1, memory_order_relaxed);
                   },
                   [&] {
                     x.fetch_add(1, memory_order_relaxed);
                     data.set(1);
                   }});
    });
    CHECK(mentions(found.failure, "data race"));
  }
}

}  // namespace
