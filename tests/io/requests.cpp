// SPDX-License-Identifier: Apache-2.0
//
// What goes through libuv's loop: pool work, resolving, signals; and foreign descriptors, datagrams and
// Unix sockets.
#include <tendril/error.hpp>
#include <tendril/fiber.hpp>
#include <tendril/io.hpp>
#include <tendril/latch.hpp>
#include <tendril/net.hpp>

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>

#include "support/descriptor_message.hpp"
#include "support/with_pollers.hpp"

using namespace tendril;
using namespace tendril::test;
using namespace std::chrono_literals;

namespace {

/// For threads of the pool.
class gate {
 public:
  void open() {
    const std::lock_guard hold(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock hold(mutex_);
    ++arrived_;
    changed_.wait(hold, [this] { return open_; });
  }
  int arrived() {
    const std::lock_guard hold(mutex_);
    return arrived_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int arrived_ = 0;
};

constexpr int pool_threads = 4;  // libuv's default

}  // namespace

TEST_SUITE("blocking") {
  TEST_CASE("returns what the function does: values, references, nothing, move-only") {
    with_pollers(
        [] {
          int number = 1;
          int& same = blocking([&]() -> int& { return number; });
          blocking([&] { number = 5; });
          const auto owned = blocking([] { return std::make_unique<int>(7); });
          return &same == &number && number == 5 && *owned == 7 && blocking([] { return 9; }) == 9;
        },
        [](bool good) { CHECK(good); });
  }

  TEST_CASE("throws what the function throws") {
    with_pollers(
        [] {
          try {
            blocking([]() -> int { throw std::runtime_error("from the pool"); });
          } catch (const std::runtime_error& e) {
            return std::string(e.what());
          }
          return std::string();
        },
        [](const std::string& what) { CHECK(what == "from the pool"); });
  }

  TEST_CASE("runs off the worker; the worker runs others meanwhile") {
    with_pollers(
        [] {
          gate g;
          const auto here = std::this_thread::get_id();
          std::atomic<bool> elsewhere{false};
          fiber waiting([&] {
            blocking([&] {
              elsewhere = std::this_thread::get_id() != here;
              g.pass();
            });
          });
          while (g.arrived() == 0) this_fiber::yield();  // hangs if the worker were blocked
          g.open();
          waiting.join();
          return elsewhere.load();
        },
        [](bool elsewhere) { CHECK(elsewhere); });
  }

  TEST_CASE("what the function refers to on a tasklet's stack stays there until it has ended") {
    for (const bool strict : {false, true}) {
      CAPTURE(strict);
      runtime rt({.workers = 1,
                  .stack = {stack_kind::tasklet},
                  .tasklets = {.slots = 1, .strict = strict}});
      const watchdog dog("blocking on a tasklet", &rt);
      std::atomic<bool> inside{false}, go{false}, other_ran{false};
      int result = 0;
      bool in_turn = false;
      rt.spawn([&] {
        int local = 1;
        blocking([&] {
          inside = true;
          while (!go) std::this_thread::yield();
          ++local;
        });
        result = local;
      });
      while (!inside) std::this_thread::yield();
      rt.spawn([&] {
        in_turn = go;
        other_ran = true;
      });
      while (rt.stats().tasklets.conflicts == 0 && !other_ran) std::this_thread::yield();
      go = true;
      rt.drain();
      CHECK(result == 2);
      CHECK(in_turn);
    }
  }

  TEST_CASE("cancelled while queued: not run; while running: its result") {
    struct seen {
      std::error_code queued;
      bool was_run = false;
      int running = 0;
    };
    with_pollers(
        [] {
          seen s;
          gate g;
          std::vector<fiber> busy;
          for (int i = 0; i < pool_threads; ++i)
            busy.emplace_back([&, i] {
              const int result = blocking([&] {
                g.pass();
                return 11;
              });
              if (i == 0) s.running = result;
            });
          while (g.arrived() < pool_threads) this_fiber::yield();
          fiber queued([&] {
            try {
              blocking([&] { s.was_run = true; });
            } catch (const std::system_error& e) {
              s.queued = e.code();
            }
          });
          for (int i = 0; i < 20; ++i) this_fiber::yield();
          queued.request_stop();
          queued.join();
          busy[0].request_stop();
          for (int i = 0; i < 20; ++i) this_fiber::yield();
          g.open();
          for (fiber& b : busy) b.join();
          return s;
        },
        [](const seen& s) {
          CHECK(s.queued == std::errc::operation_canceled);
          CHECK_FALSE(s.was_run);
          CHECK(s.running == 11);
        });
  }

  TEST_CASE("on a plain thread runs in place") {
    const auto here = std::this_thread::get_id();
    CHECK(blocking([] { return std::this_thread::get_id(); }) == here);
  }
}

TEST_SUITE("resolve") {
  TEST_CASE("localhost is a loopback address, with the port asked for") {
    with_pollers([] { return net::resolve("localhost", 8080); },
                 [](const std::vector<net::endpoint>& found) {
                   REQUIRE_FALSE(found.empty());
                   for (const auto& e : found) {
                     CHECK(e.port() == 8080);
                     CHECK((e.address() == "127.0.0.1" || e.address() == "::1"));
                   }
                 });
  }

  TEST_CASE("literals are themselves; services are numbers") {
    with_pollers(
        [] {
          return std::vector{net::resolve("192.0.2.1", 80).at(0),
                             net::resolve("2001:db8::1", 81).at(0),
                             net::resolve("127.0.0.1", "443").at(0)};
        },
        [](const std::vector<net::endpoint>& e) {
          CHECK(e[0].to_string() == "192.0.2.1:80");
          CHECK(e[1].to_string() == "[2001:db8::1]:81");
          CHECK(e[2].to_string() == "127.0.0.1:443");
        });
  }

  TEST_CASE("failure is an error of its own category that names the host") {
    struct seen {
      std::error_code code;
      std::string what;
    };
    with_pollers(
        [] {
          seen s;
          try {
            net::resolve("127.0.0.1", "no-such-service-name");
          } catch (const std::system_error& e) {
            s = {e.code(), e.what()};
          }
          return s;
        },
        [](const seen& s) {
          CHECK(s.code.category() == net::resolve_category());
          CHECK(s.what.find("127.0.0.1:no-such-service-name") != std::string::npos);
        });
  }

  TEST_CASE("given up while queued or running: the fiber goes on at once") {
    with_pollers(
        [] {
          gate g;
          std::vector<fiber> busy;
          for (int i = 0; i < pool_threads; ++i)
            busy.emplace_back([&] { blocking([&] { g.pass(); }); });
          while (g.arrived() < pool_threads) this_fiber::yield();
          std::error_code ec;
          fiber resolving([&] { net::resolve("localhost", 1, ec); });
          for (int i = 0; i < 20; ++i) this_fiber::yield();
          resolving.request_stop();
          resolving.join();  // although the pool is stuck
          g.open();
          for (fiber& b : busy) b.join();
          return ec;
        },
        [](std::error_code ec) { CHECK(ec == std::errc::operation_canceled); });
  }

  TEST_CASE("on a plain thread, too") { CHECK_FALSE(net::resolve("localhost", 1).empty()); }
}

TEST_SUITE("signals") {
  TEST_CASE("a signal that arrived before the wait, and one that arrives during it") {
    with_pollers(
        [] {
          signal_set s({SIGUSR1, SIGUSR2});
          ::kill(::getpid(), SIGUSR1);
          const int first = s.wait();
          int second = 0;
          fiber waiting([&] { second = s.wait(); });
          for (int i = 0; i < 20; ++i) this_fiber::yield();
          ::kill(::getpid(), SIGUSR2);
          waiting.join();
          return std::pair(first, second);
        },
        [](std::pair<int, int> numbers) {
          CHECK(numbers.first == SIGUSR1);
          CHECK(numbers.second == SIGUSR2);
        });
  }

  TEST_CASE("the wait can be cancelled and has a deadline") {
    with_pollers(
        [] {
          signal_set s({SIGUSR1});
          std::vector<std::error_code> codes(2);
          s.wait(codes[0], std::chrono::steady_clock::now() + 1ms);
          fiber waiting([&] { s.wait(codes[1]); });
          for (int i = 0; i < 20; ++i) this_fiber::yield();
          waiting.request_stop();
          waiting.join();
          return codes;
        },
        [](const std::vector<std::error_code>& codes) {
          CHECK(codes[0] == std::errc::timed_out);
          CHECK(codes[1] == std::errc::operation_canceled);
        });
  }

  TEST_CASE("destroyed on another worker or thread, and after its runtime") {
    for (const poller_kind kind : {poller_kind::native, poller_kind::portable}) {
      std::unique_ptr<signal_set> late;
      run_on_own_stack(runtime_options{.workers = 2, .poller = kind}, [&] {
        auto one = std::make_unique<signal_set>(std::initializer_list<int>{SIGUSR1});
        auto two = std::make_unique<signal_set>(std::initializer_list<int>{SIGUSR1});
        std::thread([&] { one.reset(); }).join();
        fiber({.affinity = 0}, [&] { two.reset(); }).join();
        fiber({.affinity = 1}, [&] {
          late = std::make_unique<signal_set>(std::initializer_list<int>{SIGUSR1});
        }).join();
      });
      std::error_code ec;
      late->wait(ec);
      CHECK(ec == errc::no_runtime);
      late.reset();
    }
  }

  TEST_CASE("what cannot be caught is refused; so is a plain thread") {
    with_pollers(
        [] {
          try {
            const signal_set s({SIGUSR1, SIGKILL});
          } catch (const std::system_error& e) {
            return e.code();
          }
          return std::error_code();
        },
        [](std::error_code ec) { CHECK(ec == std::errc::invalid_argument); });
    CHECK_THROWS_AS(signal_set({SIGUSR1}), std::system_error);
  }
}

TEST_SUITE("foreign descriptors") {
  TEST_CASE("a pipe is waited for, read and written; its flags stay") {
    struct seen {
      std::string text;
      std::size_t end = 9;
      int flags = 0;
    };
    with_pollers(
        [] {
          int fds[2];
          if (::pipe2(fds, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
          seen s;
          fiber reader([&] {
            char bytes[64];
            while (const auto n = read_some(fds[0], buffer(bytes))) s.text.append(bytes, n);
            s.end = read_some(fds[0], buffer(bytes));
          });
          for (const char* part : {"one ", "two ", "three"}) {
            write_some(fds[1], buffer(std::string_view(part)));
            for (int i = 0; i < 10; ++i) this_fiber::yield();
          }
          s.flags = ::fcntl(fds[0], F_GETFL) | ::fcntl(fds[1], F_GETFL);
          ::close(fds[1]);
          reader.join();
          ::close(fds[0]);
          return s;
        },
        [](const seen& s) {
          CHECK(s.text == "one two three");
          CHECK(s.end == 0);
          CHECK((s.flags & O_NONBLOCK) == 0);
        });
  }

  TEST_CASE("a full pipe is waited for; everything arrives") {
    with_pollers(
        [] {
          int fds[2];
          if (::pipe2(fds, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
          const std::string data(300'000, 'p');
          fiber writer([&] {
            for (std::size_t at = 0; at < data.size();)
              at += write_some(fds[1], buffer(data.data() + at, data.size() - at));
            ::close(fds[1]);
          });
          std::size_t total = 0;
          char bytes[5000];
          while (const auto n = read_some(fds[0], buffer(bytes))) total += n;
          writer.join();
          ::close(fds[0]);
          return total;
        },
        [](std::size_t total) { CHECK(total == 300'000); });
  }

  TEST_CASE("deadline, cancellation, a closed number, a regular file") {
    with_pollers(
        [] {
          std::vector<std::error_code> codes(4);
          int fds[2];
          if (::pipe2(fds, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
          wait_readable(fds[0], std::chrono::steady_clock::now() + 1ms, codes[0]);
          fiber waiting([&] {
            wait_readable(fds[0], std::chrono::steady_clock::time_point::max(), codes[1]);
          });
          for (int i = 0; i < 20; ++i) this_fiber::yield();
          waiting.request_stop();
          waiting.join();
          ::close(fds[0]);
          wait_readable(fds[0], std::chrono::steady_clock::time_point::max(), codes[2]);
          ::close(fds[1]);
          const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
          wait_readable(file, std::chrono::steady_clock::time_point::max(), codes[3]);
          ::close(file);
          return codes;
        },
        [](const std::vector<std::error_code>& codes) {
          CHECK(codes[0] == std::errc::timed_out);
          CHECK(codes[1] == std::errc::operation_canceled);
          CHECK(codes[2] == std::errc::bad_file_descriptor);
          CHECK_FALSE(codes[3]);
        });
  }
}

TEST_SUITE("datagrams and unix sockets") {
  TEST_CASE("datagrams keep their bounds and tell their sender") {
    struct seen {
      std::string first, second;
      bool from_sender = false;
    };
    with_pollers(
        [] {
          net::udp_socket a(net::endpoint::loopback(0));
          net::udp_socket b(net::endpoint::loopback(0));
          seen s;
          fiber receiver([&] {
            char bytes[64];
            net::endpoint from;
            s.first.assign(bytes, b.receive_from(buffer(bytes), from));
            s.from_sender = from == a.local_endpoint();
            s.second.assign(bytes, b.receive(buffer(bytes)));
          });
          for (int i = 0; i < 10; ++i) this_fiber::yield();
          a.send_to(buffer(std::string_view("first")), b.local_endpoint());
          a.connect(b.local_endpoint());
          a.send(buffer(std::string_view("2nd")));
          receiver.join();
          return s;
        },
        [](const seen& s) {
          CHECK(s.first == "first");
          CHECK(s.second == "2nd");
          CHECK(s.from_sender);
        });
  }

  TEST_CASE("a Unix listener by abstract name, and a pair") {
    with_pollers(
        [] {
          const std::string name =
              std::string(1, '\0') + "tendril-test-" + std::to_string(::getpid());
          net::unix_listener listener(name);
          std::string got(4, ' ');
          fiber server([&] {
            net::unix_stream s = listener.accept();
            s.read_exactly(buffer(got));
            s.write_all(buffer(std::string_view("pong")));
          });
          net::unix_stream client = net::unix_stream::connect(name);
          client.write_all(buffer(std::string_view("ping")));
          std::string back(4, ' ');
          client.read_exactly(buffer(back));
          server.join();
          auto [left, right] = net::unix_stream::pair();
          left.write_all(buffer(std::string_view("!")));
          char c = 0;
          right.read_exactly(buffer(&c, 1));
          return got + back + c;
        },
        [](const std::string& all) { CHECK(all == "pingpong!"); });
  }

  TEST_CASE("a read that ends where a descriptor was passed leaves what follows to the next") {
    with_pollers(
        [] {
          auto [left, right] = net::unix_stream::pair();
          std::string got;
          latch begun(1);
          fiber reader([&] {
            for (int i = 0; i != 3; ++i) {
              char some[16];
              got.append(some, right.read_some(buffer(some)));
              if (i == 0) begun.count_down();
              if (i == 0) this_fiber::yield();
            }
          });
          left.write_all(buffer(std::string_view("a")));  // it is watched from its first wait on
          begun.wait();
          const int writer = left.native_handle();
          char byte = 'b';
          iovec part{&byte, 1};
          const test::descriptor_message message(writer, &part, 1);
          if (::sendmsg(writer, message.get(), 0) == 1 && ::send(writer, "c", 1, 0) == 1)
            reader.join();
          return got;
        },
        [](const std::string& got) { CHECK(got == "abc"); });
  }
}
