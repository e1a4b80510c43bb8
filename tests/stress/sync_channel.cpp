// SPDX-License-Identifier: Apache-2.0
//
// Channels under random deadlines, stop tokens, stop requests and selects: what was sent, by the
// senders' own account, is what was received.
#include "support/stress.hpp"
#include "support/with_workers.hpp"

#include <tendril/channel.hpp>
#include <tendril/future.hpp>
#include <tendril/select.hpp>

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <random>
#include <stop_token>
#include <system_error>
#include <vector>

using namespace std::chrono_literals;
using tendril::channel;
using tendril::test::on_everyone;
using tendril::test::rounds;
using tendril::test::stress_seed;
using tendril::test::with_workers;

namespace {

using value = std::unique_ptr<std::uint64_t>;  // a value lost or doubled is also a leak or a crash

struct account {
  std::atomic<std::uint64_t> sent = 0;
  std::atomic<std::uint64_t> received = 0;
  std::atomic<std::uint64_t> sends = 0;
  std::atomic<std::uint64_t> receives = 0;
  std::atomic<std::uint64_t> not_given_back = 0;

  void add_sent(std::uint64_t v) {
    sent += v;
    ++sends;
  }
  void add_received(const value& v) {
    received += *v;
    ++receives;
  }
};

void send_somehow(channel<value>& c, channel<value>& other, std::minstd_rand& random, account& a,
                  std::stop_token stop) {
  const std::uint64_t number = random() % 1000;
  auto v = std::make_unique<std::uint64_t>(number);
  const auto d = std::chrono::microseconds(random() % 100);
  bool done = false;
  std::error_code ec;
  switch (random() % 5) {
    case 0:
      done = c.try_send(std::move(v));
      break;
    case 1:
      c.send(v, stop, ec);
      done = !ec;
      break;
    case 2:
      try {
        done = c.send_for(std::move(v), d, stop);
      } catch (const std::system_error&) {
      }
      break;
    case 3:
      done = c.send_until(std::move(v), std::chrono::steady_clock::now() + d);
      break;
    default:
      // Own receive beside it: may meet any of the others.
      tendril::select(
          tendril::on_send(c, v, [&] { done = true; }),
          tendril::on_receive(other, [&](std::optional<value> got) { a.add_received(*got); }),
          tendril::on_timeout(d, [] {}));
  }
  if (done) a.add_sent(number);
  else if (v == nullptr || *v != number) ++a.not_given_back;
}

void receive_somehow(channel<value>& c, channel<value>& other, std::minstd_rand& random, account& a,
                     std::stop_token stop) {
  std::optional<value> got;
  std::error_code ec;
  const auto d = std::chrono::microseconds(random() % 100);
  switch (random() % 4) {
    case 0:
      got = c.try_receive();
      break;
    case 1:
      got = c.receive_for(d, stop, ec);
      break;
    case 2:
      got = c.receive(stop, ec);
      break;
    default:
      tendril::select(
          tendril::on_receive(c, [&](std::optional<value> v) { got = std::move(v); }),
          tendril::on_receive(other, [&](std::optional<value> v) { got = std::move(v); }),
          tendril::on_timeout(d, [] {}));
  }
  if (got) a.add_received(*got);
}

}  // namespace

TEST_SUITE("sync_channel") {
  TEST_CASE("nothing is lost or doubled under random cancellation") {
    const std::uint64_t seed = stress_seed("sync_channel");
    with_workers([seed](tendril::runtime&) {
      for (const std::size_t capacity : {0, 1, 5}) {
        channel<value> a(capacity);
        channel<value> b(capacity);
        account books;
        // Stop sources that are fired and replaced, so that tokens hit waits at any point.
        std::vector<std::stop_source> sources(4);
        std::mutex sources_mutex;
        std::atomic<bool> done = false;
        std::thread stopper([&] {
          std::minstd_rand random(static_cast<unsigned>(seed));
          while (!done) {
            std::stop_source fired;
            {
              const std::lock_guard lock(sources_mutex);
              std::swap(fired, sources[random() % 4]);
            }
            fired.request_stop();
            std::this_thread::yield();
          }
          for (std::stop_source& s : sources) s.request_stop();
        });
        const auto token = [&](std::uint64_t r) {
          const std::lock_guard lock(sources_mutex);
          return sources[r % 4].get_token();
        };
        on_everyone(12, 2, [&](int i) {
          std::minstd_rand random(static_cast<unsigned>(seed) + static_cast<unsigned>(i) * 7919u);
          for (auto n = rounds(1500, 20); n != 0; --n) {
            channel<value>& mine = random() % 2 == 0 ? a : b;
            channel<value>& other = &mine == &a ? b : a;
            if (i % 2 == 0) send_somehow(mine, other, random, books, token(random()));
            else receive_somehow(mine, other, random, books, token(random()));
          }
        });
        done = true;
        stopper.join();
        while (auto v = a.try_receive()) books.add_received(*v);
        while (auto v = b.try_receive()) books.add_received(*v);
        CHECK(books.not_given_back == 0);
        CHECK(books.sends == books.receives);
        CHECK(books.sent == books.received);
      }
    });
  }

  TEST_CASE("stop requests of fibers against meetings") {
    const std::uint64_t seed = stress_seed("sync_channel stop");
    with_workers([seed](tendril::runtime&) {
      std::minstd_rand random(static_cast<unsigned>(seed));
      int lost = 0;
      for (auto round = rounds(1500, 6); round != 0; --round) {
        channel<value> c(round % 3 == 0 ? 1 : 0);
        bool received = false;
        std::error_code sent;
        auto v = std::make_unique<std::uint64_t>(1);
        tendril::fiber sender([&] { c.send(v, sent); });
        tendril::fiber receiver([&] {
          try {
            received = c.receive().has_value();
          } catch (const std::system_error&) {
          }
        });
        if (random() % 2 == 0) std::this_thread::yield();
        if (random() % 2 == 0) sender.request_stop();
        if (random() % 2 == 0) std::this_thread::yield();
        receiver.request_stop();
        receiver.join();
        sender.request_stop();
        sender.join();
        received |= c.try_receive().has_value();
        lost += received == static_cast<bool>(sent);
        lost += (v == nullptr) == static_cast<bool>(sent);
      }
      CHECK(lost == 0);
    });
  }

  TEST_CASE("futures: set against timed and stopped waits") {
    stress_seed("sync_channel futures");
    with_workers([](tendril::runtime&) {
      const std::uint64_t total = rounds(1500, 4);
      std::uint64_t sum = 0;
      for (std::uint64_t round = 0; round != total; ++round) {
        tendril::promise<unsigned> p;
        auto f = p.get_future();
        tendril::fiber setter([&p] { p.set_value(1); });
        tendril::fiber getter([&] {
          while (f.wait_for(std::chrono::microseconds(1)) != std::future_status::ready) {
          }
          sum += f.get();
        });
        // A stop may end the wait; the value is then still there.
        if (round % 2 == 0) getter.request_stop();
        setter.join();
        try {
          getter.join();
        } catch (const std::system_error&) {
        }
        if (f.valid()) sum += f.get();
      }
      CHECK(sum == total);
    });
  }
}
