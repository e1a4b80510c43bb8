// SPDX-License-Identifier: Apache-2.0
//
// The narrow windows of intercepted calls: a number that becomes another file while somebody is parked on it, or
// about to be; many polls for many descriptors, each event of which wakes some of them; calls of fibers and of
// native threads on one descriptor. What is counted is bytes: none is lost, none is read twice, and none by who had
// waited for another file.
#include "intercept/intercepted.hpp"
#include "support/stress.hpp"

#include <poll.h>
#include <sys/epoll.h>

#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

using namespace tendril;

namespace {

struct counts {
  std::atomic<std::uint64_t> closed{0}, fresh{0}, other{0};
};

/// One number whose file is replaced again and again while a fiber reads from it.
void replace_under_reader(std::uint64_t rounds, std::uint64_t seed, counts& seen) {
  std::minstd_rand random(static_cast<unsigned>(seed));
  int number = -1;
  {
    test::socket_pair first;
    number = dup(first.here());
  }
  for (std::uint64_t i = 0; i != rounds; ++i) {
    test::socket_pair old, next;
    dup2(old.here(), number);
    close(old.release_out());
    std::atomic<int> got{-2};  // -1: EBADF
    fiber reader([&] {
      char byte = 0;
      const ssize_t n = read(number, &byte, 1);
      got = n == 1 ? byte : n < 0 && errno == EBADF ? -1 : -3;
    });
    for (unsigned k = random() % 4; k != 0; --k) this_fiber::yield();
    // Now it is another file; who had not begun to read reads from that one.
    dup2(next.here(), number);
    test::write_text(next.there(), "n");
    reader.join();
    if (got == -1) {
      ++seen.closed;
      // What was written to the new file is still there.
      char byte = 0;
      if (recv(number, &byte, 1, MSG_DONTWAIT) != 1 || byte != 'n') ++seen.other;
    } else if (got == 'n') {
      ++seen.fresh;
    } else {
      ++seen.other;
    }
  }
  close(number);
}

}  // namespace

TEST_SUITE("intercept_races") {
  TEST_CASE("a file is replaced while a fiber reads from it") {
    const std::uint64_t seed = test::stress_seed("replace");
    test::with_workers([&](runtime& rt) {
      counts seen;
      const std::uint64_t rounds = test::rounds(1'500, 20);
      test::run_on_own_stack(rt, [&] {
        test::on_fibers(
            4, [&](int i) { replace_under_reader(rounds, seed + static_cast<unsigned>(i), seen); },
            test::stack_of_its_own());
      });
      CHECK(seen.other == 0);
      CHECK(seen.closed + seen.fresh == 4 * rounds);
      CHECK(seen.closed > 0);
    });
  }

  TEST_CASE("many poll for many") {
    const std::uint64_t seed = test::stress_seed("polls");
    test::with_workers([&](runtime& rt) {
      constexpr int pipes = 12, pollers = 6, writers = 3;
      const std::uint64_t rounds = test::rounds(3'000, 50);
      std::atomic<std::uint64_t> taken{0};
      test::run_on_own_stack(rt, [&] {
        std::vector<std::unique_ptr<test::pipe_pair>> all;
        for (int i = 0; i != pipes; ++i)
          all.push_back(std::make_unique<test::pipe_pair>(O_NONBLOCK));
        test::pipe_pair stop;
        const auto poll_all = [&] {
          std::vector<pollfd> set;
          for (const auto& p : all) set.push_back({p->out(), POLLIN, 0});
          set.push_back({stop.out(), POLLIN, 0});
          for (;;) {
            if (poll(set.data(), set.size(), -1) <= 0) return;
            for (int i = 0; i != pipes; ++i) {
              char bytes[3];
              if ((set[static_cast<unsigned>(i)].revents & POLLIN) == 0) continue;
              const ssize_t n = read(set[static_cast<unsigned>(i)].fd, bytes, sizeof bytes);
              if (n > 0) taken += static_cast<std::uint64_t>(n);
            }
            if ((set.back().revents & POLLIN) != 0) return;
          }
        };
        std::thread native(poll_all);
        std::vector<fiber> polling;
        for (int i = 0; i != pollers; ++i) polling.emplace_back(test::stack_of_its_own(), poll_all);
        test::on_fibers(
            writers,
            [&](int w) {
              std::minstd_rand random(static_cast<unsigned>(seed) + static_cast<unsigned>(w));
              for (std::uint64_t i = 0; i != rounds; ++i) {
                while (write(all[random() % pipes]->in(), "x", 1) != 1) this_fiber::yield();
                if (random() % 8 == 0) this_fiber::yield();
              }
            },
            test::stack_of_its_own());
        // Everything is taken before they are told to stop: nobody sleeps on what is there.
        while (taken != writers * rounds) this_fiber::yield();
        test::write_text(stop.in(), "s");
        for (fiber& f : polling) f.join();
        native.join();
      });
      CHECK(taken == writers * rounds);
    });
  }

  TEST_CASE("polls and closing") {
    const std::uint64_t seed = test::stress_seed("polls and closing");
    test::with_workers([&](runtime& rt) {
      const std::uint64_t rounds = test::rounds(1'500, 20);
      std::atomic<std::uint64_t> ended{0}, wrong{0};
      test::run_on_own_stack(rt, [&] {
        test::on_fibers(
            3,
            [&](int who) {
              std::minstd_rand random(static_cast<unsigned>(seed) + static_cast<unsigned>(who));
              test::pipe_pair steady;
              for (std::uint64_t i = 0; i != rounds; ++i) {
                test::pipe_pair mine;
                fiber poller([&] {
                  pollfd set[] = {{steady.out(), POLLIN, 0}, {mine.out(), POLLIN | POLLOUT, 0}};
                  const int n = poll(set, 2, -1);
                  if (n != 1 || set[0].revents != 0) ++wrong;
                  ++ended;
                });
                for (unsigned k = random() % 4; k != 0; --k) this_fiber::yield();
                // Both end it; the second by what others wait for, too.
                if (random() % 2 == 0) close(mine.release_in());
                else test::write_text(mine.in(), "x");
                poller.join();
              }
            },
            test::stack_of_its_own());
      });
      CHECK(ended == 3 * rounds);
      CHECK(wrong == 0);
    });
  }

  TEST_CASE("fibers and threads read from one pipe, and write to it") {
    test::with_workers([&](runtime& rt) {
      constexpr int readers = 4, natives = 2, writers = 3;
      const std::uint64_t rounds = test::rounds(4'000, 50);
      std::atomic<std::uint64_t> got{0};
      test::run_on_own_stack(rt, [&] {
        test::pipe_pair through;
        std::vector<fiber> reading;
        std::vector<std::thread> threads;
        const auto read_on = [&] {
          char bytes[16];
          for (ssize_t n; (n = read(through.out(), bytes, sizeof bytes)) > 0;)
            got += static_cast<std::uint64_t>(n);
        };
        for (int i = 0; i != readers; ++i) reading.emplace_back(test::stack_of_its_own(), read_on);
        for (int i = 0; i != natives; ++i) threads.emplace_back(read_on);
        test::on_everyone(
            writers, 1,
            [&](int) {
              for (std::uint64_t i = 0; i != rounds; ++i)
                if (write(through.in(), "abc", 3) != 3) got += 1'000'000'000;
            },
            test::stack_of_its_own());
        close(through.release_in());
        for (fiber& f : reading) f.join();
        for (std::thread& t : threads) t.join();
      });
      CHECK(got == 3 * (writers + 1) * rounds);
    });
  }
}
