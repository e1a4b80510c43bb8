// SPDX-License-Identifier: Apache-2.0
//
// How operations end that cannot go on: deadlines, cancellation, close; and that a descriptor's number
// never leads to another's file.
#include <tendril/detail/sanitizers.hpp>
#include <tendril/fiber.hpp>
#include <tendril/net.hpp>

#include <doctest/doctest.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "io/descriptor.hpp"
#include "io/io_loop.hpp"
#include "support/own_stack.hpp"
#include "support/with_pollers.hpp"

using namespace tendril;
using namespace tendril::test;
using namespace std::chrono_literals;
using net::endpoint;
using net::tcp_listener;
using net::tcp_stream;

namespace {

using clock_type = std::chrono::steady_clock;

/// Until fibers are parked on it in that direction.
void wait_until_parked(const net::socket_base& s, detail::direction way = detail::direction::read) {
  detail::descriptor& d = *detail::find_descriptor(s.native_handle());
  for (;;) {
    d.lock().lock();
    const bool parked = d.has_waiters(way);
    d.lock().unlock();
    if (parked) return;
    this_fiber::yield();
  }
}

/// Writes more than anybody buffers, and nobody reads: ends only as it is made to. Filling up first and
/// then writing one byte more would not do, since late acknowledgements make room.
void write_until_it_ends(tcp_stream& s, std::error_code& ec) {
  const std::vector<char> block(1 << 20);
  while (!ec) s.write_all(buffer(block), ec);
}

}  // namespace

TEST_SUITE("io deadlines") {
  TEST_CASE("a read ends at its timeout, not before, and the stream goes on") {
    struct seen {
      std::error_code ec;
      bool early;
      char next;
    };
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          seen s{};
          t.server.set_read_timeout(3ms);
          const auto begun = clock_type::now();
          t.server.read_some(buffer(&s.next, 1), s.ec);
          s.early = clock_type::now() - begun < 3ms;
          t.client.write_all(buffer(std::string_view("x")));
          t.server.set_read_timeout(0ns);
          t.server.read_some(buffer(&s.next, 1));
          return s;
        },
        [](const seen& s) {
          CHECK(s.ec == std::errc::timed_out);
          CHECK_FALSE(s.early);
          CHECK(s.next == 'x');
        });
  }

  TEST_CASE("a write to a full connection ends at its deadline") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          t.client.set_write_deadline(clock_type::now() + 2ms);
          std::error_code ec;
          write_until_it_ends(t.client, ec);
          return ec;
        },
        [](std::error_code ec) { CHECK(ec == std::errc::timed_out); });
  }

  TEST_CASE("accept ends at the listener's deadline") {
    with_pollers(
        [] {
          tcp_listener listener(endpoint::loopback(0));
          listener.set_read_deadline(clock_type::now() + 2ms);
          std::error_code ec;
          listener.accept(ec);
          return ec;
        },
        [](std::error_code ec) { CHECK(ec == std::errc::timed_out); });
  }

  TEST_CASE("a deadline set while a fiber waits holds for that wait") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          std::error_code ec;
          fiber reader([&] {
            char c;
            t.server.read_some(buffer(&c, 1), ec);
          });
          wait_until_parked(t.server);
          t.server.set_read_deadline(clock_type::now());
          reader.join();
          return ec;
        },
        [](std::error_code ec) { CHECK(ec == std::errc::timed_out); });
  }

  TEST_CASE("what is there is read even after the deadline") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          t.client.write_all(buffer(std::string_view("x")));
          char c = 0;
          t.server.read_some(buffer(&c, 1));
          t.client.write_all(buffer(std::string_view("yz")));
          t.server.read_some(buffer(&c, 1));
          t.server.set_read_deadline(clock_type::now() - 1s);
          t.server.read_some(buffer(&c, 1));
          return c;
        },
        [](char c) { CHECK(c == 'z'); });
  }

  TEST_CASE("connecting to a listener whose queue is full ends at the timeout") {
    with_pollers(
        [] {
          tcp_listener listener(endpoint::loopback(0), {.backlog = 1});
          const endpoint address = listener.local_endpoint();
          std::vector<tcp_stream> waiting;  // accepted by the kernel, until its queue is full
          std::error_code ec;
          for (int i = 0; i < 10 && !ec; ++i)
            waiting.push_back(tcp_stream::connect(address, ec, {.timeout = 20ms}));
          return ec;
        },
        [](std::error_code ec) { CHECK(ec == std::errc::timed_out); });
  }

  TEST_CASE("on a plain thread, too") {
    tcp_pair t = make_tcp_pair();
    t.server.set_read_timeout(2ms);
    char c;
    std::error_code ec;
    t.server.read_some(buffer(&c, 1), ec);
    CHECK(ec == std::errc::timed_out);
  }
}

