// SPDX-License-Identifier: Apache-2.0
//
// A thousand fibers that use a blocking client library as if each were a thread, on one worker and on two.
//
//     each_crowd([](crowd& c) {
//       c.run(1000, [&](int i) { ... require(reply == wanted, "GET"); });
//     });
//
// What goes wrong on a fiber is thrown there and reported by the test's own thread. Whether calls park is not a
// matter of time: a wait that blocked its worker would keep the others from beginning theirs (`meeting`), and
// the watchdog ends the test.
#pragma once

#include <tendril/detail/sanitizers.hpp>
#include <tendril/runtime.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "support/with_workers.hpp"

namespace tendril::test {

/// Fibers of a full crowd.
inline constexpr int thousand = (TENDRIL_ASAN || TENDRIL_TSAN) ? 100 : 1000;

/// Throws for the crowd's report.
inline void require(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

/// How many are in a call at this moment, and were at most.
class meeting {
 public:
  /// For the length of a call that waits.
  class visit {
   public:
    explicit visit(meeting& m) : meeting_(m) {
      const int now = ++m.now_;
      for (int most = m.most_; now > most && !m.most_.compare_exchange_weak(most, now);) {
      }
    }
    ~visit() { --meeting_.now_; }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;

   private:
    meeting& meeting_;
  };
  int now() const { return now_; }
  int most() const { return most_; }

 private:
  std::atomic<int> now_{0};
  std::atomic<int> most_{0};
};

class crowd {
 public:
  explicit crowd(unsigned workers)
      : runtime_({.workers = workers, .stack = {stack_kind::reserved, client_stack_bytes}}),
        dog_("a crowd on " + std::to_string(workers) + " worker(s)", &runtime_) {}

  /// f(0) to f(count - 1), each on a fiber; returns when all have ended, and reports those that threw.
  template <class F>
  void run(int count, F f) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i != count; ++i) {
      runtime_.spawn([this, i, &f] {
        try {
          f(i);
        } catch (const std::exception& e) {
          const std::lock_guard hold(mutex_);
          wrong_.push_back("fiber " + std::to_string(i) + ": " + e.what());
        }
      });
    }
    runtime_.drain();
    const auto took = std::chrono::steady_clock::now() - begin;
    std::printf("  %d fibers, %u worker(s): %.2f s\n", count, runtime_.workers(),
                std::chrono::duration<double>(took).count());
    for (std::size_t i = 0; i != wrong_.size() && i != 5; ++i) MESSAGE(wrong_[i]);
    CHECK(wrong_.size() == 0);
    wrong_.clear();
  }

  runtime& rt() { return runtime_; }

 private:
  /// Client libraries keep buffers on the stack; sanitizers' frames are larger.
  static constexpr std::size_t client_stack_bytes =
      (TENDRIL_ASAN || TENDRIL_TSAN) ? std::size_t{1} << 20 : std::size_t{256} << 10;
  runtime runtime_;
  watchdog dog_;
  std::mutex mutex_;
  std::vector<std::string> wrong_;
};

template <class F>
void each_crowd(F f) {
  for (const unsigned workers : {1U, 2U}) {
    CAPTURE(workers);
    crowd c(workers);
    f(c);
  }
}

}  // namespace tendril::test
