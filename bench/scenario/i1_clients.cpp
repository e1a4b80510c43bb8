// SPDX-License-Identifier: Apache-2.0
//
// I1: unmodified client libraries, with a fiber for each connection or a thread for each. For each library a program
// that is linked with it alone and with tendril::intercept, as a user's is (i1_hiredis.cpp, i1_libpq.cpp); in both
// variants the same program and the same code, as the library's manual shows it (i1_client_load.hpp). Fibers have one
// worker; threads have all cores. The servers are Debian's, on the loopback interface, and share the machine, so rates
// are those of client and server together. The variants take turns; who waits keeps its connections. Memory
// is the resident set, of which five megabytes are the program and its libraries in both, ten with libpq's; what it
// grows by with each client, "each"; and, as "with the kernel's", all with page tables and the threads' kernel
// stacks.
//
// Does not show: servers on other machines, where the client's share of the time is all of it.

#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <cstdio>
#include <filesystem>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

#ifdef TENDRIL_BENCH_CLIENTS

struct library {
  const char* name;
  const char* server;
  const char* rate;   // the metric of both variants
  const char* ratio;  // the metric of fibers
  int clients;
};

std::map<std::string, double> compare(const library& l, long rounds, long ms) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe")
                                  .replace_filename(std::string("tendril-experiments-") + l.name)
                                  .string();
  const std::vector<std::string> command{"python3",
                                         TENDRIL_BENCH_SERVERS,
                                         l.server,
                                         program,
                                         "compare-clients",
                                         "--clients",
                                         std::to_string(l.clients),
                                         "--rounds",
                                         std::to_string(rounds),
                                         "--ms",
                                         std::to_string(ms)};
  const std::string text = output_of(command);
  if (text.empty()) {
    std::string line;
    for (const std::string& word : command) line += word + ' ';
    throw std::runtime_error("failed; to see how, run: " + line);
  }
  std::map<std::string, double> figures;
  std::istringstream lines(text);
  std::string key;
  for (double value = 0; lines >> key >> value;) figures[key] = value;
  return figures;
}

void run(context& ctx) {
  const long rounds = ctx.pick(3L, 9L);
  const long ms = ctx.pick(700L, 5000L);
  const library libraries[] = {
      {"hiredis", "redis", "commands_per_second", "commands_ratio_to_threads", 1000},
      {"libpq", "postgres", "queries_per_second", "queries_ratio_to_threads", 1000},
  };
  table t({"client", "connections", "fibers 1/s", "threads 1/s", "ratio", "fibers MB", "threads MB",
           "ratio", "each", "each", "ratio", "with the kernel's"});
  for (const library& l : libraries) {
    ctx.attempt("fiber/intercept", [&] {
      const auto f = compare(l, rounds, ms);
      const parameters params{{"client", l.name},
                              {"clients", l.clients},
                              {"workers", 1},
                              {"rounds", rounds},
                              {"ms", ms}};
      ctx.add("fiber/intercept", l.rate, f.at("fiber_per_second"), "1/s", params);
      ctx.add("thread", l.rate, f.at("thread_per_second"), "1/s", params);
      ctx.add("fiber/intercept", l.ratio, f.at("rate_ratio"), "ratio", params);
      ctx.add("fiber/intercept", "rss_bytes", f.at("fiber_bytes"), "B", params);
      ctx.add("thread", "rss_bytes", f.at("thread_bytes"), "B", params);
      ctx.add("fiber/intercept", "rss_ratio_to_threads", f.at("rss_ratio"), "ratio", params);
      ctx.add("fiber/intercept", "rss_bytes_each", f.at("fiber_each_bytes"), "B", params);
      ctx.add("thread", "rss_bytes_each", f.at("thread_each_bytes"), "B", params);
      ctx.add("fiber/intercept", "rss_each_ratio_to_threads", f.at("each_ratio"), "ratio", params);
      ctx.add("fiber/intercept", "memory_ratio_to_threads", f.at("memory_ratio"), "ratio", params);
      t.row({l.name, std::to_string(l.clients), fixed(f.at("fiber_per_second"), 0),
             fixed(f.at("thread_per_second"), 0), fixed(f.at("rate_ratio"), 2),
             fixed(f.at("fiber_bytes") / 1e6, 1), fixed(f.at("thread_bytes") / 1e6, 1),
             fixed(f.at("rss_ratio"), 2), fixed(f.at("fiber_each_bytes"), 0),
             fixed(f.at("thread_each_bytes"), 0), fixed(f.at("each_ratio"), 2),
             fixed(f.at("memory_ratio"), 2)});
    });
  }
  t.print();
}

#else

void run(context& ctx) {
  ctx.fail("(all)", "built without hiredis and libpq (Debian: libhiredis-dev, libpq-dev)");
}

#endif

const registration i1({"I1",
                       "unmodified clients: hiredis and libpq",
                       "rate and memory of blocking client libraries on fibers against threads",
                       "servers on other machines; other clients",
                       {"fiber/intercept", "thread"},
                       run});

}  // namespace
}  // namespace bench
