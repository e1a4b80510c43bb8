// SPDX-License-Identifier: Apache-2.0
#include "support/allocations.hpp"
#include "support/errors.hpp"
#include "support/with_workers.hpp"

#include <tendril/channel.hpp>
#include <tendril/scope.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <system_error>
#include <vector>

using namespace std::chrono_literals;
using tendril::channel;
using tendril::test::error_of;
using tendril::test::on_everyone;
using tendril::test::on_fibers;
using tendril::test::with_workers;

namespace {

// Travels boxed, as its moves may throw; counts what is alive; throws when told to.
struct fragile {
  static inline std::atomic<int> alive = 0;
  static inline std::atomic<bool> throwing = false;
  int value;

  explicit fragile(int v) : value(v) { ++alive; }
  fragile(fragile&& other) : value(other.value) {  // NOLINT: may throw, on purpose
    if (throwing) throw std::runtime_error("move");
    other.value = -1;
    ++alive;
  }
  fragile& operator=(fragile&& other) {  // NOLINT
    value = other.value;
    other.value = -1;
    return *this;
  }
  ~fragile() { --alive; }
};

const std::error_code closed = tendril::errc::channel_closed;

}  // namespace

TEST_SUITE("channel") {
  TEST_CASE("keeps the order of one sender, at every capacity") {
    with_workers([](tendril::runtime&) {
      for (const std::size_t capacity : {0, 1, 2, 7, 1000}) {
        channel<int> c(capacity);
        std::vector<int> got;
        tendril::fiber sender([&] {
          for (int i = 0; i != 500; ++i) c.send(i);
          c.close();
        });
        tendril::fiber receiver([&] {
          for (const int& v : c) got.push_back(v);
        });
        sender.join();
        receiver.join();
        bool ordered = got.size() == 500;
        for (std::size_t i = 0; i != got.size(); ++i) ordered &= got[i] == static_cast<int>(i);
        CHECK_MESSAGE(ordered, "capacity " << capacity);
        CHECK(c.capacity() == capacity);
        CHECK(c.size() == 0);
      }
    });
  }

  TEST_CASE("many senders and receivers, fibers and threads: each value once") {
    with_workers([](tendril::runtime&) {
      for (const std::size_t capacity : {0, 3}) {
        channel<std::string> c(capacity);
        std::atomic<int> senders = 9;
        std::atomic<long> sum = 0;
        on_everyone(16, 2, [&](int i) {
          if (i % 2 == 0) {
            for (int n = 0; n != 200; ++n)
              c.send(std::to_string(n) + " and a tail too long for SSO");
            if (--senders == 0) c.close();
          } else {
            while (std::optional<std::string> s = c.receive()) sum += std::stoi(*s);
          }
        });
        CHECK(sum == 9 * (199 * 200 / 2));
      }
    });
  }

  TEST_CASE("try forms neither wait nor move from what they do not send") {
    channel<std::unique_ptr<int>> c(1);
    std::error_code ec;
    CHECK_FALSE(c.try_receive(ec));
    CHECK(ec == std::errc::resource_unavailable_try_again);
    auto first = std::make_unique<int>(1);
    auto second = std::make_unique<int>(2);
    CHECK(c.try_send(std::move(first)));
    CHECK(first == nullptr);
    CHECK_FALSE(c.try_send(std::move(second)));
    CHECK(second != nullptr);
    CHECK(c.size() == 1);
    CHECK(**c.try_receive(ec) == 1);
    CHECK_FALSE(ec);
    c.close();
    CHECK_FALSE(c.try_send(std::move(second)));
    CHECK(second != nullptr);
    CHECK_FALSE(c.try_receive(ec));
    CHECK(ec == closed);
    const channel<int>::value_type copied = 4;
    channel<int> d(1);
    CHECK(d.try_send(copied));
    CHECK_FALSE(channel<int>(0).try_send(copied));
  }

  TEST_CASE("close: what is buffered is drained, waiting senders fail, nobody waits any more") {
    with_workers([](tendril::runtime&) {
      channel<int> c(2);
      c.send(1);
      c.send(2);
      std::error_code code;
      tendril::fiber sender([&] { code = error_of([&] { c.send(3); }); });
      c.close();
      sender.join();
      CHECK(code == closed);
      CHECK(c.is_closed());
      c.close();
      CHECK(error_of([&] { c.send(4); }) == closed);
      CHECK(c.receive() == 1);
      CHECK(c.receive() == 2);
      CHECK(c.receive() == std::nullopt);
      std::error_code ec;
      CHECK(c.receive(ec) == std::nullopt);
      CHECK(ec == closed);
    });
  }

  TEST_CASE("close wakes a hundred receivers with nullopt") {
    with_workers([](tendril::runtime&) {
      channel<int> c;
      std::atomic<int> ended = 0;
      tendril::fiber closer([&] { c.close(); });
      on_everyone(100, 2, [&](int) { ended += c.receive() == std::nullopt; });
      closer.join();
      CHECK(ended == 102);
    });
  }

  TEST_CASE("timed forms time out and keep or give back the value") {
    with_workers([](tendril::runtime&) {
      channel<std::unique_ptr<int>> c;
      std::atomic<int> right = 0;
      on_everyone(3, 1, [&](int) {
        auto value = std::make_unique<int>(7);
        right += !c.send_for(std::move(value), 1ms) && value != nullptr;
        right +=
            !c.send_until(std::move(value), std::chrono::system_clock::now() + 1ms) && *value == 7;
      });
      CHECK(right == 8);
      on_everyone(3, 1, [&](int) {
        std::error_code ec;
        right += !c.receive_for(1ms);
        right += !c.receive_for(1ms, ec) && ec == std::errc::timed_out;
        right += !c.receive_until(std::chrono::system_clock::now() + 1ms, ec) &&
                 ec == std::errc::timed_out;
      });
      CHECK(right == 20);
      c.close();
      std::error_code ec;
      CHECK_FALSE(c.receive_for(10min, ec));
      CHECK(ec == closed);
      CHECK_FALSE(c.receive_for(10min));
      CHECK(error_of([&] { c.send_for(std::make_unique<int>(1), 10min); }) == closed);
    });
  }

  TEST_CASE("a stop request ends send and receive; the value is given back") {
    with_workers([](tendril::runtime&) {
      channel<std::unique_ptr<int>> c;
      std::error_code sent;
      std::error_code received;
      std::error_code ec;
      auto value = std::make_unique<int>(5);
      tendril::fiber a([&] { c.send(value, ec); });
      tendril::fiber b([&] { received = error_of([&] { c.receive(); }); });
      b.request_stop();
      b.join();
      a.request_stop();
      a.join();
      // b may have met a before it was stopped: then both have succeeded.
      if (!received) {
        CHECK_FALSE(ec);
        CHECK(value == nullptr);
      } else {
        CHECK(received == std::errc::operation_canceled);
        CHECK(ec == std::errc::operation_canceled);
        REQUIRE(value != nullptr);
        CHECK(*value == 5);
      }
      tendril::fiber d([&] { sent = error_of([&] { c.send(std::make_unique<int>(6)); }); });
      d.request_stop();
      d.join();
      CHECK(sent == std::errc::operation_canceled);
      CHECK_FALSE(c.try_receive());
    });
  }

  TEST_CASE("a stop token ends one wait, on fibers and threads") {
    with_workers([](tendril::runtime&) {
      channel<int> c;
      std::stop_source source;
      std::atomic<int> started = 0;
      std::atomic<int> canceled = 0;
      std::thread stopper([&] {
        while (started != 5) std::this_thread::yield();
        source.request_stop();
      });
      channel<int> full;
      on_everyone(4, 1, [&](int) {
        ++started;
        canceled +=
            error_of([&] { c.receive(source.get_token()); }) == std::errc::operation_canceled;
        canceled +=
            error_of([&] { full.send(1, source.get_token()); }) == std::errc::operation_canceled;
        std::error_code ec;
        c.receive_for(10min, source.get_token(), ec);
        canceled += ec == std::errc::operation_canceled;
        int value = 1;
        full.send(value, source.get_token(), ec);
        canceled += ec == std::errc::operation_canceled;
      });
      stopper.join();
      CHECK(canceled == 20);
    });
  }

  TEST_CASE("elements whose move throws, or that are large, travel boxed and leave it consistent") {
    with_workers([](tendril::runtime&) {
      {
        channel<fragile> c(1);
        fragile mine(1);
        fragile::throwing = true;
        bool threw = false;
        try {
          c.try_send(std::move(mine));
        } catch (const std::runtime_error&) {
          threw = true;
        }
        fragile::throwing = false;
        CHECK(threw);
        CHECK(c.size() == 0);
        CHECK(mine.value == 1);
        CHECK(c.try_send(std::move(mine)));
        CHECK(mine.value == -1);
        fragile other(2);
        CHECK_FALSE(c.try_send(std::move(other)));
        CHECK(other.value == 2);
        CHECK_FALSE(c.send_for(std::move(other), 1ms));
        CHECK(other.value == 2);
        fragile::throwing = true;
        threw = false;
        try {
          c.try_receive();
        } catch (const std::runtime_error&) {
          threw = true;
        }
        fragile::throwing = false;
        CHECK(threw);
        CHECK(c.size() == 0);  // taken, and lost with its move
        c.send(fragile(3));
        CHECK(c.receive()->value == 3);
        c.send(fragile(4));  // left inside
      }
      CHECK(fragile::alive == 0);
      using big = std::array<long, 100>;
      channel<big> c;
      long sum = 0;
      tendril::fiber f([&] {
        for (const big& b : c) sum += b[99];
      });
      for (int i = 0; i != 10; ++i) {
        big b{};
        b[99] = i;
        c.send(b);
      }
      c.close();
      f.join();
      CHECK(sum == 45);
    });
  }

  TEST_CASE("the receiver of the last value may destroy it") {
    with_workers([](tendril::runtime&) {
      for (int round = 0; round != 200; ++round) {
        auto c = std::make_unique<channel<int>>(static_cast<std::size_t>(round % 2));
        tendril::fiber f([raw = c.get()] { raw->send(1); });
        c->receive();
        c.reset();
        f.join();
      }
    });
  }

  TEST_CASE("a deadline_scope ends receive with timed_out") {
    with_workers([](tendril::runtime&) {
      channel<int> c;
      std::error_code code;
      on_fibers(1, [&](int) {
        const tendril::deadline_scope limit(1ms);
        code = error_of([&] { c.receive(); });
      });
      CHECK(code == std::errc::timed_out);
    });
  }

  TEST_CASE("allocates nothing for small elements, waiting or not") {
    with_workers({1}, [](tendril::runtime&) {
      channel<std::array<char, 64>> there;
      channel<int> back(1);
      std::uint64_t used = 0;
      tendril::fiber echo([&] {
        for (auto& v : there) back.send(v[0]);
      });
      on_fibers(1, [&](int) {
        there.send({});
        back.receive();
        const std::uint64_t before = tendril::test::allocations();
        for (int i = 0; i != 100; ++i) {
          there.send({});
          back.receive();
        }
        used = tendril::test::allocations() - before;
      });
      there.close();
      echo.join();
      CHECK(used == 0);
    });
  }
}
