// SPDX-License-Identifier: Apache-2.0
//
// A user's program: fibers that wait for timers of an io_context, against an installed tendril::asio.
#include <tendril/asio.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

int main() {
  boost::asio::io_context context;
  auto work = boost::asio::make_work_guard(context);
  std::thread thread([&] { context.run(); });
  constexpr int fibers = 8;
  std::atomic<int> fired{0};
  tendril::run([&] {
    std::vector<tendril::fiber> running;
    for (int i = 0; i < fibers; ++i) {
      running.emplace_back([&] {
        boost::asio::steady_timer timer(context, std::chrono::milliseconds(1));
        timer.async_wait(tendril::use_fiber);
        ++fired;
      });
    }
    for (auto& f : running) f.join();
  });
  work.reset();
  thread.join();
  std::printf("tendril::asio: %d of %d timers\n", fired.load(), fibers);
  return fired == fibers ? 0 : 1;
}