TEST_SUITE("io cancellation") {
  TEST_CASE("a stop request ends a read, a full write, an accept and a connect") {
    with_pollers(
        [] {
          std::vector<std::error_code> codes(4);
          tcp_pair t = make_tcp_pair();
          tcp_listener listener(endpoint::loopback(0));
          tcp_listener full(endpoint::loopback(0), {.backlog = 1});
          const endpoint address = full.local_endpoint();
          std::vector<tcp_stream> queued;
          std::error_code ec;
          for (int i = 0; i < 10 && !ec; ++i)
            queued.push_back(tcp_stream::connect(address, ec, {.timeout = 20ms}));
          std::vector<fiber> fibers;
          fibers.emplace_back([&] {
            char c;
            t.client.read_some(buffer(&c, 1), codes[0]);
          });
          fibers.emplace_back([&] { write_until_it_ends(t.client, codes[1]); });
          fibers.emplace_back([&] { listener.accept(codes[2]); });
          fibers.emplace_back([&] { tcp_stream::connect(address, codes[3]); });
          for (int i = 0; i < 20; ++i) this_fiber::yield();
          for (fiber& f : fibers) f.request_stop();
          for (fiber& f : fibers) f.join();
          return codes;
        },
        [](const std::vector<std::error_code>& codes) {
          for (const auto& ec : codes) CHECK(ec == std::errc::operation_canceled);
        });
  }

  TEST_CASE("a reader of an always ready stream notices the request") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          std::error_code ec;
          std::error_code written;
          std::atomic<bool> reading{false};
          fiber writer([&] { write_until_it_ends(t.client, written); });
          fiber reader([&] {
            char c;
            while (!ec) {
              t.server.read_some(buffer(&c, 1), ec);
              reading = true;
            }
          });
          while (!reading) this_fiber::yield();
          reader.request_stop();
          reader.join();
          writer.request_stop();
          writer.join();
          return ec;
        },
        [](std::error_code ec) { CHECK(ec == std::errc::operation_canceled); });
  }

  TEST_CASE("the throwing form names operation and peer") {
    struct seen {
      std::string what, peer;
    };
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          seen s{"", t.server.remote_endpoint().to_string()};
          t.server.set_read_deadline(clock_type::now());
          try {
            char c;
            t.server.read_some(buffer(&c, 1));
          } catch (const std::system_error& e) {
            s.what = e.what();
          }
          return s;
        },
        [](const seen& s) {
          CHECK(s.what.find("read_some") != std::string::npos);
          CHECK(s.what.find(s.peer) != std::string::npos);
        });
  }
}

