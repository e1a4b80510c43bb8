// SPDX-License-Identifier: Apache-2.0
//
// Questions: what does a round trip between two fibers cost that hand each other the turn with a mutex
// and a condition variable (mutex_condvar_pingpong); and what one lock + unlock when 64 fibers on two
// workers want the same mutex all the time (mutex_contended)?
//
// Does not show: fairness: a mutex that lets the running fiber overtake the waiters wins
// mutex_contended, and should; nor critical sections that wait or take long. The free, uncontended
// mutex is a part of both.
#include "bench/micro/boost_fibers.hpp"
#include "bench/micro/harness.hpp"
#include "bench/micro/std_threads.hpp"
#include "bench/micro/tendril_fibers.hpp"

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace bench::micro {
namespace {

template <class Library>
duration take_turns(std::int64_t n, unsigned workers) {
  duration took{};
  std::int64_t turns = 0;
  Library::run(workers, [&] {
    typename Library::mutex mutex;
    typename Library::condition_variable changed;
    int turn = 0;
    const auto play = [&](int me) {
      for (std::int64_t i = 0; i != n; ++i) {
        std::unique_lock<typename Library::mutex> lock(mutex);
        changed.wait(lock, [&] { return turn == me; });
        turn = 1 - me;
        ++turns;
        changed.notify_one();
      }
    };
    const stopwatch watch;
    auto first = Library::spawn([&] { play(0); });
    auto second = Library::spawn([&] { play(1); });
    first.join();
    second.join();
    took = watch.elapsed();
  });
  expect_equal("turns", 2 * n, turns);
  return took;
}

constexpr int contenders = 64;

template <class Library>
duration contend(std::int64_t n, unsigned workers) {
  duration took{};
  std::int64_t entered = 0;
  Library::run(workers, [&] {
    typename Library::mutex mutex;
    std::vector<typename Library::fiber> all;
    all.reserve(contenders);
    const stopwatch watch;
    for (int i = 0; i != contenders; ++i)
      all.push_back(Library::spawn([&] {
        for (std::int64_t k = 0; k != n / contenders; ++k) {
          const std::unique_lock<typename Library::mutex> lock(mutex);
          ++entered;
        }
      }));
    for (auto& f : all) f.join();
    took = watch.elapsed();
  });
  expect_equal("times the mutex was taken", n, entered);
  return took;
}

template <class Library>
void add_turns(const char* suffix) {
  add(std::string(Library::prefix) + "mutex_condvar_pingpong" + suffix, 1,
      [](std::int64_t n) { return take_turns<Library>(n, 1); });
}

template <class Library>
void add_contended(const char* suffix) {
  add(std::string(Library::prefix) + "mutex_contended" + suffix, contenders,
      [](std::int64_t n) { return contend<Library>(n, 2); });
}

}  // namespace

void register_mutex() {
  add_turns<tendril_fibers>("/w1");
  add_turns<boost_fibers>("/w1");
  add_turns<std_threads>("");
  add_contended<tendril_fibers>("/w2");
  add_contended<boost_fibers>("/w2");
  add_contended<std_threads>("");
}

}  // namespace bench::micro
