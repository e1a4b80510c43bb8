// SPDX-License-Identifier: Apache-2.0
//
// E7i: what does a connection cost that idles, while others work? So many connections are opened to a server that has
// a fiber for each, and are asked once; then 64 more are driven without a pause, and the memory of the server is read.
// At the end those that idled are asked again: all must answer.
//
// The server waits for a request by wait_readable(), and has its 4 KiB buffer only while it answers: a fiber that idles
// stands in a few frames. On a reserved stack that does not help, because the page of the buffer was used once; a
// tasklet that waits for long is as large as its frames. Tasklets share 128 slots, of which the active need 64.
//
// A process opens no more files than its limit: the server is as many processes as that takes, each with its own
// clients, and their memory is added up. The active connections go to the first. What is counted is the growth since the server listened, in resident memory and page tables.
//
// Does not show: what a socket takes in the kernel; throughput beside others (E7): the machine has had to open the
// connections just before.

#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/loader.hpp"
#include "bench/support/plaintext.hpp"
#include "bench/support/process.hpp"
#include "bench/support/socket.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/net.hpp>
#include <tendril/runtime.hpp>

#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace bench {
namespace {

using namespace std::chrono_literals;

constexpr unsigned active_connections = 64;
constexpr unsigned other_files = 128;  // descriptors that are no connections
constexpr std::size_t slots = 128;

/// Answers what has come. False: the connection is over.
[[gnu::noinline]] bool answer(tendril::net::tcp_stream& stream, plaintext::responder& responder) {
  plaintext::request_buffer in;
  do {
    std::error_code ec;
    const std::size_t n = stream.read_some(tendril::buffer(in.space()), ec);
    if (ec || n == 0) return false;
    int requests = in.arrived(n);
    if (requests < 0) return false;
    while (requests > 0) {
      const plaintext::responder::batch batch = responder.take(requests);
      stream.write_all(tendril::buffer(batch.bytes()), ec);
      if (ec) return false;
    }
  } while (in.holds_a_part());
  return true;
}

int serve_idle(const arguments& args, role_output& out) {
  want_descriptors(static_cast<unsigned>(args.number("connections")) + other_files);
  tendril::runtime_options options = runtime_with(args.text("stack"), 1);
  options.tasklets.slots = slots;
  tendril::run(options, [&] {
    const auto responder = std::make_unique<plaintext::responder>();
    tendril::net::tcp_listener listener(tendril::net::endpoint::loopback(0));
    out.send("port", std::to_string(listener.local_endpoint().port()));
    for (;;)
      tendril::spawn([stream = listener.accept(), &responder = *responder]() mutable {
        std::error_code ec;
        do stream.wait_readable(ec);
        while (!ec && answer(stream, responder));
      });
  });
  return 0;
}
const role_registration serve_idle_role("serve-idle", serve_idle);

/// Opens connections, asks each once, and again when the experiment closes the connection to `control`.
int hold_connections(const arguments& args, role_output& out) {
  const auto connections = static_cast<unsigned>(args.number("connections"));
  want_descriptors(connections + other_files);
  const unique_fd control = connect_to_loopback(static_cast<std::uint16_t>(args.number("control")));
  load_target all("idle", static_cast<std::uint16_t>(args.number("port")), connections, 1);
  out.send("held", connections);
  char byte = 0;
  if (::recv(control.get(), &byte, 1, 0) != 0)
    throw std::runtime_error("the experiment has ended otherwise than by closing the connection");
  latency_histogram latencies;
  out.send("answered", static_cast<double>(all.drive(1ms, latencies).in_all));
  return 0;
}
const role_registration hold_connections_role("hold-connections", hold_connections);

unsigned connections_of_a_process() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 ||
      limit.rlim_max < 2 * (other_files + active_connections))
    throw std::runtime_error("the limit of open files is too low (ulimit -Hn)");
  constexpr rlim_t enough = 1'000'000;
  return static_cast<unsigned>(std::min(limit.rlim_max, enough) - other_files - active_connections);
}

struct farm {
  struct part {
    child_process server;
    child_process clients;
    memory_use before;
    unsigned connections;
    unique_fd control;
  };
  std::vector<part> parts;
  std::uint16_t first_port = 0;
};