TEST_SUITE("io close") {
  TEST_CASE("close wakes readers, writers and acceptors with EBADF; the number is gone") {
    struct seen {
      std::vector<std::error_code> codes = std::vector<std::error_code>(4);
      bool open_after = true;
    };
    with_pollers(
        [] {
          seen s;
          tcp_pair t = make_tcp_pair();
          tcp_listener listener(endpoint::loopback(0));
          std::vector<fiber> fibers;
          fibers.emplace_back([&] {
            char c;
            t.client.read_some(buffer(&c, 1), s.codes[0]);
          });
          fibers.emplace_back([&] { write_until_it_ends(t.client, s.codes[1]); });
          fibers.emplace_back([&] { listener.accept(s.codes[2]); });
          fibers.emplace_back([&] { listener.accept(s.codes[3]); });
          wait_until_parked(t.client);
          wait_until_parked(t.client, detail::direction::write);
          wait_until_parked(listener);
          t.client.close();
          listener.close();
          for (fiber& f : fibers) f.join();
          s.open_after = t.client.is_open() || listener.is_open() || t.client.native_handle() != -1;
          return s;
        },
        [](const seen& s) {
          for (const auto& ec : s.codes) CHECK(ec == std::errc::bad_file_descriptor);
          CHECK_FALSE(s.open_after);
        });
  }

  TEST_CASE("close from a fiber wakes a thread that blocks in a read") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          std::error_code ec;
          std::atomic<bool> begun{false};
          std::thread native([&] {
            char c;
            begun = true;
            t.server.read_some(buffer(&c, 1), ec);
          });
          while (!begun) this_fiber::yield();
          t.server.close();
          native.join();
          return ec;
        },
        [](std::error_code ec) { CHECK(ec == std::errc::bad_file_descriptor); });
  }

  TEST_CASE("close from a thread wakes a parked fiber") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          std::thread native;
          std::error_code ec;
          fiber reader([&] {
            char c;
            t.server.read_some(buffer(&c, 1), ec);
          });
          wait_until_parked(t.server);
          native = std::thread([&] { t.server.close(); });
          reader.join();
          native.join();
          return ec;
        },
        [](std::error_code ec) { CHECK(ec == std::errc::bad_file_descriptor); });
  }

  TEST_CASE("closed and reused numbers never mix up their connections") {
    // Each connection carries its own letter; a reader that sees another's has been misled by a number.
    with_pollers(
        [] {
          std::atomic<int> wrong{0};
          std::atomic<int> ended{0};
          std::vector<fiber> storms;
          for (int k = 0; k < 4; ++k)
            storms.emplace_back(stack_of_its_own(), [&, k] {
              const char letter = static_cast<char>('a' + k);
              for (int i = 0; i < 60; ++i) {
                tcp_pair t = make_tcp_pair();
                fiber reader([&] {
                  char c = 0;
                  std::error_code ec;
                  while (t.server.read_some(buffer(&c, 1), ec) == 1)
                    if (c != letter) ++wrong;
                  ++ended;
                });
                t.client.write_all(buffer(&letter, 1));
                if (i % 3 == 0) this_fiber::yield();
                if (i % 2 == 0) t.server.close();
                else t.client.close();
                if (i % 5 == 0)
                  reader.join();  // else by the destructor, after another round's sockets
              }
            });
          for (fiber& s : storms) s.join();
          return std::pair(wrong.load(), ended.load());
        },
        [](std::pair<int, int> counts) {
          CHECK(counts.first == 0);
          CHECK(counts.second == 4 * 60);
        });
  }
}

TEST_SUITE("io registration") {
  TEST_CASE("a connection used away from home moves its registration") {
    runtime rt({.workers = 2});
    const watchdog dog("registration", &rt);
    struct seen {
      bool at_home, moved;
      int good;
    };
    const seen s = run_on_own_stack(rt, [] {
      tcp_pair t = make_tcp_pair();
      detail::descriptor& d = *detail::find_descriptor(t.server.native_handle());
      seen result{};
      const auto read_on = [&](int worker, int times) {
        std::atomic<int> consumed{0};
        fiber reader({.affinity = worker}, [&, times] {
          for (int i = 0; i < times; ++i) {
            char c = 0;
            if (t.server.read_exactly(buffer(&c, 1)) == 1 && c == 'm') ++result.good;
            ++consumed;
          }
        });
        fiber writer({.affinity = 1 - worker}, [&, times] {
          for (int i = 0; i < times; ++i) {
            // Only once the reader waits again, so that each read counts as a wait.
            for (;;) {
              d.lock().lock();
              const bool waiting = d.has_waiters(detail::direction::read);
              d.lock().unlock();
              if (waiting && consumed == i) break;
              this_fiber::yield();
            }
            t.client.write_all(buffer(std::string_view("m")));
          }
        });
        reader.join();
        writer.join();
      };
      const auto home = [&] {
        d.lock().lock();
        detail::io_loop* const loop = d.home();
        d.lock().unlock();
        return loop;
      };
      read_on(0, 3);
      detail::io_loop* const first = home();
      read_on(1, 5);
      result.at_home = home() == first;
      read_on(1, 20);
      result.moved = home() != first;
      return result;
    });
    CHECK(s.at_home);
    CHECK(s.moved);
    CHECK(s.good == 28);
  }
}

