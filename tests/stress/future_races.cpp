// SPDX-License-Identifier: Apache-2.0
//
// Futures in their narrow windows: a promise set while somebody begins to wait, attaches a continuation,
// cancels, drops, or lets when_any take its links out. In each round one flow holds a batch of promises'
// futures, and a fiber started for it sets the promises at the same time. Readers are fibers and threads.
//
// Every case adds up: each value is read exactly once, or given up by an act that is counted too; what
// promises, hooks and continuations hold is gone in the end. A lost wake-up hangs, and the watchdog tells.
// At TENDRIL_STRESS_SCALE=10 the cases together make more than ten million promises.
#include "support/stress.hpp"
#include "support/with_workers.hpp"

#include <tendril/future.hpp>
#include <tendril/when.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <future>
#include <random>
#include <system_error>
#include <utility>
#include <vector>

using tendril::future;
using tendril::promise;
using tendril::test::on_everyone;
using tendril::test::rounds;
using tendril::test::stress_seed;
using tendril::test::with_workers;

namespace {

constexpr int reading_fibers = 6;
constexpr int reading_threads = 2;
constexpr int readers = reading_fibers + reading_threads;
constexpr std::size_t batch = 48;

struct counted {
  static inline std::atomic<std::int64_t> alive{0};
  explicit counted(std::uint64_t v) : value(v) { ++alive; }
  counted(counted&& other) noexcept : value(other.value) { ++alive; }
  counted(const counted& other) noexcept : value(other.value) { ++alive; }
  counted& operator=(const counted&) = default;
  ~counted() { --alive; }
  std::uint64_t value;
};

struct account {
  std::atomic<std::uint64_t> set = 0;
  std::atomic<std::uint64_t> read = 0;
  std::atomic<std::uint64_t> given_up = 0;
  std::atomic<std::uint64_t> broken = 0;
  std::atomic<std::uint64_t> wrong = 0;
};

/// Has a fiber set the promises to their indices, one in `breaks` excepted, which it breaks.
tendril::fiber set_all(std::vector<promise<counted>> all, account& a, std::size_t breaks) {
  return tendril::fiber([all = std::move(all), &a, breaks]() mutable {
    for (std::size_t i = 0; i != all.size(); ++i) {
      promise<counted> p = std::move(all[i]);
      if (i % breaks == breaks - 1) {
        ++a.broken;
      } else {
        p.set_value(counted(i));
        ++a.set;
      }
    }
  });
}

/// The value, or -1 for a broken promise.
template <class Future>
std::int64_t read(Future& f) {
  try {
    return static_cast<std::int64_t>(f.get().value);
  } catch (const std::future_error& e) {
    if (e.code() != std::future_errc::broken_promise) throw;
    return -1;
  }
}

void check_value(account& a, std::int64_t got, std::size_t index, std::size_t breaks) {
  const bool breaks_here = index % breaks == breaks - 1;
  if (got != (breaks_here ? -1 : static_cast<std::int64_t>(index))) ++a.wrong;
  if (!breaks_here) ++a.read;
}

/// `body(random, promises, futures, account)` on every reader until n promises were made; then all adds up.
template <class Body>
void run(const char* name, std::uint64_t n, Body body) {
  const std::uint64_t seed = stress_seed(name);
  const std::uint64_t each = (rounds(n, readers * batch) + readers * batch - 1) / (readers * batch);
  with_workers({1, 2, 4}, [&](tendril::runtime&) {
    account a;
    on_everyone(reading_fibers, reading_threads, [&](int who) {
      std::minstd_rand random(static_cast<std::uint32_t>(seed + static_cast<unsigned>(who)));
      for (std::uint64_t i = 0; i != each; ++i) {
        std::vector<promise<counted>> promises(batch);
        std::vector<future<counted>> futures;
        futures.reserve(batch);
        for (auto& p : promises) futures.push_back(p.get_future());
        body(random, std::move(promises), futures, a);
      }
    });
    CHECK(a.wrong == 0);
    CHECK(a.read + a.given_up == a.set);
    CHECK(a.set + a.broken == each * readers * batch);
    CHECK(counted::alive == 0);
  });
}

}  // namespace

