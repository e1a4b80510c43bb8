// SPDX-License-Identifier: Apache-2.0
//
// E8: what does a call into a library cost that knows nothing of fibers? The .NET experiment with green
// threads paid 1,800 ms for 100 million calls that cost a thread 300 ms, and stopped there.
//   direct       a call like any other (from a thread, from a fiber on a reserved stack)
//   adjusted     code on a segmented stack calls; the linker has made the caller's entry ask for room.
//                Each call enters such a function anew. There is room, so it stays where it is;
//                at_edge: on the fiber's first segment, where there is none, so each call goes over to a
//                larger one and back; in_loop: the loop itself makes the calls, and is entered once
//   declared     as adjusted, but of a function that the program has named to tendril_foreign_functions():
//                the call looks for room, and the caller's entry is left alone
//   native_call  the call is made on the worker's native stack; _noexcept: of a function that is known
//                not to throw; batched: one native_call around 1,000 calls; callback: of a function that
//                calls back
// The callee is foreign_trivial, x + 1, through the PLT; the rows below the headlines call it through a
// pointer from dlsym (which no linker sees) and through libffi, and call zlib and SQLite as programs do.
//
// All variants run in one process on one core, in interleaved slices (bench/support/interleaved.hpp),
// and are timed by the CPU time of the thread that runs them.
// ratio_to_direct is taken within a cycle: to thread/direct, a loop whose body is the call, or to the
// thread's row of the same callee. ratio_to_same_code is to a thread that runs the same source: for
// `adjusted` that is thread/plt, which enters a function for each call, too.
// The loops of the trivial callee are the mean over eight addresses (foreign_calls.hpp).
// Each loop's result is verified.
//
// Does not show: callees that need much stack, callees that block.

