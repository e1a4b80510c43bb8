// SPDX-License-Identifier: Apache-2.0
//
// S1: does a server of fibers hold? 10,000 connections stay open, 1,000 of them are driven without a
// pause, for a minute in full mode. Every response is checked; the server's resident memory is sampled
// each second. A leak of one byte per request would show as megabytes.
//
// Does not show: connections that come and go (the stress tests do), real networks.

#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/loader.hpp"
#include "bench/support/process.hpp"
#include "bench/support/socket.hpp"
#include "bench/support/table.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace bench {
namespace {

constexpr unsigned idle_connections = 9000;
constexpr unsigned active_connections = 1000;
double settling_seconds(const context& ctx) { return ctx.pick(2.0, 3.0); }

void soak(context& ctx, const std::string& stack, table& out) {
  using namespace std::chrono_literals;
  const double seconds = ctx.pick(4.0, 60.0);
  const auto& cores = usable_cores();
  want_descriptors(idle_connections + active_connections + 64);
  arguments args = fiber_arguments(stack);
  args.set("connections", std::to_string(idle_connections + active_connections));
  child_process server = child_process::start("serve-plaintext", args, cores.front());
  const auto port = static_cast<std::uint16_t>(std::stoul(server.expect("port")));
  load_target idle("idle", port, idle_connections, 1);  // one request each proves that it is served
  load_target active("active", port, active_connections, 1);
  latency_histogram latencies;
  std::uint64_t requests = 0;
  double driven = 0;
  std::uint64_t settled = 0;
  std::uint64_t last = 0;
  while (driven < seconds) {
    const slice s = active.drive(1s, latencies);
    requests += s.in_all;
    driven += s.seconds_in_all;
    last = server.resident_bytes();
    if (settled == 0 && driven >= settling_seconds(ctx)) settled = last;
  }
  idle.drive(1ms, latencies);  // those that were idle all the time still answer
  const double growth = static_cast<double>(last) - static_cast<double>(settled);
  const std::string variant = "fiber/" + stack;
  const parameters params{
      {"idle", idle_connections}, {"active", active_connections}, {"seconds", seconds}};
  ctx.add(variant, "requests_per_second", static_cast<double>(requests) / driven, "1/s", params);
  ctx.add(variant, "resident_bytes", static_cast<double>(last), "bytes", params);
  ctx.add(variant, "growth_bytes", growth, "bytes", params);
  ctx.add(variant, "p99_us", latencies.percentile(0.99) / 1000, "us", params);
  out.row({variant, fixed(seconds, 0), fixed(static_cast<double>(requests), 0),
           fixed(static_cast<double>(requests) / driven, 0),
           fixed(latencies.percentile(0.99) / 1000, 0), fixed(static_cast<double>(last) / 1024, 0),
           fixed(growth / 1024, 0)});
}

void run(context& ctx) {
  std::printf(
      "  10,000 connections open, 1,000 of them active; growth of memory since second %.0f\n",
      settling_seconds(ctx));
  table out(
      {"variant", "seconds", "requests", "requests/s", "p99 us", "resident KiB", "growth KiB"});
  for (const std::string& stack : stack_variants())
    ctx.attempt("fiber/" + stack, [&] { soak(ctx, stack, out); });
  out.print();
}

const registration entry({"S1",
                          "soak: 10,000 connections held open, 1,000 of them active",
                          "whether a server of fibers answers all of them and keeps its memory",
                          "connections that come and go",
                          {"fiber/<stack>"},
                          run});

}  // namespace
}  // namespace bench
