// SPDX-License-Identifier: Apache-2.0
//
// Streams: what is sent arrives, in every cut; the ways a connection ends.
#include <tendril/fiber.hpp>
#include <tendril/net.hpp>

#include <doctest/doctest.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "support/with_pollers.hpp"

using namespace tendril;
using namespace tendril::test;
using net::endpoint;
using net::tcp_listener;
using net::tcp_stream;

namespace {

/// Accepts until the listener is closed; one echoing fiber a connection.
void serve_echo(tcp_listener& listener) {
  std::error_code ec;
  for (;;) {
    tcp_stream connection = listener.accept(ec);
    if (ec) return;
    spawn([c = std::move(connection)]() mutable {
      char bytes[2048];
      std::error_code error;
      while (const auto n = c.read_some(buffer(bytes), error)) c.write_all(buffer(bytes, n), error);
    });
  }
}

/// A port that nobody else can get meanwhile, and on which nobody listens.
struct bound_only {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  endpoint address;

  bound_only() {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof any;
    auto* const raw = reinterpret_cast<sockaddr*>(&any);
    if (::bind(fd, raw, length) != 0 || ::getsockname(fd, raw, &length) != 0)
      throw std::system_error(errno, std::generic_category(), "binding a port");
    address = endpoint::loopback(ntohs(any.sin_port));
  }
  ~bound_only() { ::close(fd); }
  bound_only(const bound_only&) = delete;
  bound_only& operator=(const bound_only&) = delete;
};

std::vector<char> pattern(std::size_t bytes) {
  std::vector<char> data(bytes);
  for (std::size_t i = 0; i < bytes; ++i) data[i] = static_cast<char>((i * 131) ^ (i >> 8));
  return data;
}

}  // namespace