farm open_connections(const std::string& stack, unsigned total) {
  farm all;
  const unsigned at_most = connections_of_a_process();
  const auto& cores = usable_cores();
  const listening_socket control = listen_on_loopback(0, 0);
  for (unsigned opened = 0; opened != total;) {
    const unsigned n = std::min(at_most, total - opened);
    arguments args = fiber_arguments(stack);
    args.set("connections", std::to_string(n + active_connections));
    child_process server = child_process::start("serve-idle", args, cores.front());
    const std::string port = server.expect("port");
    const memory_use before = server.memory();
    child_process clients = child_process::start("hold-connections",
                                                 {{"connections", std::to_string(n)},
                                                  {"port", port},
                                                  {"control", std::to_string(control.port)}},
                                                 cores.back());
    unique_fd line(::accept4(control.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    clients.expect("held", 120s);
    if (all.parts.empty()) all.first_port = static_cast<std::uint16_t>(std::stoul(port));
    all.parts.push_back({std::move(server), std::move(clients), before, n, std::move(line)});
    opened += n;
  }
  return all;
}

struct measured {
  double resident = 0;     // bytes of each idle connection
  double page_tables = 0;  // the same
  double rate = 0;         // requests a second of the active ones
  std::size_t processes = 0;
};

measured measure(const std::string& stack, unsigned total, std::chrono::seconds length) {
  farm all = open_connections(stack, total);
  measured m;
  m.processes = all.parts.size();
  {
    load_target active("active", all.first_port, active_connections, 1);
    latency_histogram latencies;
    const slice driven = active.drive(length, latencies);
    m.rate = static_cast<double>(driven.in_all) / driven.seconds_in_all;
    for (const farm::part& p : all.parts) {
      const memory_use now = p.server.memory();
      m.resident += static_cast<double>(now.resident_bytes - p.before.resident_bytes);
      m.page_tables += static_cast<double>(now.page_table_bytes - p.before.page_table_bytes);
    }
  }
  m.resident /= total;
  m.page_tables /= total;
  for (farm::part& p : all.parts) {
    p.control.reset();
    if (p.clients.collect(120s).at("answered") != p.connections)
      throw std::runtime_error("not all connections that idled were answered");
  }
  return m;
}

void run(context& ctx) {
  const unsigned total = ctx.pick(20'000u, 100'000u);
  const std::chrono::seconds length(ctx.pick(1, 5));
  std::printf("  %u connections idle, %u active for %d s; %zu slots for tasklets\n", total,
              active_connections, static_cast<int>(length.count()), slots);
  table out({"variant", "processes", "bytes each", "page tables", "with them", "reserved / this",
             "requests/s of the active"});
  double reserved = 0;
  for (const std::string& stack : stack_variants()) {
    const std::string variant = "fiber/" + stack;
    ctx.attempt(variant, [&] {
      const measured m = measure(stack, total, length);
      const double each = m.resident + m.page_tables;
      const parameters params{{"idle", total},
                              {"active", active_connections},
                              {"processes", m.processes},
                              {"slots", slots}};
      ctx.add(variant, "resident_bytes_per_idle_connection", m.resident, "bytes", params);
      ctx.add(variant, "page_table_bytes_per_idle_connection", m.page_tables, "bytes", params);
      ctx.add(variant, "requests_per_second", m.rate, "1/s", params);
      if (stack == "reserved") reserved = each;
      const double less = reserved / each;
      if (reserved != 0 && stack != "reserved")
        ctx.add(variant, "times_less_memory_than_reserved", less, "ratio", params);
      out.row({variant, std::to_string(m.processes), fixed(m.resident, 0), fixed(m.page_tables, 1),
               fixed(each, 0), reserved != 0 ? fixed(less, 2) : "-", fixed(m.rate, 0)});
    });
  }
  out.print();
}

const registration entry(
    {"E7i",
     "plaintext with idle connections: 100,000 open, 64 active",
     "the memory that a fiber per connection takes while most connections idle",
     "what sockets take in the kernel",
     {"fiber/<stack>"},
     run});

}  // namespace
}  // namespace bench
