// SPDX-License-Identifier: Apache-2.0
#include "support/errors.hpp"
#include "support/with_workers.hpp"

#include <tendril/scope.hpp>
#include <tendril/select.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <stop_token>
#include <system_error>

using namespace std::chrono_literals;
using tendril::channel;
using tendril::on_default;
using tendril::on_receive;
using tendril::on_send;
using tendril::on_timeout;
using tendril::test::error_of;
using tendril::test::on_everyone;
using tendril::test::on_fibers;
using tendril::test::with_workers;

namespace {

constexpr auto ignore = [](auto&&...) {};

}  // namespace

TEST_SUITE("select") {
  TEST_CASE("does what is ready and returns its index") {
    channel<int> a(1);
    channel<int> b(1);
    a.send(1);
    std::optional<int> got;
    const auto keep = [&](std::optional<int> v) { got = v; };
    CHECK(tendril::select(on_receive(b, ignore), on_receive(a, keep)) == 1);
    CHECK(got == 1);
    CHECK(tendril::select(on_receive(a, keep), on_send(b, 2, ignore)) == 1);
    CHECK(b.receive() == 2);
    bool none = false;
    CHECK(tendril::select(on_receive(a, keep), on_default([&] { none = true; })) == 1);
    CHECK(none);
  }

  TEST_CASE("a value that was not sent is back before the other handler runs") {
    channel<std::unique_ptr<int>> full;
    channel<int> ready(1);
    ready.send(1);
    auto value = std::make_unique<int>(3);
    bool there = false;
    tendril::select(on_send(full, value, ignore),
                    on_receive(ready, [&](std::optional<int>) { there = value != nullptr; }));
    CHECK(there);
    there = false;
    tendril::select(on_send(full, value, ignore),
                    on_timeout(1ms, [&] { there = value != nullptr; }));
    CHECK(there);
  }

  TEST_CASE("chooses about equally among the ready") {
    constexpr int rounds = 8000;
    std::array<channel<int>, 4> channels{channel<int>(1), channel<int>(1), channel<int>(1),
                                         channel<int>(1)};
    std::array<int, 4> chosen{};
    for (auto& c : channels) c.send(0);
    for (int i = 0; i != rounds; ++i) {
      const std::size_t k =
          tendril::select(on_receive(channels[0], ignore), on_receive(channels[1], ignore),
                          on_receive(channels[2], ignore), on_receive(channels[3], ignore));
      ++chosen[k];
      channels[k].send(0);
    }
    // 2000 expected, standard deviation 39: ten of them.
    for (const int n : chosen) {
      CHECK(n > 1600);
      CHECK(n < 2400);
    }
  }

  TEST_CASE("waits on receives and sends; exactly one happens") {
    with_workers([](tendril::runtime&) {
      channel<int> in;
      channel<int> out;
      std::atomic<long> received = 0;
      std::atomic<long> sent = 0;
      std::atomic<long> drained = 0;
      constexpr int each = 500;
      tendril::fiber chooser([&] {
        for (int n = 0; n != 2 * each; ++n)
          tendril::select(on_receive(in, [&](std::optional<int> v) { received += *v; }),
                          on_send(out, 1, [&] { ++sent; }));
      });
      tendril::fiber feeder([&] {
        for (int n = 0; n != each; ++n) in.send(1);
      });
      std::thread drainer([&] {
        for (int n = 0; n != each; ++n) drained += *out.receive();
      });
      feeder.join();
      drainer.join();
      chooser.join();
      CHECK(received == each);
      CHECK(sent == each);
      CHECK(drained == each);
    });
  }

  TEST_CASE("selects meet selects, over both ways of one channel too") {
    with_workers([](tendril::runtime&) {
      channel<int> a;
      channel<int> b;
      constexpr int n = 400;
      std::atomic<long> got = 0;
      std::atomic<long> given = 0;
      // Everybody offers and asks on both channels; each meeting is one give and one get.
      on_everyone(6, 0, [&](int) {
        for (int i = 0; i != n; ++i)
          tendril::select(on_receive(a, [&](std::optional<int>) { ++got; }),
                          on_send(a, 1, [&] { ++given; }),
                          on_receive(b, [&](std::optional<int>) { ++got; }),
                          on_send(b, 1, [&] { ++given; }), on_timeout(20ms, [] {}));
      });
      CHECK(got == given);
      CHECK_FALSE(a.try_receive());
      CHECK_FALSE(b.try_send(1));
    });
  }

  TEST_CASE("opposite pairs of selects do not lock each other up") {
    with_workers([](tendril::runtime&) {
      channel<int> a;
      channel<int> b;
      std::atomic<int> rounds = 0;
      on_fibers(2, [&](int i) {
        for (int n = 0; n != 1000; ++n) {
          if (i == 0) tendril::select(on_send(a, n, ignore), on_receive(b, ignore));
          else tendril::select(on_send(b, n, ignore), on_receive(a, ignore));
          ++rounds;
        }
      });
      CHECK(rounds == 2000);
    });
  }

  TEST_CASE("a timeout, the earliest of several, ends the wait") {
    with_workers([](tendril::runtime&) {
      channel<int> c;
      std::atomic<int> right = 0;
      on_everyone(2, 1, [&](int) {
        right += tendril::select(on_receive(c, ignore), on_timeout(10min, ignore),
                                 on_timeout(1ms, ignore)) == 2;
        right += tendril::select(on_timeout(1ms, ignore)) == 0;
      });
      CHECK(right == 6);
      CHECK_FALSE(c.try_send(1));  // no node left behind
    });
  }

  TEST_CASE("closing wakes it: receives get nullopt, sends throw and keep the value") {
    with_workers([](tendril::runtime&) {
      channel<int> c;
      channel<std::unique_ptr<int>> d;
      std::atomic<int> ended = 0;
      std::error_code code;
      auto value = std::make_unique<int>(1);
      tendril::fiber receiver([&] {
        tendril::select(on_receive(c, [&](std::optional<int> v) { ended += !v; }),
                        on_timeout(10min, ignore));
      });
      tendril::fiber sender(
          [&] { code = error_of([&] { tendril::select(on_send(d, value, ignore)); }); });
      c.close();
      d.close();
      receiver.join();
      sender.join();
      CHECK(ended == 1);
      CHECK(code == tendril::make_error_code(tendril::errc::channel_closed));
      CHECK(value != nullptr);
    });
  }

  TEST_CASE("a stop request, a token or a deadline_scope ends it, with nothing done") {
    with_workers([](tendril::runtime&) {
      channel<int> c;
      channel<int> d;
      int value = 7;
      std::error_code stopped;
      std::error_code token;
      std::error_code expired;
      tendril::fiber f([&] {
        stopped =
            error_of([&] { tendril::select(on_receive(c, ignore), on_send(d, value, ignore)); });
      });
      f.request_stop();
      f.join();
      std::stop_source source;
      tendril::fiber g([&] {
        token = error_of([&] { tendril::select(source.get_token(), on_receive(c, ignore)); });
      });
      source.request_stop();
      g.join();
      on_fibers(1, [&](int) {
        const tendril::deadline_scope limit(1ms);
        expired = error_of([&] { tendril::select(on_receive(c, ignore)); });
      });
      CHECK(stopped == std::errc::operation_canceled);
      CHECK(token == std::errc::operation_canceled);
      CHECK(expired == std::errc::timed_out);
      CHECK_FALSE(c.try_send(1));
      CHECK_FALSE(d.try_receive());
      CHECK(value == 7);
    });
  }
}