#include "bench/scenario/foreign_calls.hpp"
#include "bench/scenario/variants.hpp"
#include "bench/support/cpu_clock.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench {
namespace {

using foreign::callees;
using foreign::loops;

enum class place { thread, reserved, with_room, at_edge };
enum class code { unsplit, split, native, native_noexcept, native_batched };

struct row {
  std::string variant;
  place where;
  code how;
  foreign::loop loops::*callee;
  long calls;             // in a slice
  std::string reference;  // of ratio_to_direct
  std::string same_code;  // the thread's row of the same source, of ratio_to_same_code
};

constexpr long trivial_calls = 200'000;

/// In the order of the table; the headlines come first.
std::vector<row> rows(bool segmented) {
  std::vector<row> all;
  const auto add = [&](const char* variant, place where, code how, foreign::loop loops::*callee,
                       long calls, const std::string& reference, const std::string& same_code) {
    const bool needs_segments = where == place::with_room || where == place::at_edge;
    if (segmented || !needs_segments)
      all.push_back({variant, where, how, callee, calls, reference, same_code});
  };
  const auto trivial = [&](const char* variant, place where, code how,
                           foreign::loop loops::*callee) {
    add(variant, where, how, callee, trivial_calls, "thread/direct",
        callee == &loops::plt || callee == &loops::declared ? "thread/plt"
        : callee == &loops::callback                        ? "thread/callback"
                                                            : "thread/direct");
  };
  trivial("thread/direct", place::thread, code::unsplit, &loops::in_loop);
  trivial("fiber/reserved/direct", place::reserved, code::unsplit, &loops::in_loop);
  trivial("fiber/segmented/adjusted", place::with_room, code::split, &loops::plt);
  trivial("fiber/segmented/native_call", place::at_edge, code::native, &loops::in_loop);
  trivial("fiber/segmented/native_call_noexcept", place::at_edge, code::native_noexcept,
          &loops::in_loop);
  trivial("fiber/segmented/batched", place::at_edge, code::native_batched, &loops::in_loop);
  trivial("fiber/segmented/callback", place::at_edge, code::native, &loops::callback);
  // What the headlines leave out.
  trivial("fiber/segmented/adjusted/at_edge", place::at_edge, code::split, &loops::plt);
  trivial("fiber/segmented/adjusted/in_loop", place::at_edge, code::split, &loops::in_loop);
  trivial("fiber/segmented/declared", place::with_room, code::split, &loops::declared);
  trivial("thread/plt", place::thread, code::unsplit, &loops::plt);
  trivial("thread/native_call", place::thread, code::native, &loops::in_loop);
  trivial("fiber/reserved/native_call", place::reserved, code::native, &loops::in_loop);

  struct other {
    std::string name;
    foreign::loop loops::*callee;
    long calls;
  };
  for (const other& o :
       {other{"callback", &loops::callback, 100'000},
        other{"pointer", &loops::pointer, trivial_calls}, other{"libffi", &loops::libffi, 10'000},
        other{"zlib_crc32", &loops::crc32, 3'000}, other{"sqlite", &loops::sqlite, 2'000},
        other{"throwing", &loops::throwing, 200}}) {
    const std::string reference = "thread/" + o.name;
    const auto each = [&](const std::string& variant, place where, code how) {
      add((variant + "/" + o.name).c_str(), where, how, o.callee, o.calls, reference, reference);
    };
    each("thread", place::thread, code::unsplit);
    each("fiber/reserved", place::reserved, code::unsplit);
    // No linker can adjust for a callee that it does not see: these run on what the segment has left.
    each(o.name == "pointer" ? "fiber/segmented" : "fiber/segmented/adjusted", place::with_room,
         code::split);
    each("fiber/segmented/native_call", place::at_edge, code::native);
    if (o.callee == &loops::crc32)
      each("fiber/segmented/native_call_noexcept", place::at_edge, code::native_noexcept);
  }
  return all;
}

loops loops_of(code how) {
  switch (how) {
    case code::unsplit:
      return foreign::unsplit();
    case code::native:
      return foreign::native();
    case code::native_noexcept:
      return foreign::native_noexcept();
    case code::native_batched:
      return foreign::native_batched();
    case code::split:
      break;
  }
#if TENDRIL_BENCH_COMPILED_SPLIT
  return foreign::split();
#else
  throw std::logic_error("this program has no code for segmented stacks");
#endif
}

// --- one slice -----------------------------------------------------------------------------------------

struct slice_job {
  const callees& libraries;
  foreign::loop run;
  place where;
  long calls;
  std::uint64_t result = 0;
  double ns = 0;
};

// What runs on a fiber before the loop calls nothing unsplit in its own frame, so that the loop starts
// on the segment that the row names.

[[gnu::noinline]] double now_ns() { return thread_cpu_ns(); }

[[gnu::noinline]] void timed(slice_job& job) {
  const double begin = now_ns();
  job.result = job.run(job.libraries, job.calls);
  job.ns = now_ns() - begin;
}

/// Calls f with a frame that fits no small segment, so that there is room around.
[[gnu::noinline]] void with_room(slice_job& job) {
  char frame[std::size_t{24} << 10];
  asm volatile("" : : "r"(frame) : "memory");
  timed(job);
  asm volatile("" : : "r"(frame) : "memory");
}

void run_job(slice_job& job) {
  if (job.where == place::with_room) with_room(job);
  else timed(job);
}

/// Nanoseconds a call.
double run_slice(const row& r, const callees& libraries, std::uint64_t expected) {
  const auto job = std::make_unique<slice_job>(
      slice_job{libraries, loops_of(r.how).*r.callee, r.where, r.calls});
  if (r.where == place::thread) {
    run_job(*job);
  } else {
    tendril::fiber_options options;
    options.stack = runtime_with(r.where == place::reserved ? "reserved" : "segmented", 1).stack;
    tendril::fiber fiber(options, [&job = *job] { run_job(job); });
    fiber.join();
  }
  if (job->result != expected)
    throw std::runtime_error(r.variant + " gave " + std::to_string(job->result) + " instead of " +
                             std::to_string(expected));
  return job->ns / static_cast<double>(r.calls);
}

/// What the loop must return: the number of calls where each adds one.
std::uint64_t expected_of(const row& r, const callees& libraries) {
  if (r.callee == &loops::crc32) return foreign::unsplit().crc32(libraries, r.calls);
  return static_cast<std::uint64_t>(r.calls);
}

int ffi(const arguments& args, role_output& out) {
  const auto cycles = static_cast<unsigned>(args.number("cycles"));
  const callees libraries;
  tendril::runtime_options options;
  options.workers = 1;
  tendril::runtime runtime(options);

  const std::vector<row> all = rows(args.number("segmented") != 0);
  std::vector<contestant> contestants;
  contestants.reserve(all.size());
  for (const row& r : all)
    contestants.push_back({r.variant, [&r, &libraries, expected = expected_of(r, libraries)] {
                             return run_slice(r, libraries, expected);
                           }});
  const interleaved measured(contestants, 3, cycles,
                             static_cast<std::uint64_t>(args.number("seed")));

  const auto send = [&](const std::string& what, const std::string& variant, const quartiles& q) {
    out.send(what + ":" + variant, q.median);
    out.send(what + "_q1:" + variant, q.q1);
    out.send(what + "_q3:" + variant, q.q3);
  };
  for (const row& r : all) {
    send("ns", r.variant, measured.of(r.variant));
    send("ratio", r.variant, measured.ratio(r.variant, r.reference));
    send("same", r.variant, measured.ratio(r.variant, r.same_code));
  }
  return 0;
}
const role_registration ffi_role("ffi", ffi);

// --- the table -----------------------------------------------------------------------------------------

void run(context& ctx) {
  const bool segmented = why_not_segmented().empty();
  const unsigned processes = 9;
  const unsigned cycles = ctx.pick(28u, 112u);
  const std::uint64_t seed = new_seed();
  const int core = usable_cores().front();
  arguments args{{"cycles", std::to_string(cycles)},
                 {"segmented", segmented ? "1" : "0"},
                 {"seed", std::to_string(seed)}};
  const unsigned all_cycles = processes * cycles;
  auto figures = run_role_in_processes("ffi", in_segmented_program(args), processes, core,
                                       std::chrono::seconds(300));

  std::printf(
      "  %u processes, core %d, in each %u cycles of one slice each in random order, seed %llu;\n"
      "  ratio to direct: median over the processes' medians, to thread/direct or the thread's row "
      "of that "
      "callee;\n"
      "  to same code: to a thread running the same source, as adjusted and plt share theirs\n",
      processes, core, cycles, static_cast<unsigned long long>(seed));
  table out({"variant", "calls made", "ns/call", "ms per 100 M", "ratio to direct", "quartiles",
             "to same code"});
  for (const row& r : rows(segmented)) {
    const auto at = [&](const char* what) { return figures.at(what + (":" + r.variant)); };
    const parameters params{{"calls", r.calls * all_cycles},
                            {"processes", processes},
                            {"cycles", cycles},
                            {"calls_per_slice", r.calls},
                            {"reference", r.reference},
                            {"core", core},
                            {"seed", seed}};
    const double ms_per_ns = 100;  // 100 M calls of 1 ns
    ctx.add(r.variant, "ms_per_100m", at("ns") * ms_per_ns, "ms", params);
    ctx.add(r.variant, "ms_per_100m_q1", at("ns_q1") * ms_per_ns, "ms", params);
    ctx.add(r.variant, "ms_per_100m_q3", at("ns_q3") * ms_per_ns, "ms", params);
    ctx.add(r.variant, "ratio_to_direct", at("ratio"), "ratio", params);
    ctx.add(r.variant, "ratio_to_direct_q1", at("ratio_q1"), "ratio", params);
    ctx.add(r.variant, "ratio_to_direct_q3", at("ratio_q3"), "ratio", params);
    ctx.add(r.variant, "ratio_to_same_code", at("same"), "ratio", params);
    out.row({r.variant, fixed(static_cast<double>(r.calls * all_cycles), 0), fixed(at("ns"), 2),
             fixed(at("ns") * ms_per_ns, 0), fixed(at("ratio"), 3),
             fixed(at("ratio_q1"), 3) + ".." + fixed(at("ratio_q3"), 3), fixed(at("same"), 3)});
  }
  out.row({"published: .NET, from a thread", "100,000,000", "3.00", "300", "1.000", "-", "-"});
  out.row(
      {"published: .NET, from a green thread", "100,000,000", "18.00", "1,800", "6.000", "-", "-"});
  out.print();
}

const registration entry(
    {"E8",
     "FFI: 100 million calls of a function in a library that knows nothing of fibers",
     "what a foreign call costs from threads, from fibers and through native_call",
     "callees that need much stack, callees that block",
     {"thread/direct", "fiber/reserved/direct", "fiber/segmented/adjusted",
      "fiber/segmented/native_call", "fiber/segmented/native_call_noexcept",
      "fiber/segmented/batched", "fiber/segmented/callback", "<any>/<callee>"},
     run});

}  // namespace
}  // namespace bench
