// SPDX-License-Identifier: Apache-2.0
//
// E21: how long from the start of a process to the first response of a server? From outside: the clock
// runs from before fork until the last byte of the first response of the plaintext server (E7) has been
// read and checked. In between: fork, exec, the loader, static initialisation, whatever the runtime sets
// up, the port reported through a pipe, a connection, a request in two parts.
//
// All variants are roles of one program, so what does not differ between them is the same: `process` is
// the same program doing nothing but reporting, and ms_over_process what the server adds to it. The
// segmented program is another file, with a `process` of its own. Servers start one at a time, in random
// order, many times; the files are in the page cache after the first.
//
// Does not show: files that come from a disk, programs larger than this one, .NET's just-in-time compiler,
// which is what the published figure is mostly about.

#include "bench/scenario/plaintext_servers.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/loader.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace bench {
namespace {

using steady = std::chrono::steady_clock;

double ms_since(steady::time_point begin) {
  return std::chrono::duration<double, std::milli>(steady::now() - begin).count();
}

/// The process that does nothing else.
int report_start(const arguments&, role_output& out) {
  out.send("started", 1);
  return 0;
}
const role_registration report_start_role("report-start", report_start);

double time_process(const arguments& args) {
  const auto begin = steady::now();
  child_process child = child_process::start("report-start", args, any_core);
  child.expect("started");
  const double ms = ms_since(begin);
  child.collect(std::chrono::seconds(10));  // its end is not part of it, and must be a good one
  return ms;
}

double time_server(const std::string& variant, const arguments& args) {
  const auto begin = steady::now();
  child_process server = child_process::start("serve-plaintext", args, any_core);
  const auto port = static_cast<std::uint16_t>(std::stoul(server.expect("port")));
  const load_target first(variant, port, 1, 1);  // connects, asks once, checks the response
  return ms_since(begin);
}

struct server {
  std::string variant;
  std::string process;  // the contestant that it is compared with
};

void run(context& ctx) {
  const unsigned starts = ctx.pick(150u, 1000u);
  const std::uint64_t seed = new_seed();
  const parameters params{{"starts", starts}, {"seed", static_cast<std::int64_t>(seed)}};
  std::printf("  %s\n", to_text(params).c_str());

  std::vector<contestant> all;
  std::vector<server> servers;
  const auto compete = [&](const std::string& variant, const std::string& process) {
    const arguments args = plaintext_arguments(variant);
    // Once by itself: a server that does not work must not take the others with it.
    if (!ctx.attempt(variant, [&] { time_server(variant, args); })) return;
    all.push_back({variant, [=] { return time_server(variant, args); }});
    servers.push_back({variant, process});
  };
  all.push_back({"process", [] { return time_process({}); }});
  for (const char* variant : {"callbacks", "thread", "task", "async1"}) compete(variant, "process");
  for (const std::string& stack : stack_variants()) {
    if (stack == "segmented") {
      const arguments args = in_segmented_program({});
      all.push_back({"process/segmented", [=] { return time_process(args); }});
      compete("fiber/" + stack, "process/segmented");
    } else {
      compete("fiber/" + stack, "process");
    }
  }

  const interleaved r(all, 3, starts, seed);
  table out({"variant", "ms to first response", "quartiles", "over process", "published ms"});
  for (const contestant& c : all) {
    if (c.name.rfind("process", 0) != 0) continue;
    const quartiles q = r.of(c.name);
    ctx.add(c.name, "ms_to_main", q.median, "ms", params);
    out.row({c.name + " (to main)", fixed(q.median, 2), fixed(q.q1, 2) + ".." + fixed(q.q3, 2), "-",
             "-"});
  }
  for (const server& s : servers) {
    const quartiles q = r.of(s.variant);
    std::vector<double> over;
    for (std::size_t i = 0; i != r.taken(s.variant).size(); ++i)
      over.push_back(r.taken(s.variant)[i] - r.taken(s.process)[i]);
    const double added = median(over);
    ctx.add(s.variant, "ms_to_first_response", q.median, "ms", params);
    ctx.add(s.variant, "ms_to_first_response_q1", q.q1, "ms", params);
    ctx.add(s.variant, "ms_to_first_response_q3", q.q3, "ms", params);
    ctx.add(s.variant, "ms_over_process", added, "ms", params);
    out.row({s.variant, fixed(q.median, 2), fixed(q.q1, 2) + ".." + fixed(q.q3, 2), fixed(added, 2),
             "-"});
  }
  out.row({"published: Runtime Async, claimed", "-", "-", "-", "35 (-80 %)"});
  out.print();
}

const registration entry(
    {"E21",
     "cold start: from the start of a process to the first response of a server",
     "what each way of writing a server adds to the start of its process",
     "files read from a disk, just-in-time compilers",
     {"callbacks", "thread", "fiber/<stack>", "task", "async1"},
     run});

}  // namespace
}  // namespace bench
