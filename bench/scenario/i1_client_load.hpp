// SPDX-License-Identifier: Apache-2.0
//
// What the two programs of I1 have in common: so many connections, each with a fiber or a thread of its own, all
// connected first, and then all asking for a while, as often as they are told to. A program defines Client, whose
// constructor connects and whose ask() is one command with its answer checked, and registers load_clients<Client>() as
// its role:
//
//   load-clients      the clients of one variant; asks for `ms` whenever an event arrives on the descriptor `turns`
//   compare-clients   both variants by turns, each with its connections open all the time; reports medians of rates
//                     and of ratios within a round (i1_client_load.cpp). Run by server.py, which has started
//                     the server.
#pragma once

#include "bench/support/memory.hpp"
#include "bench/support/role.hpp"

#include <tendril/latch.hpp>
#include <tendril/runtime.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace bench {

[[noreturn]] void client_failed(const std::string& what);

/// The server's, from the environment.
int port_of(const char* variable);

/// A while in which all ask.
struct client_window {
  explicit client_window(int count) : finished(count) {}
  tendril::latch begin{1};
  std::atomic<bool> over{false};
  std::atomic<std::uint64_t> done{0};
  tendril::latch finished;
};

/// What all clients share, be they fibers or threads.
struct client_load {
  client_load(int count, int windows);
  void failed(const std::exception& e);
  bool good();
  /// Throws what a client has failed with.
  void require_good();
  /// One that will not ask any more: nobody is to wait for it, from that window on.
  void left(bool connected, std::size_t window);

  tendril::latch connected;
  std::vector<std::unique_ptr<client_window>> windows;
  std::mutex mutex;
  std::string wrong;  // guarded by mutex
};

/// What load_clients() was told.
struct client_order {
  int clients;
  int windows;
  std::chrono::milliseconds length;
  int turns;  ///< descriptor from which to read before each window; -1: none
};

/// From a thread that is no client's: lets all connect, has them ask, reports each window. `before`: the process'
/// memory without clients.
void drive(client_load& l, const client_order& order, const memory_use& before, role_output& out);

/// Out of line: what connecting takes is not on the stack while a client asks.
template <class Client>
[[gnu::noinline]] std::unique_ptr<Client> connected_client(int i) {
  return std::make_unique<Client>(i);
}

template <class Client>
void one_client(client_load& l, int i) {
  bool connected = false;
  std::size_t next = 0;
  try {
    const std::unique_ptr<Client> client = connected_client<Client>(i);
    client->ask();  // what is set up at first use
    connected = true;
    l.connected.count_down();
    for (; next != l.windows.size(); ++next) {
      client_window& window = *l.windows[next];
      window.begin.wait();
      std::uint64_t done = 0;
      for (; !window.over.load(std::memory_order_relaxed); ++done) client->ask();
      window.done += done;
      window.finished.count_down();
    }
  } catch (const std::exception& e) {
    l.failed(e);
  }
  l.left(connected, next);
}

template <class Client>
void with_threads(const client_order& order, role_output& out) {
  client_load l(order.clients, order.windows);
  const memory_use before = read_memory_use();
  std::vector<std::thread> clients;
  for (int i = 0; i != order.clients; ++i)
    clients.emplace_back([&l, i] { one_client<Client>(l, i); });
  drive(l, order, before, out);
  for (std::thread& t : clients) t.join();
  l.require_good();
}

template <class Client>
void with_fibers(const client_order& order, role_output& out) {
  client_load l(order.clients, order.windows);
  // What libpq's and hiredis' manuals ask of a thread's stack is not much; formatting and the resolver are.
  tendril::runtime rt({.workers = 1,
                       .stack = {tendril::stack_kind::reserved, std::size_t{256} << 10},
                       .deadlock_grace = std::chrono::hours(1)});  // it is the others' turn
  const memory_use before = read_memory_use();
  for (int i = 0; i != order.clients; ++i) rt.spawn([&l, i] { one_client<Client>(l, i); });
  drive(l, order, before, out);
  rt.drain();
  l.require_good();
}

template <class Client>
int load_clients(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  if (impl != "thread" && impl != "fiber")
    throw std::invalid_argument("--impl " + impl + ": known are thread and fiber");
  const client_order order{
      static_cast<int>(args.number("clients")), static_cast<int>(args.number("rounds", 1)),
      std::chrono::milliseconds(args.number("ms")), static_cast<int>(args.number("turns", -1))};
  if (impl == "fiber") with_fibers<Client>(order, out);
  else with_threads<Client>(order, out);
  return 0;
}

}  // namespace bench
