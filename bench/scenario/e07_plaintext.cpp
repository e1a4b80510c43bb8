// SPDX-License-Identifier: Apache-2.0
//
// E7: how much does a fiber per connection cost against hand-written callbacks, on the same kernel,
// protocol code and moment? Servers run in processes of their own on one core, the loader on another
// (bench/support/loader.hpp says why it drives them in interleaved slices).
//
// One cycle drives every server once, in random order. ratio = rate(server) / rate(callbacks) within
// the cycle; the figure is the median over cycles, with quartiles. The loader must not be what limits:
// `server_busy`, the share of its core that the driven server used, has to be near 1, and
// `cpu_ratio_to_callbacks` is the same comparison by CPU time, which a slow loader cannot hide. p99 is
// taken per slice and its median over cycles reported, so that one disturbed slice does not make it.
//
// Who shares the machine with others sees their load, not the servers. The kernel knows when a thread
// that could run did not: a slice in which the server or the loader waited for its core for more than
// 3 % of the time is disturbed, and counts only where fewer than ten undisturbed ones are left (the
// output then says so).
//
// `fiber/reserved intercepted` is the same program with tendril::intercept preloaded, which nothing in it uses: its
// figures are also given as ratios to `fiber/reserved`, within the cycle.
//
// Does not show: networks with loss or latency, TLS, big responses, more than one core per server.

#include "bench/scenario/plaintext_servers.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/loader.hpp"
#include "bench/support/process.hpp"
#include "bench/support/socket.hpp"
#include "bench/support/statistics.hpp"
#include "bench/support/table.hpp"

#include <tendril/intercept.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <utility>