TEST_SUITE("tcp") {
  TEST_CASE("many connections echo many messages") {
    with_pollers(
        [] {
          tcp_listener listener(endpoint::loopback(0));
          const endpoint address = listener.local_endpoint();
          fiber server([&] { serve_echo(listener); });
          std::atomic<int> good{0};
          {
            std::vector<fiber> clients;
            for (int i = 0; i < 30; ++i)
              clients.emplace_back([&, i] {
                tcp_stream s = tcp_stream::connect(address);
                for (int round = 0; round < 50; ++round) {
                  const std::string sent = std::to_string(i) + ':' + std::to_string(round);
                  std::string back(sent.size(), ' ');
                  s.write_all(buffer(sent));
                  if (s.read_exactly(buffer(back)) == sent.size() && back == sent) ++good;
                }
              });
            for (fiber& c : clients) c.join();
          }
          listener.close();
          server.join();
          return good.load();
        },
        [](int good) { CHECK(good == 30 * 50); });
  }

  TEST_CASE("a message sent in pieces is read as one, several sent together one by one") {
    struct seen {
      std::string whole, parts;
    };
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          seen s;
          fiber sender([&] {
            for (const char c : std::string("piecemeal")) {
              t.client.write_all(buffer(&c, 1));
              this_fiber::yield();
            }
            t.client.write_all(buffer(std::string_view("onetwothree")));
          });
          s.whole.resize(9);
          t.server.read_exactly(buffer(s.whole));
          for (const std::size_t n : {3u, 3u, 5u}) {
            std::string part(n, ' ');
            t.server.read_exactly(buffer(part));
            s.parts += part + '|';
          }
          sender.join();
          return s;
        },
        [](const seen& s) {
          CHECK(s.whole == "piecemeal");
          CHECK(s.parts == "one|two|three|");
        });
  }

  TEST_CASE("a transfer larger than every buffer arrives whole at a slow reader") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          const std::vector<char> sent = pattern(8 << 20);
          std::size_t written = 0;
          fiber sender([&] {
            written = t.client.write_all(buffer(sent));
            t.client.shutdown(net::shutdown_mode::send);
          });
          std::vector<char> got;
          std::vector<char> piece(10'007);
          while (const auto n = t.server.read_some(buffer(piece))) {
            got.insert(got.end(), piece.begin(), piece.begin() + static_cast<std::ptrdiff_t>(n));
            this_fiber::yield();
          }
          sender.join();
          return written == sent.size() && got == sent;
        },
        [](bool same) { CHECK(same); });
  }

  TEST_CASE("several buffers are written in order, more than one system call takes") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          const std::vector<char> data = pattern(3 << 20);
          std::vector<const_buffer> parts;
          for (std::size_t at = 0, n = 0; at < data.size(); at += n) {
            n = std::min<std::size_t>((parts.size() % 7) * 9'001, data.size() - at);
            parts.push_back(buffer(data.data() + at, n));
          }
          fiber sender([&] {
            t.client.write_all(std::span<const const_buffer>(parts));
            t.client.close();
          });
          std::vector<char> got(data.size() + 1);
          const auto n = t.server.read_exactly(buffer(got));
          sender.join();
          got.resize(n);
          return got == data;
        },
        [](bool same) { CHECK(same); });
  }

  TEST_CASE("both directions at once, each full") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          const std::vector<char> data = pattern(2 << 20);
          std::array<bool, 2> same{};
          std::vector<fiber> all;
          tcp_stream* ends[2] = {&t.client, &t.server};
          for (unsigned i = 0; i < 2; ++i) {
            all.emplace_back([&, i] { ends[i]->write_all(buffer(data)); });
            all.emplace_back([&, i] {
              std::vector<char> got(data.size());
              ends[i]->read_exactly(buffer(got));
              same[i] = got == data;
            });
          }
          for (fiber& f : all) f.join();
          return same;
        },
        [](const std::array<bool, 2>& same) {
          CHECK(same[0]);
          CHECK(same[1]);
        });
  }

  TEST_CASE("half close: the other direction goes on") {
    struct seen {
      std::size_t end;
      std::string answer;
    };
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          seen s{99, ""};
          fiber server([&] {
            char bytes[64];
            std::string request;
            while (const auto n = t.server.read_some(buffer(bytes))) request.append(bytes, n);
            s.end = t.server.read_some(buffer(bytes));  // the end stays the end
            t.server.write_all(buffer("got " + request));
            t.server.close();
          });
          t.client.write_all(buffer(std::string_view("question")));
          t.client.shutdown(net::shutdown_mode::send);
          char bytes[64];
          while (const auto n = t.client.read_some(buffer(bytes))) s.answer.append(bytes, n);
          server.join();
          return s;
        },
        [](const seen& s) {
          CHECK(s.end == 0);
          CHECK(s.answer == "got question");
        });
  }

  TEST_CASE("data with the end right behind it: both are seen") {
    // The end causes no event of its own then: a short read must not park for one.
    with_pollers(
        [] {
          int good = 0;
          for (int i = 0; i < 50; ++i) {
            tcp_pair t = make_tcp_pair();
            fiber reader([&] {
              char bytes[512];
              std::size_t total = 0;
              while (const auto n = t.server.read_some(buffer(bytes))) total += n;
              if (total == 5) ++good;
            });
            if (i % 2 == 0) this_fiber::yield();  // the reader parks first, or not
            t.client.write_all(buffer(std::string_view("hello")));
            t.client.close();
            reader.join();
          }
          return good;
        },
        [](int good) { CHECK(good == 50); });
  }

  TEST_CASE("a reset wakes the reader; writing to it is an error, not a signal") {
    struct seen {
      std::error_code read, write;
    };
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          seen s;
          fiber reader([&] {
            char bytes[16];
            t.server.read_some(buffer(bytes), s.read);
          });
          this_fiber::yield();
          const linger at_once{1, 0};
          ::setsockopt(t.client.native_handle(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
          t.client.close();
          reader.join();
          for (int i = 0; i < 10 && !s.write; ++i)
            t.server.write_all(buffer(std::string_view("x")), s.write);
          return s;
        },
        [](const seen& s) {
          CHECK(s.read == std::errc::connection_reset);
          CHECK((s.write == std::errc::broken_pipe || s.write == std::errc::connection_reset));
        });
  }

  TEST_CASE("a refused connection is an error that names the address") {
    struct seen {
      std::error_code code;
      std::string what, address;
    };
    with_pollers(
        [] {
          seen s;
          const bound_only taken;
          s.address = taken.address.to_string();
          try {
            tcp_stream::connect(endpoint::parse(s.address));
          } catch (const std::system_error& e) {
            s.code = e.code();
            s.what = e.what();
          }
          return s;
        },
        [](const seen& s) {
          CHECK(s.code == std::errc::connection_refused);
          CHECK(s.what.find("connect") != std::string::npos);
          CHECK(s.what.find(s.address) != std::string::npos);
        });
  }

  TEST_CASE("connecting by host name tries the addresses in turn") {
    with_pollers(
        [] {
          tcp_listener listener(endpoint::loopback(0));
          tcp_stream s = tcp_stream::connect("localhost", listener.local_endpoint().port());
          endpoint peer;
          tcp_stream accepted = listener.accept(peer);
          return peer == s.local_endpoint() && accepted.local_endpoint() == s.remote_endpoint();
        },
        [](bool matches) { CHECK(matches); });
  }

  TEST_CASE("several fibers accept from one listener; each connection goes to one") {
    with_pollers(
        [] {
          tcp_listener listener(endpoint::loopback(0));
          const endpoint address = listener.local_endpoint();
          std::atomic<int> accepted{0};
          std::vector<fiber> acceptors;
          for (int i = 0; i < 8; ++i)
            acceptors.emplace_back([&] {
              std::error_code ec;
              for (;;) {
                tcp_stream s = listener.accept(ec);
                if (ec) return;
                ++accepted;
                s.write_all(buffer(std::string_view("!")));
              }
            });
          std::vector<fiber> clients;
          for (int i = 0; i < 100; ++i)
            clients.emplace_back([&] {
              tcp_stream s = tcp_stream::connect(address);
              char c;
              s.read_exactly(buffer(&c, 1));
            });
          for (fiber& c : clients) c.join();
          listener.close();
          for (fiber& a : acceptors) a.join();
          return accepted.load();
        },
        [](int accepted) { CHECK(accepted == 100); });
  }

  TEST_CASE("several readers of one stream share its bytes; none is left behind") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          std::atomic<std::size_t> total{0};
          std::vector<fiber> readers;
          for (int i = 0; i < 6; ++i)
            readers.emplace_back([&] {
              char bytes[100];
              while (const auto n = t.server.read_some(buffer(bytes))) total += n;
            });
          const std::vector<char> data = pattern(200'000);
          t.client.write_all(buffer(data));
          t.client.close();
          for (fiber& r : readers) r.join();
          return total.load();
        },
        [](std::size_t total) { CHECK(total == 200'000); });
  }

  TEST_CASE("who waits for readability holds no buffer, and finds bytes, the end, or who closed") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          std::vector<std::string> seen;
          fiber reader([&] {
            char byte = 0;
            for (;;) {
              t.server.wait_readable();
              t.server.wait_readable();  // it still is
              if (t.server.read_some(buffer(&byte, 1)) == 0) break;
              seen.emplace_back(1, byte);
            }
            seen.emplace_back("end");
          });
          this_fiber::yield();
          t.client.write_all(buffer("ab", 2));
          this_fiber::yield();
          t.client.write_all(buffer("c", 1));
          t.client.shutdown(net::shutdown_mode::send);
          reader.join();

          tcp_pair idle = make_tcp_pair();
          std::error_code ec;
          fiber waiting([&] { idle.server.wait_readable(ec); });
          this_fiber::yield();
          idle.server.close();
          waiting.join();
          if (ec == std::errc::bad_file_descriptor) seen.emplace_back("closed");
          tcp_pair silent = make_tcp_pair();
          silent.client.set_read_timeout(std::chrono::milliseconds(1));
          silent.client.wait_readable(ec);
          if (ec == std::errc::timed_out) seen.emplace_back("timed out");
          return seen;
        },
        [](const std::vector<std::string>& seen) {
          CHECK(seen == std::vector<std::string>{"a", "b", "c", "end", "closed", "timed out"});
        });
  }

  TEST_CASE("a connection that is always ready lets others run") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          const std::vector<char> data = pattern(100'000);
          t.client.write_all(buffer(data, 60'000));
          std::atomic<bool> other_ran{false};
          fiber other([&] { other_ran = true; });
          char byte;
          int reads = 0;
          // Endless if the other does not get its turn. On one worker that comes soon; with two it may
          // have been taken by a worker whose thread the system does not run.
          for (; !other_ran; ++reads) {
            if (reads % 50'000 == 49'999) t.client.write_all(buffer(data, 50'000));
            t.server.read_some(buffer(&byte, 1));
          }
          other.join();
          return runtime::current()->workers() > 1 || reads < 50'000;
        },
        [](bool soon) { CHECK(soon); });
  }

  TEST_CASE("a plain thread and a fiber talk through the same objects") {
    with_pollers(
        [] {
          tcp_listener listener(endpoint::loopback(0));
          const endpoint address = listener.local_endpoint();
          std::atomic<int> good{0};
          std::thread native([&] {
            tcp_stream s = tcp_stream::connect(address);
            for (int i = 0; i < 50; ++i) {
              char c = static_cast<char>(i);
              s.write_all(buffer(&c, 1));
              char back = 0;
              if (s.read_exactly(buffer(&back, 1)) == 1 && back == c + 1) ++good;
            }
          });
          tcp_stream s = listener.accept();
          char c;
          while (s.read_some(buffer(&c, 1)) == 1) {
            ++c;
            s.write_all(buffer(&c, 1));
          }
          native.join();
          return good.load();
        },
        [](int good) { CHECK(good == 50); });
  }

  TEST_CASE("a stream outlives the runtime it was used in, and works in the next") {
    for (const poller_kind kind : {poller_kind::native, poller_kind::portable}) {
      tcp_pair t;
      const runtime_options options{.workers = 1, .poller = kind};
      run_on_own_stack(options, [&] {
        t = make_tcp_pair();
        fiber reader([&] {
          char c;
          t.server.read_exactly(buffer(&c, 1));
        });
        this_fiber::yield();
        t.client.write_all(buffer(std::string_view("1")));
        reader.join();
      });
      const char got = run_on_own_stack(options, [&] {
        char c = 0;
        fiber reader([&] { t.server.read_exactly(buffer(&c, 1)); });
        this_fiber::yield();
        t.client.write_all(buffer(std::string_view("2")));
        reader.join();
        return c;
      });
      CHECK(got == '2');
    }
  }

  TEST_CASE("release gives a working socket away") {
    with_pollers(
        [] {
          tcp_pair t = make_tcp_pair();
          fiber reader([&] {  // so that it is registered
            char c;
            t.server.read_exactly(buffer(&c, 1));
          });
          this_fiber::yield();
          t.client.write_all(buffer(std::string_view("1")));
          reader.join();
          tcp_stream again = tcp_stream::from_native(t.server.release());
          t.client.write_all(buffer(std::string_view("2")));
          char c = 0;
          again.read_exactly(buffer(&c, 1));
          return !t.server.is_open() && c == '2';
        },
        [](bool works) { CHECK(works); });
  }
}
