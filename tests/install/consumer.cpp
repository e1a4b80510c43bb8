// SPDX-License-Identifier: Apache-2.0
//
// A user's whole program against an installed tendril: start a runtime, spawn fibers that take turns
// on one lock-free cell, join them, check the result. What it proves is that the headers are
// complete, that the library links with what it needs, and that fibers run.
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <atomic>
#include <cstdio>
#include <vector>

int main() {
  constexpr int fibers = 8;
  constexpr int rounds = 100;
  const int total = tendril::run([] {
    std::atomic<int> sum{0};
    std::vector<tendril::fiber> running;
    for (int i = 0; i < fibers; ++i) {
      running.emplace_back([&sum] {
        for (int n = 0; n < rounds; ++n) {
          sum.fetch_add(1, std::memory_order_relaxed);
          tendril::this_fiber::yield();
        }
      });
    }
    for (auto& f : running) f.join();
    return sum.load();
  });
  std::printf("tendril %s: %d of %d\n", TENDRIL_VERSION_STRING, total, fibers * rounds);
  return total == fibers * rounds ? 0 : 1;
}