// Not with the sanitizers: their check of a virtual call asks the kernel through a pipe, which cannot be
// made when descriptors have run out, and so takes every object for invalid.
TEST_SUITE("io exhaustion" * doctest::skip(TENDRIL_ASAN != 0)) {
  TEST_CASE("without descriptors accept waits, says so once, and goes on") {
    for (const poller_kind kind : {poller_kind::native, poller_kind::portable}) {
      const pid_t child = ::fork();
      REQUIRE(child >= 0);
      if (child == 0) {
        ::alarm(60);
        const int result = run_on_own_stack(runtime_options{.workers = 1, .poller = kind}, [] {
          tcp_listener listener(endpoint::loopback(0));
          int told = 0;
          listener.on_exhausted([&](std::error_code ec) {
            if (ec == std::errc::too_many_files_open) ++told;
          });
          tcp_stream first = tcp_stream::connect(listener.local_endpoint());
          std::vector<int> hoard;
          const int room = ::dup(0);
          rlimit limit{static_cast<rlim_t>(room) + 8, static_cast<rlim_t>(room) + 8};
          ::setrlimit(RLIMIT_NOFILE, &limit);
          ::close(room);
          for (int fd = ::dup(0); fd >= 0; fd = ::dup(0)) hoard.push_back(fd);
          fiber freeing([&] {
            while (listener.exhausted_count() == 0) this_fiber::sleep_for(1ms);
            for (const int fd : hoard) ::close(fd);
          });
          tcp_stream accepted = listener.accept();
          freeing.join();
          first.write_all(buffer(std::string_view("x")));
          char c = 0;
          accepted.read_exactly(buffer(&c, 1));
          return c == 'x' && told == 1 ? 0 : 1;
        });
        ::_exit(result);
      }
      int status = -1;
      REQUIRE(::waitpid(child, &status, 0) == child);
      CHECK(status == 0);
    }
  }

  TEST_CASE("the wait for descriptors can be cancelled and closed") {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      ::alarm(60);
      const int result = run_on_own_stack(runtime_options{.workers = 1}, [] {
        int good = 0;
        for (const bool by_close : {false, true}) {
          tcp_listener listener(endpoint::loopback(0));
          listener.on_exhausted([](std::error_code) {});
          tcp_stream first = tcp_stream::connect(listener.local_endpoint());
          std::vector<int> hoard;
          rlimit old{};
          ::getrlimit(RLIMIT_NOFILE, &old);
          const rlimit limit{64, old.rlim_max};
          ::setrlimit(RLIMIT_NOFILE, &limit);
          for (int fd = ::dup(0); fd >= 0; fd = ::dup(0)) hoard.push_back(fd);
          std::error_code ec;
          fiber accepting([&] { listener.accept(ec); });
          while (listener.exhausted_count() == 0) this_fiber::sleep_for(1ms);
          if (by_close) listener.close();
          else accepting.request_stop();
          accepting.join();
          if (ec == (by_close ? std::errc::bad_file_descriptor : std::errc::operation_canceled))
            ++good;
          for (const int fd : hoard) ::close(fd);
          ::setrlimit(RLIMIT_NOFILE, &old);
        }
        return good == 2 ? 0 : 1;
      });
      ::_exit(result);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
}