TEST_SUITE("future_races") {
  TEST_CASE("set against wait, timed and not") {
    run("future_races wait", 120'000,
        [](auto& random, std::vector<promise<counted>> promises, auto& futures, account& a) {
          tendril::fiber setter = set_all(std::move(promises), a, 7);
          for (std::size_t i = 0; i != batch; ++i) {
            if (random() % 4 == 0)
              while (futures[i].wait_for(std::chrono::microseconds(random() % 20)) ==
                     std::future_status::timeout) {
              }
            check_value(a, read(futures[i]), i, 7);
          }
          setter.join();
        });
  }

  TEST_CASE("set against then, chains and unwrapping") {
    run("future_races then", 80'000,
        [](auto& random, std::vector<promise<counted>> promises, auto& futures, account& a) {
          tendril::fiber setter = set_all(std::move(promises), a, 5);
          std::vector<future<std::int64_t>> results;
          for (std::size_t i = 0; i != batch; ++i) {
            auto number = futures[i].then([](future<counted> f) { return read(f); });
            switch (random() % 3) {
              case 0:
                results.push_back(std::move(number));
                break;
              case 1:
                results.push_back(number.then([](future<std::int64_t> f) { return f.get() + 1; })
                                      .then([](future<std::int64_t> f) { return f.get() - 1; }));
                break;
              default: {
                promise<std::int64_t> inner;
                auto later = inner.get_future();
                results.push_back(number.then([later = std::move(later), inner = std::move(inner)](
                                                  future<std::int64_t> f) mutable {
                  const std::int64_t v = f.get();
                  tendril::spawn([v, p = std::move(inner)]() mutable { p.set_value(v); });
                  return std::move(later);
                }));
              }
            }
          }
          for (std::size_t i = 0; i != batch; ++i) check_value(a, results[i].get(), i, 5);
          setter.join();
        });
  }

  TEST_CASE("set against request_stop, cancel and the end of the reader") {
    static std::atomic<std::int64_t> hooks_alive{0};
    struct hook {
      std::atomic<std::uint64_t>* calls;
      explicit hook(std::atomic<std::uint64_t>* c) : calls(c) { ++hooks_alive; }
      hook(hook&& other) noexcept : calls(other.calls) { ++hooks_alive; }
      hook(const hook& other) noexcept : calls(other.calls) { ++hooks_alive; }
      ~hook() { --hooks_alive; }
      void operator()() const { ++*calls; }
    };
    run("future_races cancel", 80'000,
        [](auto& random, std::vector<promise<counted>> promises, auto& futures, account& a) {
          std::vector<std::atomic<std::uint64_t>> all_calls(batch);
          const auto calls = all_calls.data();
          const bool early = random() % 2 == 0;
          if (early)
            for (std::size_t i = 0; i != batch; ++i) promises[i].on_cancel(hook(&calls[i]));
          tendril::fiber setter([&a, calls, early, promises = std::move(promises)]() mutable {
            for (std::size_t i = 0; i != batch; ++i) {
              promise<counted> p = std::move(promises[i]);
              if (!early) p.on_cancel(hook(&calls[i]));
              p.set_value(counted(i));
              ++a.set;
            }
          });
          for (std::size_t i = 0; i != batch; ++i) {
            switch (random() % 4) {
              case 0:
                if (futures[i].cancel()) {
                  ++a.given_up;
                  try {
                    futures[i].get();
                    ++a.wrong;
                  } catch (const std::system_error& e) {
                    if (e.code() != std::errc::operation_canceled) ++a.wrong;
                  }
                } else {
                  check_value(a, read(futures[i]), i, batch + 1);
                }
                break;
              case 1:
                futures[i] = {};
                ++a.given_up;
                break;
              case 2:
                futures[i].request_stop();
                [[fallthrough]];
              default:
                check_value(a, read(futures[i]), i, batch + 1);
            }
          }
          setter.join();
          for (const auto& c : all_calls)
            if (c > 1) ++a.wrong;
        });
    CHECK(hooks_alive == 0);
  }

  TEST_CASE("async's end against a stop request") {
    const std::uint64_t n = rounds(20'000, 100);
    with_workers([&](tendril::runtime&) {
      std::atomic<std::uint64_t> values = 0;
      std::atomic<std::uint64_t> stopped = 0;
      on_everyone(3, 1, [&](int) {
        for (std::uint64_t i = 0; i != n / 4; ++i) {
          auto f = tendril::async([&] { tendril::this_fiber::yield(); });
          auto g = i % 2 == 0 ? f.then([](future<void> x) { x.get(); }) : std::move(f);
          g.request_stop();
          try {
            g.get();
            ++values;
          } catch (const std::system_error&) {
            ++stopped;
          }
        }
      });
      CHECK(values + stopped == n / 4 * 4);
    });
  }

  TEST_CASE("shared: set against many waiters, continuations and the last handle") {
    run("future_races shared", 40'000,
        [](auto& random, std::vector<promise<counted>> promises, auto& futures, account& a) {
          std::vector<tendril::shared_future<counted>> shared;
          for (auto& f : futures) shared.push_back(f.share());
          tendril::fiber setter = set_all(std::move(promises), a, 9);
          std::vector<std::uint64_t> seen(batch);
          tendril::fiber other([shared, to = seen.data()] {
            for (std::size_t i = 0; i != batch; ++i)
              to[i] = static_cast<std::uint64_t>(read(shared[i]));
          });
          for (std::size_t i = 0; i != batch; ++i) {
            std::int64_t got = 0;
            switch (random() % 3) {
              case 0:
                got = read(shared[i]);
                break;
              case 1: {
                auto f = shared[i].then([](auto s) { return read(s); });
                shared[i] = {};
                got = f.get();
                break;
              }
              default: {
                auto first = shared[i].then([](auto s) { return read(s); });
                auto dropped = shared[i].then([](auto s) { return read(s); });
                got = first.get();
              }
            }
            check_value(a, got, i, 9);
          }
          other.join();
          setter.join();
          for (std::size_t i = 0; i != batch; ++i)
            if (seen[i] != (i % 9 == 8 ? static_cast<std::uint64_t>(-1) : i)) ++a.wrong;
        });
  }

  TEST_CASE("set against when_any, until all are read; and when_all") {
    run("future_races when", 80'000,
        [](auto& random, std::vector<promise<counted>> promises, auto& futures, account& a) {
          constexpr std::size_t group = 4;
          static_assert(batch % group == 0);
          tendril::fiber setter = set_all(std::move(promises), a, 11);
          for (std::size_t i = 0; i != batch; i += group) {
            std::vector<std::size_t> index;
            std::vector<future<counted>> left;
            for (std::size_t j = i; j != i + group; ++j) {
              index.push_back(j);
              left.push_back(std::move(futures[j]));
            }
            if (random() % 3 == 0) {
              auto all = tendril::when_all_settled(std::move(left)).get();
              for (std::size_t j = 0; j != group; ++j) check_value(a, read(all[j]), index[j], 11);
              continue;
            }
            while (!left.empty()) {
              auto any = tendril::when_any(std::move(left)).get();
              const auto at = static_cast<std::ptrdiff_t>(any.index);
              if (!any.futures[any.index].is_ready()) ++a.wrong;
              check_value(a, read(any.futures[any.index]), index[any.index], 11);
              any.futures.erase(any.futures.begin() + at);
              index.erase(index.begin() + at);
              left = std::move(any.futures);
            }
          }
          setter.join();
        });
  }
}