namespace bench {
namespace {

#ifndef TENDRIL_BENCH_FRONT  // the path of tendril::intercept's library; empty: not built
#define TENDRIL_BENCH_FRONT ""
#endif
constexpr const char* intercepted = "fiber/reserved intercepted";

using namespace std::chrono_literals;

int serve_plaintext(const arguments& args, role_output& out) {
  const std::string impl = args.text("impl");
  const auto port = static_cast<std::uint16_t>(args.number("port", 0));
  const bool preloaded = !args.text("preload", "").empty();
  const port_callback ready = [&](std::uint16_t bound) {
    if (preloaded && !tendril::interception::is_installed())
      throw std::runtime_error("nothing is intercepted, with LD_PRELOAD=" + args.text("preload"));
    out.send("port", std::to_string(bound));
  };
  want_descriptors(static_cast<unsigned>(args.number("connections", 1000)) + 64);
  if (impl == "callbacks") serve_callbacks(port, ready);
  else if (impl == "epoll") serve_epoll(port, ready);
  else if (impl == "thread") serve_threads(port, ready);
  else if (impl == "fiber") serve_fibers(port, ready, args.text("stack", "reserved"));
  else if (impl == "task") serve_task(port, ready);
  else if (impl == "async1") serve_async1(port, ready);
  else
    throw std::invalid_argument("unknown --impl '" + impl +
                                "'; known: callbacks, epoll, thread, fiber, task, async1");
  return 0;
}
const role_registration serve_role("serve-plaintext", serve_plaintext);

struct configuration {
  unsigned connections;
  unsigned pipeline;
};

struct sample {
  double rate;       // responses a second
  double p99_us;     // of this slice
  double cpu_us;     // server CPU per request
  double busy;       // share of a core, server
  double load_busy;  // share of a core, loader
  bool disturbed;    // somebody else ran on these cores
};

struct server_under_test {
  std::string variant;
  child_process process;
  std::uint16_t port;
  std::unique_ptr<load_target> load;
  std::vector<sample> samples;  // one a cycle
  latency_histogram latencies;  // of all undisturbed slices
};

constexpr double disturbed_share = 0.03;
constexpr std::size_t enough = 10;

/// One slice, as one sample of the server's.
void drive_once(server_under_test& s, std::chrono::nanoseconds length) {
  // Many threads on one core wait for each other: there, only the loader's waiting tells.
  const bool single_thread = s.variant != "thread";
  const auto waited = [&] {
    return own_run_queue_wait() + (single_thread ? s.process.run_queue_wait() : 0ns);
  };
  const auto seconds = [](std::chrono::nanoseconds t) {
    return std::chrono::duration<double>(t).count();
  };

  const auto latencies = std::make_unique<latency_histogram>();
  const auto waited_before = waited();
  const auto cpu_before = s.process.cpu_time();
  const slice driven = s.load->drive(length, *latencies);
  const double cpu = seconds(s.process.cpu_time() - cpu_before);
  const bool disturbed =
      seconds(waited() - waited_before) > disturbed_share * driven.seconds_in_all;

  if (!disturbed) s.latencies.add(*latencies);
  s.samples.push_back({static_cast<double>(driven.in_time) / driven.seconds,
                       latencies->percentile(0.99) / 1e3,
                       cpu * 1e6 / static_cast<double>(driven.in_all), cpu / driven.seconds_in_all,
                       driven.load_cpu_seconds / driven.seconds_in_all, disturbed});
}

using field = double sample::*;

/// One field over the undisturbed cycles; over all where those are too few.
std::vector<double> values(const server_under_test& s, field f) {
  std::vector<double> quiet;
  std::vector<double> all;
  for (const sample& x : s.samples) {
    all.push_back(x.*f);
    if (!x.disturbed) quiet.push_back(x.*f);
  }
  return quiet.size() >= enough ? quiet : all;
}

/// Per-cycle ratios of a to b, over cycles undisturbed for both; over all where those are too few.
std::vector<double> ratios(const server_under_test& a, const server_under_test& b, field f) {
  std::vector<double> quiet;
  std::vector<double> all;
  for (std::size_t i = 0; i < a.samples.size(); ++i) {
    const double ratio = a.samples[i].*f / (b.samples[i].*f);
    all.push_back(ratio);
    if (!a.samples[i].disturbed && !b.samples[i].disturbed) quiet.push_back(ratio);
  }
  return quiet.size() >= enough ? quiet : all;
}

std::size_t quiet_cycles(const server_under_test& s) {
  return static_cast<std::size_t>(std::count_if(s.samples.begin(), s.samples.end(),
                                                [](const sample& x) { return !x.disturbed; }));
}

std::unique_ptr<server_under_test> start_server(const std::string& variant, int core,
                                                const configuration& c) {
  auto process = child_process::start("serve-plaintext", plaintext_arguments(variant), core);
  const auto port = static_cast<std::uint16_t>(std::stoul(process.expect("port")));
  auto load = std::make_unique<load_target>(variant, port, c.connections, c.pipeline);
  return std::make_unique<server_under_test>(
      server_under_test{variant, std::move(process), port, std::move(load), {}, {}});
}

using servers = std::vector<std::unique_ptr<server_under_test>>;

const server_under_test* find(const servers& all, const std::string& variant) {
  for (const auto& s : all)
    if (s->variant == variant) return s.get();
  return nullptr;
}

void report_server(context& ctx, const server_under_test& s, const servers& all,
                   const parameters& params, table& out) {
  const auto add = [&](const char* metric, double value, const char* unit) {
    ctx.add(s.variant, metric, value, unit, params);
  };
  const double rate = median(values(s, &sample::rate));
  const double p99 = median(values(s, &sample::p99_us));
  const double cpu_us = median(values(s, &sample::cpu_us));
  const double busy = median(values(s, &sample::busy));
  const double load_busy = median(values(s, &sample::load_busy));
  const std::size_t quiet = quiet_cycles(s);
  add("requests_per_second", rate, "1/s");
  add("p99_us", p99, "us");
  add("cpu_us_per_request", cpu_us, "us");
  add("server_busy", busy, "share");
  add("loader_busy", load_busy, "share");
  add("undisturbed_cycles", static_cast<double>(quiet), "cycles");
  if (s.latencies.total() != 0) {
    add("p50_us_all_slices", s.latencies.percentile(0.5) / 1e3, "us");
    add("p99_us_all_slices", s.latencies.percentile(0.99) / 1e3, "us");
  }

  std::vector<std::string> cells{s.variant,
                                 fixed(rate, 0),
                                 "-",
                                 "-",
                                 "-",
                                 fixed(p99, 0),
                                 "-",
                                 fixed(cpu_us, 2),
                                 "-",
                                 fixed(busy, 2),
                                 fixed(load_busy, 2),
                                 std::to_string(quiet) + "/" + std::to_string(s.samples.size())};
  if (const server_under_test* reference = find(all, "callbacks")) {
    const quartiles ratio = quartiles_of(ratios(s, *reference, &sample::rate));
    const double p99_ratio = median(ratios(s, *reference, &sample::p99_us));
    const double cpu_ratio = median(ratios(s, *reference, &sample::cpu_us));
    add("ratio_to_callbacks", ratio.median, "ratio");
    add("ratio_to_callbacks_q1", ratio.q1, "ratio");
    add("ratio_to_callbacks_q3", ratio.q3, "ratio");
    add("p99_ratio_to_callbacks", p99_ratio, "ratio");
    add("cpu_ratio_to_callbacks", cpu_ratio, "ratio");
    cells[2] = fixed(ratio.median, 3);
    cells[3] = fixed(ratio.q1, 3) + ".." + fixed(ratio.q3, 3);
    cells[6] = fixed(p99_ratio, 3);
    cells[8] = fixed(cpu_ratio, 3);
  }
  if (const server_under_test* epoll = find(all, "epoll")) {
    const double ratio = median(ratios(s, *epoll, &sample::rate));
    add("ratio_to_epoll", ratio, "ratio");
    cells[4] = fixed(ratio, 3);
  }
  out.row(cells);
}

/// What it costs that tendril::intercept is there, though nothing calls it.
void report_intercepted(context& ctx, const servers& all, const parameters& params) {
  const server_under_test* const with = find(all, intercepted);
  const server_under_test* const without = find(all, "fiber/reserved");
  if (with == nullptr || without == nullptr) return;
  const quartiles rate = quartiles_of(ratios(*with, *without, &sample::rate));
  const quartiles cpu = quartiles_of(ratios(*with, *without, &sample::cpu_us));
  ctx.add(intercepted, "ratio_to_plain", rate.median, "ratio", params);
  ctx.add(intercepted, "cpu_ratio_to_plain", cpu.median, "ratio", params);
  std::printf("  %s to fiber/reserved: requests/s %s (%s..%s), cpu %s (%s..%s)\n", intercepted,
              fixed(rate.median, 3).c_str(), fixed(rate.q1, 3).c_str(), fixed(rate.q3, 3).c_str(),
              fixed(cpu.median, 3).c_str(), fixed(cpu.q1, 3).c_str(), fixed(cpu.q3, 3).c_str());
}

/// "Requests/sec: 123.45" of wrk, for one server while the others idle.
double wrk_rate(std::uint16_t port, int core, unsigned connections, unsigned seconds) {
  const std::string text = output_of(
      {"wrk", "-t1", "-c" + std::to_string(connections), "-d" + std::to_string(seconds) + "s",
       "http://127.0.0.1:" + std::to_string(port) + "/plaintext"},
      core);
  const std::string key = "Requests/sec:";
  const auto at = text.find(key);
  return at == std::string::npos ? std::nan("")
                                 : std::strtod(text.c_str() + at + key.size(), nullptr);
}

void compare_with_wrk(context& ctx, const servers& all, int core, const configuration& c) {
  const unsigned rounds = ctx.pick(2u, 5u);
  const unsigned seconds = ctx.pick(1u, 2u);
  std::vector<std::vector<double>> rates(all.size());
  for (unsigned round = 0; round < rounds; ++round)
    for (std::size_t i = 0; i < all.size(); ++i)
      if (all[i]->variant == "callbacks" || all[i]->variant.rfind("fiber", 0) == 0)
        rates[i].push_back(wrk_rate(all[i]->port, core, c.connections, seconds));
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (rates[i].empty()) continue;
    // The best: other load only ever slows it, and wrk does not tell when there was some.
    const double rate = *std::max_element(rates[i].begin(), rates[i].end());
    if (std::isnan(rate)) {
      std::printf("  wrk: not installed or failed; its figure is left out\n");
      return;
    }
    ctx.add(all[i]->variant, "wrk_requests_per_second", rate, "1/s",
            {{"connections", c.connections},
             {"pipeline", 1},
             {"seconds", seconds},
             {"best_of", rounds}});
    std::printf("  wrk -t1 -c%u -d%us (best of %u): %s %s requests/s\n", c.connections, seconds,
                rounds, all[i]->variant.c_str(), fixed(rate, 0).c_str());
  }
}

void check_harness(context& ctx, const servers& all) {
  const double ratio =
      median(ratios(*find(all, "callbacks#2"), *find(all, "callbacks"), &sample::rate));
  if (quiet_cycles(*find(all, "callbacks")) < enough)
    ctx.fail("callbacks#2", "the machine is too busy to tell; the reference against itself gave " +
                                fixed(ratio, 3));
  else if (std::fabs(ratio - 1) > 0.02)
    ctx.fail("callbacks#2",
             "the harness is biased: the reference against itself gives " + fixed(ratio, 3));
  else
    std::printf("  self-check: the reference against itself gives %s, within 1.00 +- 0.02\n",
                fixed(ratio, 3).c_str());
}

void measure(context& ctx, const std::vector<std::string>& variants, const configuration& c,
             std::chrono::seconds budget) {
  constexpr auto slice_length = 60ms;
  const std::vector<int>& cores = usable_cores();
  const int server_core = cores.front();
  const int load_core = cores.back();
  const unsigned seed = std::random_device{}();
  want_descriptors(static_cast<unsigned>(variants.size()) * c.connections + 64);
  pin_to_core(load_core);

  servers all;
  for (const std::string& v : variants)
    ctx.attempt(v, [&] { all.push_back(start_server(v, server_core, c)); });

  std::mt19937 random(seed);
  std::vector<std::size_t> order(all.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto cycle = [&] {
    std::shuffle(order.begin(), order.end(), random);
    for (const std::size_t i : order) drive_once(*all[i], slice_length);
  };
  for (int warm = 0; warm < 3; ++warm) cycle();
  for (const auto& s : all) {
    s->latencies = {};
    s->samples.clear();
  }
  unsigned cycles = 0;
  for (const auto end = std::chrono::steady_clock::now() + budget;
       std::chrono::steady_clock::now() < end; ++cycles)
    cycle();

  const parameters params{{"connections", c.connections},
                          {"pipeline", c.pipeline},
                          {"slice_ms", 60},
                          {"cycles", cycles},
                          {"server_core", server_core},
                          {"load_core", load_core},
                          {"seed", seed}};
  std::printf("\n  %s\n", to_text(params).c_str());
  table out({"server", "requests/s", "to callbacks", "quartiles", "to epoll", "p99 us", "p99 ratio",
             "cpu us/req", "cpu ratio", "busy", "loader", "undisturbed"});
  for (const auto& s : all) report_server(ctx, *s, all, params, out);
  if (!ctx.self_check()) out.row({"published: green threads / async", "162,019", "0.907"});
  out.print();
  report_intercepted(ctx, all, params);
  if (std::any_of(all.begin(), all.end(), [](const auto& s) { return quiet_cycles(*s) < enough; }))
    std::printf("  note: fewer than %zu undisturbed cycles: these are figures of a busy machine\n",
                enough);

  if (ctx.self_check()) check_harness(ctx, all);
  else if (c.connections == 64 && c.pipeline == 1) compare_with_wrk(ctx, all, load_core, c);
  pin_to_core(any_core);
}

void run(context& ctx) {
  if (ctx.self_check())
    return measure(ctx, {"callbacks", "callbacks#2"}, {64, 1},
                   std::chrono::seconds(ctx.pick(10, 60)));
  std::vector<std::string> variants{"callbacks", "epoll", "thread", "task", "async1"};
  for (const std::string& stack : stack_variants()) variants.push_back("fiber/" + stack);
  // The first is what other figures are compared with; of the others a few cycles more than `enough` have to do.
  const std::pair<configuration, int> plan[] = {
      {{64, 1}, ctx.pick(12, 120)}, {{64, 16}, ctx.pick(7, 120)}, {{1000, 1}, ctx.pick(8, 120)}};
  for (const auto& [c, seconds] : plan) {
    auto these = variants;
    if (*TENDRIL_BENCH_FRONT != '\0' && c.pipeline == 1 && c.connections == 64)
      these.push_back(intercepted);
    measure(ctx, these, c, std::chrono::seconds(seconds));
  }
}

const registration entry(
    {"E7",
     "plaintext: HTTP/1.1 keep-alive, one fiber per connection against raw callbacks",
     "the share of a raw libuv callback server's throughput, tail latency and CPU that fibers keep",
     "real networks, TLS, large bodies, several cores per server",
     {"callbacks", "epoll", "thread", "task", "async1", "fiber/<stack>", intercepted},
     run});

}  // namespace

arguments plaintext_arguments(const std::string& variant) {
  if (variant == intercepted) {
    arguments args = fiber_arguments("reserved");
    args.set("preload", TENDRIL_BENCH_FRONT);
    return args;
  }
  const auto slash = variant.find('/');
  return slash != std::string::npos ? fiber_arguments(variant.substr(slash + 1))
                                    : arguments{{"impl", variant.substr(0, variant.find('#'))}};
}

}  // namespace bench
