// SPDX-License-Identifier: Apache-2.0
//
// That calls park, and what they return. Every runtime here has one worker that no other thread may replace: a
// call that blocked it would hang, and the watchdog would say so.
#include "intercept/intercepted.hpp"

#include <poll.h>
#include <unistd.h>

using namespace tendril;
using test::intercepted;

TEST_SUITE("parking") {
  TEST_CASE("two fibers talk by read and write while a third runs") {
    intercepted(
        [] {
          test::socket_pair ends;
          test::pipe_pair through;
          std::string seen;
          bool stop = false;
          unsigned turns = 0;
          fiber bystander([&] {
            for (; !stop; ++turns) this_fiber::yield();
          });
          fiber answerer([&] {
            for (int i = 0; i != 10; ++i) {
              const std::string got = test::read_text(ends.there());
              test::write_text(through.in(), got + "!");
            }
          });
          fiber asker([&] {
            for (int i = 0; i != 10; ++i) {
              test::write_text(ends.here(), std::to_string(i));
              pollfd one{through.out(), POLLIN, 0};
              if (poll(&one, 1, -1) != 1 || one.revents != POLLIN) seen += "?";
              seen += test::read_text(through.out());
            }
          });
          asker.join();
          answerer.join();
          stop = true;
          bystander.join();
          return seen + (turns >= 10 ? " and turns" : "");
        },
        "0!1!2!3!4!5!6!7!8!9! and turns");
  }

  TEST_CASE("recv and send") {
    intercepted(
        [] {
          test::socket_pair ends;
          std::string seen;
          fiber one([&] {
            char text[8];
            const ssize_t n = recv(ends.here(), text, sizeof text, 0);
            seen.append(text, n > 0 ? static_cast<std::size_t>(n) : 0);
            send(ends.here(), "back", 4, 0);
          });
          fiber two([&] {
            this_fiber::yield();
            send(ends.there(), "there", 5, 0);
            seen += " and " + test::read_text(ends.there());
          });
          one.join();
          two.join();
          return seen;
        },
        "there and back");
  }

  TEST_CASE("a write of more than there is room for writes all of it") {
    const auto body = [](auto pair) {
      return [pair] {
        const std::size_t bytes = std::size_t{1} << 20;
        auto ends = pair();
        std::string sent(bytes, 0), got;
        for (std::size_t i = 0; i != bytes; ++i) sent[i] = static_cast<char>(i * 7 >> 3);
        ssize_t written = 0;
        fiber writer([&] { written = write(ends.in(), sent.data(), bytes); });
        fiber reader([&] {
          while (got.size() < bytes) {
            const std::string part = test::read_text(ends.out(), 5000);
            if (part.empty()) break;
            got += part;
          }
        });
        writer.join();
        reader.join();
        return std::to_string(written) + (got == sent ? " same" : " different");
      };
    };
    intercepted(body([] { return test::pipe_pair(); }), "1048576 same");
    intercepted(body([] { return test::socket_pair(); }), "1048576 same");
  }

  TEST_CASE("who always finds something to read lets others run") {
    intercepted(
        [] {
          test::pipe_pair through;
          test::write_text(through.in(), std::string(2'000, 'x'));
          bool done = false;
          int turns = 0;
          fiber reader([&] {
            for (int i = 0; i != 2'000; ++i) test::read_text(through.out(), 1);
            done = true;
          });
          fiber other([&] {
            while (!done) {
              ++turns;
              this_fiber::yield();
            }
          });
          reader.join();
          other.join();
          return std::string(turns > 10 ? "in turn" : "one after the other");
        },
        "in turn");
  }

  TEST_CASE("poll returns when its time is over") {
    intercepted(
        [] {
          test::pipe_pair ends;
          pollfd one{ends.out(), POLLIN, 0};
          const auto begin = std::chrono::steady_clock::now();
          const int n = poll(&one, 1, 20);
          const bool long_enough =
              std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(20);
          return std::to_string(n) + (long_enough ? " in time" : " too early");
        },
        "0 in time");
  }

  TEST_CASE("closing wakes who is parked on it") {
    intercepted(
        [] {
          test::pipe_pair ends;
          std::string seen;
          fiber reader([&] { seen += test::read_text(ends.out()); });
          fiber closer([&] {
            this_fiber::yield();
            const int fd = ends.release_out();
            seen += close(fd) == 0 ? "closed " : "not closed ";
          });
          reader.join();
          closer.join();
          return seen;
        },
        "closed Bad file descriptor");
  }
}
