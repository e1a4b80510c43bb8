// SPDX-License-Identifier: Apache-2.0
//
// E6: one byte there and one byte back over loopback TCP, one round trip at a time: all latency, no
// throughput, so what shows is the price of waiting for a socket and being woken.
//   thread     two threads, blocking calls
//   callbacks  two libuv loops, each in a thread of its own
//   task, async1  two libuv loops, each in a thread of its own, a coroutine in each
//   fiber/X         two fibers, two workers, wherever the scheduler puts them
//   fiber/X apart   the same, one fiber held on each worker: like thread and callbacks
//   fiber/X 1w      the same on one worker: nobody has to be woken on another core
// With depth n, the client makes each round trip at the bottom of n nested calls, which grows the stack
// that is parked, or at the end of a chain of n coroutines; a callback has neither.
//
// Does not show: many sockets at once (E7), real networks.

#include "bench/scenario/coroutine_models.hpp"
#include "bench/scenario/recursion.hpp"
#include "bench/scenario/uv_coroutines.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/scenario/windows.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/socket.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/net.hpp>
#include <tendril/runtime.hpp>

#include <sys/socket.h>
#include <uv.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <thread>
#include <utility>

namespace bench {
namespace {

void require(bool ok, const char* what) {
  if (!ok) throw std::runtime_error(std::string("ping-pong: ") + what);
}

// --- threads -----------------------------------------------------------------------------------------

bool exchange_byte(int fd, char out, char& in, bool send_first) {
  if (send_first && ::send(fd, &out, 1, MSG_NOSIGNAL) != 1) return false;
  if (::recv(fd, &in, 1, 0) != 1) return false;
  return send_first || ::send(fd, &in, 1, MSG_NOSIGNAL) == 1;
}

std::vector<double> with_threads(const window_plan& plan, long depth) {
  const listening_socket listener = listen_on_loopback(0, 0);
  std::thread server([&] {
    const unique_fd fd(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    set_no_delay(fd.get());
    for (char c = 0; exchange_byte(fd.get(), 0, c, false);) {
    }
  });
  std::vector<double> figures;
  {
    const unique_fd fd = connect_to_loopback(listener.port);
    char sent = 0;
    auto round_trip = [&] {
      char got = 0;
      ++sent;
      require(exchange_byte(fd.get(), sent, got, true) && got == sent, "wrong byte");
    };
    figures = time_windows(plan, [&] { recurse(depth, round_trip); });
  }
  server.join();
  return figures;
}

// --- callbacks ---------------------------------------------------------------------------------------

/// One end: a loop with one stream. The client's end drives and times; windows as in time_windows.
struct callback_peer {
  uv_loop_t loop;
  uv_tcp_t stream;
  std::array<char, 64> in;
  const window_plan* plan = nullptr;  // null: the server's end, echoes
  char sent = 0;
  bool failed = false;
  long window = -1;
  std::uint64_t done = 0;
  std::chrono::steady_clock::time_point begin{};
  std::vector<double> figures;

  void send(char byte) {
    const uv_buf_t b = uv_buf_init(&byte, 1);
    if (uv_try_write(reinterpret_cast<uv_stream_t*>(&stream), &b, 1) != 1) close();
  }
  void close() {
    const auto handle = reinterpret_cast<uv_handle_t*>(&stream);
    if (uv_is_closing(handle) == 0) uv_close(handle, nullptr);
  }
  void ping() { send(++sent); }
  void pong(char got) {
    if (got != sent) {
      failed = true;
      return close();
    }
    if (++done % plan->batch == 0) {
      const auto now = std::chrono::steady_clock::now();
      if (now - begin >= plan->length) {
        if (window >= 0)
          figures.push_back(std::chrono::duration<double, std::nano>(now - begin).count() /
                            static_cast<double>(done));
        if (++window == plan->windows) return close();
        begin = now;
        done = 0;
      }
    }
    ping();
  }
};

void peer_space(uv_handle_t* handle, std::size_t, uv_buf_t* buffer) {
  auto& p = *static_cast<callback_peer*>(handle->data);
  *buffer = uv_buf_init(p.in.data(), static_cast<unsigned>(p.in.size()));
}

void peer_read(uv_stream_t* stream, ssize_t n, const uv_buf_t*) {
  auto& p = *static_cast<callback_peer*>(stream->data);
  if (n < 0) return p.close();
  for (ssize_t i = 0; i < n; ++i)
    p.plan == nullptr ? p.send(p.in[static_cast<std::size_t>(i)])
                      : p.pong(p.in[static_cast<std::size_t>(i)]);
}

void run_peer(callback_peer& p, int connected_fd) {
  uv_loop_init(&p.loop);
  uv_tcp_init(&p.loop, &p.stream);
  p.stream.data = &p;
  if (uv_tcp_open(&p.stream, connected_fd) != 0 || uv_tcp_nodelay(&p.stream, 1) != 0 ||
      uv_read_start(reinterpret_cast<uv_stream_t*>(&p.stream), peer_space, peer_read) != 0)
    throw std::runtime_error("ping-pong: cannot set up a libuv stream");
  if (p.plan != nullptr) {
    p.begin = std::chrono::steady_clock::now();
    p.ping();
  }
  uv_run(&p.loop, UV_RUN_DEFAULT);
  uv_loop_close(&p.loop);
}

std::vector<double> with_callbacks(const window_plan& plan) {
  const listening_socket listener = listen_on_loopback(0, 0);
  unique_fd near = connect_to_loopback(listener.port);
  unique_fd far(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
  std::thread server([fd = far.release()] {
    callback_peer p;
    run_peer(p, fd);
  });
  callback_peer client;
  client.plan = &plan;
  run_peer(client, near.release());
  server.join();
  require(!client.failed && static_cast<long>(client.figures.size()) == plan.windows,
          "the callback client gave up");
  return client.figures;
}

// --- coroutines --------------------------------------------------------------------------------------

template <template <class> class Task>
struct coroutine_peers {
  struct end {
    uv::stream& stream;
    char sent = 0;
  };

  static Task<void> round_trip(end& e, long depth) {
    if (depth != 0) {
      co_await round_trip(e, depth - 1);
      co_return;
    }
    ++e.sent;
    char got = 0;
    require(co_await e.stream.write_all({&e.sent, 1}) == 0, "cannot write");
    require(co_await e.stream.read_some({&got, 1}) == 1 && got == e.sent, "wrong byte");
  }

  static Task<void> client(uv::stream stream, const window_plan& plan, long depth,
                           std::vector<double>& figures) {
    end e{stream};
    window_clock windows(plan);
    while (windows.go_on()) co_await round_trip(e, depth);
    figures = windows.take_figures();
  }

  static Task<void> server(uv::stream stream) {
    for (char byte = 0; co_await stream.read_some({&byte, 1}) == 1;)
      require(co_await stream.write_all({&byte, 1}) == 0, "cannot write");
  }

  static std::vector<double> run(const window_plan& plan, long depth) {
    const listening_socket listener = listen_on_loopback(0, 0);
    unique_fd near = connect_to_loopback(listener.port);
    unique_fd far(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    set_no_delay(far.get());
    std::thread echo([fd = far.release()] {
      uv::loop loop;
      run_detached(server(uv::stream(loop, fd)));
      loop.run();
    });
    std::vector<double> figures;
    {
      uv::loop loop;
      run_detached(client(uv::stream(loop, near.release()), plan, depth, figures));
      loop.run();
    }
    echo.join();
    require(static_cast<long>(figures.size()) == plan.windows, "the coroutine client gave up");
    return figures;
  }
};

// --- fibers ------------------------------------------------------------------------------------------

std::vector<double> with_fibers(const window_plan& plan, long depth, const std::string& stack,
                                unsigned workers, bool apart) {
  struct shared {
    std::vector<double> figures;
    tendril::net::tcp_listener listener{tendril::net::endpoint::loopback(0)};
  };
  std::vector<double> figures;
  tendril::run(runtime_with(stack, workers), [&] {
    const auto s = std::make_unique<shared>();
    tendril::fiber_options on_first;
    tendril::fiber_options on_last;
    if (apart) {
      on_first.affinity = 0;
      on_last.affinity = static_cast<int>(workers) - 1;
    }
    tendril::fiber server(on_last, [&s = *s] {
      tendril::net::tcp_stream stream = s.listener.accept();
      std::array<char, 1> byte;
      while (stream.read_some(tendril::buffer(byte)) == 1) stream.write_all(tendril::buffer(byte));
    });
    tendril::fiber client(on_first, [&s = *s, &plan, depth] {
      auto stream = tendril::net::tcp_stream::connect(s.listener.local_endpoint());
      std::array<char, 1> out{};
      std::array<char, 1> in{};
      auto round_trip = [&] {
        ++out[0];
        stream.write_all(tendril::buffer(out));
        require(stream.read_some(tendril::buffer(in)) == 1 && in == out, "wrong byte");
      };
      s.figures = time_windows(plan, [&] { recurse(depth, round_trip); });
    });
    client.join();
    server.join();
    figures = std::move(s->figures);
  });
  return figures;
}

int ping_pong(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const long depth = args.number("depth", 0);
  const window_plan plan = window_plan::from(args, 16);
  if (impl == "thread") send_windows(out, with_threads(plan, depth));
  else if (impl == "callbacks") send_windows(out, with_callbacks(plan));
  else if (impl == "fiber")
    send_windows(out, with_fibers(plan, depth, args.text("stack", "reserved"),
                                  static_cast<unsigned>(args.number("workers", 2)),
                                  args.number("apart", 0) != 0));
  else if (impl == "async1") send_windows(out, coroutine_peers<async1_task>::run(plan, depth));
  else if (impl == "task") send_windows(out, coroutine_peers<tendril_task>::run(plan, depth));
  else
    throw std::invalid_argument("unknown --impl '" + impl +
                                "'; known: thread, callbacks, task, async1, fiber");
  return 0;
}
const role_registration ping_pong_role("ping-pong", ping_pong);

void run(context& ctx) {
  const int windows = ctx.pick(4, 10);
  const int window_ms = ctx.pick(80, 500);
  const std::vector<int> depths =
      ctx.full() ? std::vector<int>{0, 10, 100} : std::vector<int>{0, 100};
  std::printf("  windows=%d window_ms=%d bytes=1, two cores\n", windows, window_ms);
  table out({"variant", "depth", "us per round trip", "quartiles", "published us"});
  const auto measure = [&](const std::string& variant, arguments args, int depth, int workers,
                           const char* published) {
    ctx.attempt(variant, [&] {
      args.set("windows", std::to_string(windows));
      args.set("window-ms", std::to_string(window_ms));
      args.set("depth", std::to_string(depth));
      auto r = run_role("ping-pong", args);
      const parameters params{
          {"depth", depth}, {"windows", windows}, {"window_ms", window_ms}, {"workers", workers}};
      ctx.add(variant, "us_per_round_trip", r.at("median") / 1e3, "us", params);
      ctx.add(variant, "us_per_round_trip_q1", r.at("q1") / 1e3, "us", params);
      ctx.add(variant, "us_per_round_trip_q3", r.at("q3") / 1e3, "us", params);
      out.row({variant, std::to_string(depth), fixed(r.at("median") / 1e3, 2),
               fixed(r.at("q1") / 1e3, 2) + ".." + fixed(r.at("q3") / 1e3, 2), published});
    });
  };
  measure("callbacks", {{"impl", "callbacks"}}, 0, 2, "64 (async)");
  for (const int depth : depths)
    measure("thread", {{"impl", "thread"}}, depth, 2, depth == 0 ? "57" : "-");
  for (const char* model : {"task", "async1"})
    for (const int depth : depths)
      measure(model, {{"impl", model}}, depth, 2, depth == 0 ? "64 (async)" : "-");
  for (const std::string& stack : stack_variants())
    for (const int depth : depths) {
      const arguments fiber = fiber_arguments(stack);
      arguments apart = fiber;
      apart.set("apart", "1");
      arguments single = fiber;
      single.set("workers", "1");
      measure("fiber/" + stack, fiber, depth, 2, depth == 0 ? "67" : "-");
      measure("fiber/" + stack + " apart", apart, depth, 2, "-");
      measure("fiber/" + stack + " 1w", single, depth, 1, "-");
    }
  out.print();
}

const registration entry({"E6",
                          "socket ping-pong: one byte each way over loopback",
                          "the latency of waiting for a socket, also with a deep stack",
                          "throughput, real networks",
                          {"callbacks", "thread", "task", "async1", "fiber/<stack>",
                           "fiber/<stack> apart", "fiber/<stack> 1w"},
                          run});

}  // namespace
}  // namespace bench
