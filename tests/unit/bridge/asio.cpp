// SPDX-License-Identifier: Apache-2.0
#include <tendril/asio.hpp>

#include "support/own_stack.hpp"
#include "support/with_workers.hpp"

#include <tendril/scope.hpp>
#include <tendril/semaphore.hpp>
#include <tendril/thunk.hpp>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>

#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;
using tendril::use_fiber;
using tendril::test::on_everyone;
using tendril::test::stack_of_its_own;
using tendril::test::with_workers;

namespace {

/// An io_context that a thread runs.
struct io_thread {
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work = asio::make_work_guard(context);
  std::thread thread{[this] { context.run(); }};
  ~io_thread() {
    work.reset();
    thread.join();
  }
};

/// An operation whose handler is called with what is given.
template <class Signature, class Token, class... Values>
auto completes_with(asio::any_io_executor ex, Token&& token, Values... values) {
  return asio::async_initiate<Token, Signature>(
      [ex](auto handler, auto... given) {
        asio::post(ex,
                   [h = std::make_shared<decltype(handler)>(std::move(handler)),
                    all = std::make_shared<std::tuple<decltype(given)...>>(std::move(given)...)] {
                     std::apply([&](auto&... v) { std::move (*h)(std::move(v)...); }, *all);
                   });
      },
      token, std::move(values)...);
}

template <class F>
boost::system::error_code error_of(F f) {
  try {
    f();
  } catch (const boost::system::system_error& e) {
    return e.code();
  }
  return {};
}

using error_code = boost::system::error_code;

// Compilers keep std::this_thread::get_id() over a switch.
long thread_number() { return ::syscall(SYS_gettid); }

}  // namespace

