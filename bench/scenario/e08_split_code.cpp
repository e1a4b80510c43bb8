// SPDX-License-Identifier: Apache-2.0
//
// E8f: what do split prologues cost where there are no segments? Code compiled for segmented stacks may
// run anywhere: on a thread and on a reserved stack its functions compare the stack pointer with a limit
// that is never reached. fib(32) is seven million calls and little else: nothing shows it more.
//
// The comparison is free as long as its jump has never been taken: a processor does not predict jumps that it has not
// seen taken. A function that has once gone across an edge, on any fiber of the process, has one jump more to predict
// wherever it is called, a cycle a call. So there are processes in which nothing is segmented, and others (`grown`)
// in which fib has gone across edges, and does so again each time that a segmented fiber has its turn.
//
// Does not show: code that does work between calls, for which the comparison costs less.

#include "bench/scenario/fib.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/cpu_clock.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

constexpr unsigned n = 32;
constexpr std::uint64_t fib_of_n = 2'178'309;

struct fib_job {
  std::uint64_t (*fib)(unsigned);
  std::uint64_t result = 0;
  double ms = 0;
};

[[gnu::noinline]] double now_ms() { return thread_cpu_ns() / 1e6; }

void run_job(fib_job& job) {
  unsigned argument = n;
  asm volatile("" : "+r"(argument));  // not a constant
  const double begin = now_ms();
  job.result = job.fib(argument);
  job.ms = now_ms() - begin;
}

double run_slice(const std::string& variant) {
#if TENDRIL_BENCH_COMPILED_SPLIT
  constexpr auto split = fib_split;
#else
  constexpr std::uint64_t (*split)(unsigned) = nullptr;
#endif
  const bool unsplit = variant.find("/unsplit") != variant.npos;
  const auto job = std::make_unique<fib_job>(fib_job{unsplit ? fib_unsplit : split});
  if (job->fib == nullptr) throw std::logic_error("this program has no code for segmented stacks");
  const auto is_on = [&](const char* where) { return variant.rfind(where, 0) == 0; };
  if (is_on("thread")) {
    run_job(*job);
  } else {
    tendril::fiber_options options;
    options.stack = runtime_with(is_on("fiber/segmented") ? "segmented" : "reserved", 1).stack;
    tendril::fiber fiber(options, [&job = *job] { run_job(job); });
    fiber.join();
  }
  if (job->result != fib_of_n) throw std::runtime_error("fib gave " + std::to_string(job->result));
  return job->ms;
}

const std::string reference = "thread/unsplit";
const std::vector<std::string> never_grown{reference, "thread/split", "fiber/reserved/unsplit",
                                           "fiber/reserved/split"};
const std::vector<std::string> grown{reference, "thread/split/grown", "fiber/reserved/split/grown",
                                     "fiber/segmented/split"};

int split_code(const arguments& args, role_output& out) {
  tendril::runtime_options options;
  options.workers = 1;
  tendril::runtime runtime(options);
  std::vector<contestant> contestants;
  const auto& variants = args.number("grown") != 0 ? grown : never_grown;
  for (const std::string& v : variants) contestants.push_back({v, [v] { return run_slice(v); }});
  const interleaved measured(contestants, 2, static_cast<unsigned>(args.number("cycles")),
                             static_cast<std::uint64_t>(args.number("seed")));
  for (const std::string& v : variants) {
    const quartiles ratio = measured.ratio(v, reference);
    out.send("ms:" + v, measured.of(v).median);
    out.send("ratio:" + v, ratio.median);
    out.send("ratio_q1:" + v, ratio.q1);
    out.send("ratio_q3:" + v, ratio.q3);
  }
  return 0;
}
const role_registration split_code_role("split-code", split_code);

void run(context& ctx) {
  if (const std::string why = why_not_segmented(); !why.empty()) {
    std::printf("  nothing to compare, there is no code for segmented stacks here: %s\n",
                why.c_str());
    return;
  }
  const unsigned processes = 9;
  const unsigned cycles = ctx.pick(9u, 50u);
  const std::uint64_t seed = new_seed();
  const int core = usable_cores().front();
  const parameters params{
      {"n", n}, {"processes", processes}, {"cycles", cycles}, {"core", core}, {"seed", seed}};
  std::printf("  %s\n", to_text(params).c_str());
  table out({"variant", "ms", "ratio to unsplit", "quartiles"});
  for (const bool with_growth : {false, true}) {
    auto figures = run_role_in_processes("split-code",
                                         in_segmented_program({{"cycles", std::to_string(cycles)},
                                                               {"seed", std::to_string(seed)},
                                                               {"grown", with_growth ? "1" : "0"}}),
                                         processes, core);
    for (const std::string& v : with_growth ? grown : never_grown) {
      if (with_growth && v == reference) continue;  // said already
      ctx.add(v, "ms", figures.at("ms:" + v), "ms", params);
      ctx.add(v, "ratio_to_unsplit", figures.at("ratio:" + v), "ratio", params);
      ctx.add(v, "ratio_to_unsplit_q1", figures.at("ratio_q1:" + v), "ratio", params);
      ctx.add(v, "ratio_to_unsplit_q3", figures.at("ratio_q3:" + v), "ratio", params);
      out.row(
          {v, fixed(figures.at("ms:" + v), 2), fixed(figures.at("ratio:" + v), 3),
           fixed(figures.at("ratio_q1:" + v), 3) + ".." + fixed(figures.at("ratio_q3:" + v), 3)});
    }
  }
  out.print();
}

const registration entry({"E8f",
                          "split code where no segments are: fib(32)",
                          "what the prologues for segmented stacks cost on threads and on reserved "
                          "stacks, where they never grow anything",
                          "code that does work between calls",
                          {"thread/unsplit", "thread/split", "fiber/reserved/unsplit",
                           "fiber/reserved/split", "thread/split/grown",
                           "fiber/reserved/split/grown", "fiber/segmented/split"},
                          run});

}  // namespace
}  // namespace bench
