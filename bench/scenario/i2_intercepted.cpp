// SPDX-License-Identifier: Apache-2.0
//
// I2: what does it cost that a call is intercepted? In a program of its own, which is linked with
// tendril::intercept (tendril-experiments is not, so that nothing in it is about interception):
//   thread/intercept  on a thread that is no fiber, in a process with a runtime: a call by its name, and the same
//                     call by libc's own address. The call is refused at once by the kernel (read of
//                     descriptor -1), or told that nothing is there (recv of an empty socket), so that the
//                     difference is not lost in the kernel's work
//   fiber/intercept   one byte written to and one read from loopback TCP, by write() and read() on fibers of one
//                     worker, and by tcp_stream:
//                       ready   one fiber, who writes to one end and reads from the other: nobody waits
//                       parked  two fibers, ping-pong: each read waits
// Slices of a few milliseconds in random order; processor time; medians over cycles.
//
// Does not show: calls that go to another thread (names, files), memory, cold caches.

#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <cstdio>
#include <string>

namespace bench {
namespace {

void run(context& ctx) {
  const long cycles = ctx.pick(40L, 400L);
  const std::uint64_t seed = new_seed();
  const parameters params{{"cycles", cycles}, {"seed", static_cast<std::int64_t>(seed)}};
  std::printf("  %s\n", to_text(params).c_str());
  table out({"variant", "call", "by libc / tcp_stream", "intercepted", "over"});
  ctx.attempt("thread/intercept", [&] {
    const auto r = run_role_in_processes("intercepted-calls",
                                         {{"program", "tendril-experiments-intercept"},
                                          {"what", "thread"},
                                          {"cycles", std::to_string(cycles)},
                                          {"seed", std::to_string(seed)}},
                                         3);
    for (const std::string call : {"read", "recv"}) {
      parameters p = params;
      p.emplace_back("call", call);
      ctx.add("thread/intercept", "ns_over_libc", r.at("over:" + call), "ns", p);
      ctx.add("thread/intercept", "ns_libc", r.at("libc:" + call), "ns", p);
      out.row({"thread/intercept", call, fixed(r.at("libc:" + call), 1),
               fixed(r.at("intercepted:" + call), 1), fixed(r.at("over:" + call), 1) + " ns"});
    }
  });
  ctx.attempt("fiber/intercept", [&] {
    const auto r = run_role_in_processes("intercepted-calls",
                                         {{"program", "tendril-experiments-intercept"},
                                          {"what", "fiber"},
                                          {"stack", "reserved"},
                                          {"cycles", std::to_string(cycles)},
                                          {"seed", std::to_string(seed)}},
                                         3);
    for (const std::string way : {"ready", "parked"}) {
      parameters p = params;
      p.emplace_back("exchange", way);
      const double stream = r.at("stream:" + way), over = r.at("over:" + way);
      ctx.add("fiber/intercept", "ns_over_tcp_stream", over, "ns", p);
      ctx.add("fiber/intercept", "ns_tcp_stream", stream, "ns", p);
      ctx.add("fiber/intercept", "ratio_to_tcp_stream", r.at("ratio:" + way), "x", p);
      out.row({"fiber/intercept", "write + read, " + way, fixed(stream, 0),
               fixed(r.at("intercepted:" + way), 0),
               fixed(over, 0) + " ns, " + fixed((r.at("ratio:" + way) - 1) * 100, 1) + " %"});
    }
  });
  out.print();
}

const registration i2({
    .id = "I2",
    .title = "What an intercepted call costs",
    .shows = "the price of asking who calls, on threads; of read() and write() on fibers against "
             "tcp_stream",
    .does_not_show = "calls that are made on other threads, memory, real clients (I1)",
    .variants = {"thread/intercept", "fiber/intercept"},
    .run = &run,
});

}  // namespace
}  // namespace bench