TEST_SUITE("asio") {
  TEST_CASE("results are those of use_awaitable: nothing, a value, a tuple, an error") {
    io_thread io;
    const asio::any_io_executor ex = io.context.get_executor();
    with_workers([&](tendril::runtime&) {
      std::atomic<int> right = 0;
      on_everyone(
          3, 2,
          [&](int) {
            const error_code bad = asio::error::eof;
            completes_with<void()>(ex, use_fiber);
            completes_with<void(error_code)>(ex, use_fiber, error_code());
            right += completes_with<void(error_code, int)>(ex, use_fiber, error_code(), 3) == 3;
            right += *completes_with<void(std::unique_ptr<int>)>(ex, use_fiber,
                                                                 std::make_unique<int>(4)) == 4;
            right += completes_with<void(error_code, int, std::string)>(ex, use_fiber, error_code(),
                                                                        5, std::string("five")) ==
                     std::tuple(5, std::string("five"));
            right += error_of([&] { completes_with<void(error_code)>(ex, use_fiber, bad); }) == bad;
            right += error_of([&] {
                       completes_with<void(error_code, int)>(ex, use_fiber, bad, 1);
                     }) == bad;
            try {
              completes_with<void(std::exception_ptr, int)>(
                  ex, use_fiber, std::make_exception_ptr(std::runtime_error("thrown")), 1);
            } catch (const std::runtime_error& e) {
              right += std::string(e.what()) == "thrown";
            }
            right += completes_with<void(error_code, int)>(ex, asio::as_tuple(use_fiber), bad, 6) ==
                     std::tuple(bad, 6);
            error_code ec;
            right += completes_with<void(error_code, int)>(ex, asio::redirect_error(use_fiber, ec),
                                                           bad, 7) == 7;
            right += ec == bad;
            right += completes_with<void(error_code, int)>(ex, use_fiber[ec], error_code(), 8) == 8;
            right += !ec;
            completes_with<void(error_code)>(ex, use_fiber[ec], bad);
            right += ec == bad;
          },
          stack_of_its_own());  // redirect_error has the completion write into a variable
      CHECK(right == 5 * 12);
    });
  }

  TEST_CASE("an echo server and its clients over loopback") {
    io_thread io;
    with_workers([&](tendril::runtime& rt) {
      tcp::acceptor acceptor(io.context, {asio::ip::address_v4::loopback(), 0});
      const tcp::endpoint address = acceptor.local_endpoint();
      std::atomic<int> echoed = 0, ends = 0;
      tendril::fiber server([&] {
        for (int i = 0; i != 8; ++i) {
          auto socket = std::make_shared<tcp::socket>(acceptor.async_accept(use_fiber));
          tendril::spawn([&ends, socket] {
            const auto data = std::make_unique<std::array<char, 256>>();
            for (;;) {
              error_code ec;
              const std::size_t n = socket->async_read_some(asio::buffer(*data), use_fiber[ec]);
              if (ec) {
                ends += ec == asio::error::eof;
                return;
              }
              asio::async_write(*socket, asio::buffer(data->data(), n), use_fiber);
            }
          });
        }
      });
      on_everyone(
          7, 1,
          [&](int i) {
            tcp::socket socket(io.context);
            socket.async_connect(address, use_fiber);
            const std::string sent = "client " + std::to_string(i);
            for (int n = 0; n != 20; ++n) {
              const auto got = std::make_unique<std::string>(sent.size(), ' ');
              asio::async_write(socket, asio::buffer(sent), use_fiber);
              asio::async_read(socket, asio::buffer(*got), use_fiber);
              echoed += *got == sent;
            }
          },
          stack_of_its_own());  // composed operations refer to their socket
      server.join();
      rt.drain();
      CHECK(echoed == 8 * 20);
      CHECK(ends == 8);
    });
  }

  TEST_CASE("a thunk that a callback of the io_context calls awaits operations of that context") {
    io_thread io;
    with_workers([&](tendril::runtime&) {
      std::string seen;
      tendril::promise<void> returned;
      tendril::future<std::size_t> length;
      tcp::acceptor acceptor(io.context, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
      tcp::socket client(io.context), server(io.context);
      std::array<char, 3> data{};
      asio::post(io.context, [&] {
        const long loop = thread_number();
        const auto talk = tendril::thunk([&, loop] {
          seen += thread_number() == loop ? "loop " : "elsewhere ";
          client.async_connect(acceptor.local_endpoint(), use_fiber);
          seen += thread_number() == loop ? "loop " : "worker ";
          acceptor.async_accept(server, use_fiber);
          asio::async_write(client, asio::buffer("abc", 3), use_fiber);
          return asio::async_read(server, asio::buffer(data), use_fiber);
        });
        length = talk();
        returned.set_value();  // the loop goes on, or nothing above would ever complete
      });
      returned.get_future().get();
      CHECK(length.get() == 3);
      CHECK(seen == "loop worker ");
      CHECK(std::string(data.data(), 3) == "abc");
    });
  }

  TEST_CASE("a stop request and a deadline cancel the operation") {
    io_thread io;
    with_workers([&](tendril::runtime&) {
      std::vector<boost::system::error_code> codes(3);
      tendril::counting_semaphore<8> started(0);
      const auto waits = [&](std::size_t i, auto executor) {
        // A timer's place in its queue is in the timer.
        return tendril::fiber(stack_of_its_own(), [&, i, executor] {
          codes[i] = error_of([&] {
            asio::steady_timer timer(executor, 1h);
            started.release();
            timer.async_wait(use_fiber);
          });
        });
      };
      auto a = waits(0, io.context.get_executor());
      auto b = waits(1, asio::make_strand(io.context));
      tendril::fiber c(stack_of_its_own(), [&] {
        codes[2] = error_of([&] {
          const tendril::deadline_scope limit(1ms);
          asio::steady_timer timer(io.context, 1h);
          timer.async_wait(use_fiber);
        });
      });
      started.acquire();
      started.acquire();
      a.request_stop();
      b.request_stop();
      a.join();
      b.join();
      c.join();
      for (const auto& code : codes) CHECK(code == asio::error::operation_aborted);
    });
  }

  TEST_CASE("a stop request that comes with the completion touches nothing that has gone") {
    io_thread io;
    with_workers({2}, [&](tendril::runtime&) {
      for (int i = 0; i != 200; ++i) {
        tendril::fiber f([&] {
          error_code ec;
          auto timer =
              std::make_unique<asio::steady_timer>(io.context, std::chrono::microseconds(i % 50));
          timer->async_wait(use_fiber[ec]);
        });
        f.request_stop();
        f.join();
      }
    });
  }

  TEST_CASE("a handler that is destroyed without having been called breaks the promise") {
    with_workers([](tendril::runtime&) {
      std::shared_ptr<void> handler;
      tendril::binary_semaphore begun(0);
      std::error_code code;
      tendril::fiber f([&] {
        try {
          asio::async_initiate<const tendril::use_fiber_t, void(error_code)>(
              [&](auto h) {
                handler = std::make_shared<decltype(h)>(std::move(h));
                begun.release();
              },
              use_fiber);
        } catch (const std::future_error& e) {
          code = e.code();
        }
      });
      begun.acquire();
      handler.reset();
      f.join();
      CHECK(code == std::future_errc::broken_promise);
    });
  }
}
