// SPDX-License-Identifier: Apache-2.0
//
// Random cancellations, deadlines and closes against traffic. What was written and what was read must
// agree: a byte that a cancelled operation reported as not moved may not have moved.
#include <tendril/fiber.hpp>
#include <tendril/io.hpp>
#include <tendril/net.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <random>
#include <vector>

#include "support/stress.hpp"
#include "support/with_pollers.hpp"

using namespace tendril;
using namespace tendril::test;

TEST_SUITE("io stress") {
  TEST_CASE("bytes are conserved under random timeouts, cancelled readers and closing ends") {
    const std::uint64_t seed = stress_seed("io stress");
    // ThreadSanitizer's part of the scale undone: the work is the kernel's, and hardly slower there.
    constexpr unsigned undone = TENDRIL_TSAN ? 10 : 1;
    const std::uint64_t connections = std::min<std::uint64_t>(24, rounds(24 * undone, 6));
    const std::uint64_t least_bytes = rounds(40'000 * undone, 8'000);
    struct totals {
      int mismatches = 0;
      std::uint64_t finished = 0;
      std::uint64_t bytes = 0;
    };
    with_pollers(
        [=] {
          std::atomic<int> mismatches{0};
          std::atomic<std::uint64_t> finished{0};
          std::atomic<std::uint64_t> bytes{0};
          std::vector<fiber> all;
          for (std::uint64_t k = 0; k != connections; ++k)
            all.emplace_back(stack_of_its_own(), [&, k] {
              std::mt19937_64 random(seed + k);
              tcp_pair t = make_tcp_pair();
              std::uint64_t sent = 0;
              std::uint64_t received = 0;
              bool in_order = true;
              const std::uint64_t goal = least_bytes + random() % (5 * least_bytes);
              fiber writer([&, seed_of_writer = random()] {
                std::mt19937_64 r(seed_of_writer);
                std::vector<unsigned char> block(8192);
                while (sent < goal) {
                  const std::size_t n = 1 + r() % block.size();
                  for (std::size_t i = 0; i < n; ++i)
                    block[i] = static_cast<unsigned char>(sent + i);
                  t.client.set_write_timeout(std::chrono::microseconds(r() % 300));
                  std::error_code ec;
                  sent += t.client.write_all(buffer(block.data(), n), ec);
                }
                t.client.shutdown(net::shutdown_mode::send);
              });
              // One reader after the other; each is cancelled, times out or lives to the end.
              bool at_end = false;
              while (!at_end) {
                const auto limit = std::chrono::microseconds(random() % 500);
                const bool cancel = random() % 2 == 0;
                fiber reader([&, size = 1 + random() % 6000] {
                  std::vector<unsigned char> block(size);
                  t.server.set_read_timeout(limit);
                  for (;;) {
                    std::error_code ec;
                    const std::size_t n = t.server.read_some(buffer(block), ec);
                    for (std::size_t i = 0; i < n; ++i)
                      in_order = in_order && block[i] == static_cast<unsigned char>(received + i);
                    received += n;
                    if (ec) return;
                    if (n == 0) {
                      at_end = true;
                      return;
                    }
                  }
                });
                if (cancel) {
                  for (auto i = random() % 30; i != 0; --i) this_fiber::yield();
                  reader.request_stop();
                }
                reader.join();
              }
              writer.join();
              if (!in_order || sent != received) ++mismatches;
              bytes += received;
              ++finished;
            });
          for (fiber& f : all) f.join();
          return totals{mismatches, finished, bytes};
        },
        [=](const totals& t) {
          CHECK(t.mismatches == 0);
          CHECK(t.finished == connections);
          CHECK(t.bytes >= connections * least_bytes);
        });
  }

  TEST_CASE("pool work under random cancellation is run once or not at all, and told right") {
    const std::uint64_t seed = stress_seed("pool stress");
    const std::uint64_t each = rounds(TENDRIL_TSAN ? 1000 : 100, 3);
    with_pollers(
        [=] {
          std::atomic<int> wrong{0};
          std::vector<fiber> all;
          for (std::uint64_t k = 0; k != 16; ++k)
            all.emplace_back(stack_of_its_own(), [&, k] {
              std::mt19937_64 random(seed + k);
              for (std::uint64_t i = 0; i != each; ++i) {
                std::atomic<int> runs{0};
                int told = -1;
                fiber worker([&] {
                  try {
                    told = blocking([&] { return ++runs; });
                  } catch (const std::system_error&) {
                    told = 0;
                  }
                });
                for (auto n = random() % 8; n != 0; --n) this_fiber::yield();
                worker.request_stop();
                worker.join();
                if (told != runs) ++wrong;
              }
            });
          for (fiber& f : all) f.join();
          return wrong.load();
        },
        [](int wrong) { CHECK(wrong == 0); });
  }
}
