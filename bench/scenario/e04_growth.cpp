// SPDX-License-Identifier: Apache-2.0
//
// E4g: what does growing cost? A fiber with a segmented stack recurses through 1, 10 and 100 MB of
// frames, twice; a thread whose stack is one mapping, large enough, runs the same code, compiled the same
// way. The first time is mostly the kernel's page faults on both; "again" is the second time on the
// same fiber or thread.
//
// Each measurement is a process of its own, so that the first time is one; fiber and thread take turns in
// random order, and the ratio is the median of those between neighbours. Each frame is written to and
// verified on the way back.
//
// Does not show: loops at an edge (E8h).

#include "bench/scenario/variants.hpp"
#include "bench/support/cpu_clock.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/interleaved.hpp"
#include "bench/support/process.hpp"
#include "bench/support/table.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace bench {
namespace {

constexpr std::size_t words_in_frame = 32;

/// Returns the number of frames whose contents survived; `where` receives the innermost one's address.
[[gnu::noinline]] std::uint64_t grow(long left, std::uintptr_t& where) {
  std::uint64_t words[words_in_frame];
  words[0] = static_cast<std::uint64_t>(left);
  words[words_in_frame - 1] = ~words[0];
  asm volatile("" : : "r"(words) : "memory");
  std::uint64_t below = 0;
  if (left == 1) where = reinterpret_cast<std::uintptr_t>(words);
  else below = grow(left - 1, where);
  asm volatile("" : : "r"(words) : "memory");
  return below + (words[0] == static_cast<std::uint64_t>(left) &&
                          words[words_in_frame - 1] == ~static_cast<std::uint64_t>(left)
                      ? 1
                      : 0);
}

/// Of one frame of grow(). On a thread: segments are not one below the other.
double frame_bytes() {
  std::uintptr_t shallow = 0;
  std::uintptr_t deep = 0;
  grow(1, shallow);
  grow(101, deep);
  return std::round(static_cast<double>(shallow - deep) / 100);
}

struct growth_job {
  long frames;
  double first_ms = 0;
  double again_ms = 0;
  std::uint64_t survived = 0;
};

[[gnu::noinline]] double now_ms() { return thread_cpu_ns() / 1e6; }

void run_job(growth_job& job) {
  std::uintptr_t where = 0;
  const double begin = now_ms();
  job.survived = grow(job.frames, where);
  const double between = now_ms();
  job.survived += grow(job.frames, where);
  job.first_ms = between - begin;
  job.again_ms = now_ms() - between;
}

void on_contiguous(growth_job& job, std::size_t bytes) {
  const auto check = [](int error, const char* what) {
    if (error != 0) throw std::system_error(error, std::generic_category(), what);
  };
  pthread_attr_t attributes;
  check(::pthread_attr_init(&attributes), "pthread_attr_init");
  check(::pthread_attr_setstacksize(&attributes, bytes + (std::size_t{1} << 20)),
        "pthread_attr_setstacksize");
  pthread_t thread{};
  check(::pthread_create(
            &thread, &attributes,
            [](void* argument) -> void* {
              run_job(*static_cast<growth_job*>(argument));
              return nullptr;
            },
            &job),
        "pthread_create with a large stack");
  ::pthread_attr_destroy(&attributes);
  ::pthread_join(thread, nullptr);
}

int growth(const arguments& args, role_output& out) {
  const auto bytes = static_cast<std::size_t>(args.number("megabytes")) << 20;
  const double frame = frame_bytes();
  const auto job = std::make_unique<growth_job>(
      growth_job{static_cast<long>(static_cast<double>(bytes) / frame)});
  const std::string impl = args.text("impl");
  if (impl == "contiguous") {
    on_contiguous(*job, bytes);
  } else if (impl == "fiber") {
    tendril::runtime runtime(runtime_with(args.text("stack"), 1));
    tendril::fiber fiber([&job = *job] { run_job(job); });
    fiber.join();
  } else {
    throw std::invalid_argument("unknown --impl '" + impl + "'; known: contiguous, fiber");
  }
  if (job->survived != 2 * static_cast<std::uint64_t>(job->frames))
    throw std::runtime_error("only " + std::to_string(job->survived) + " frames survived");
  out.send("first", job->first_ms);
  out.send("again", job->again_ms);
  out.send("frame_bytes", frame);
  out.send("frames", static_cast<double>(job->frames));
  return 0;
}
const role_registration growth_role("growth", growth);

/// first and again of each process, in the order of cycles
struct series {
  std::vector<double> first;
  std::vector<double> again;
};

quartiles ratio_of(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> ratios(a.size());
  std::transform(a.begin(), a.end(), b.begin(), ratios.begin(), std::divides<>());
  return quartiles_of(ratios);
}

void measure(context& ctx, long megabytes, unsigned cycles, table& out) {
  const int core = usable_cores().front();
  const std::uint64_t seed = new_seed();
  series fiber;
  series contiguous;
  double frame = 0;
  double frames = 0;
  const auto one = [&](arguments args, series& into) {
    args.set("megabytes", std::to_string(megabytes));
    auto r = run_role("growth", in_segmented_program(args), core);
    frame = r.at("frame_bytes");
    frames = r.at("frames");
    into.first.push_back(r.at("first"));
    into.again.push_back(r.at("again"));
    return r.at("first");
  };
  interleaved({{"fiber", [&] { return one(fiber_arguments("segmented"), fiber); }},
               {"contiguous",
                [&] {
                  return one({{"impl", "contiguous"}}, contiguous);
                }}},
              0, cycles, seed);

  const parameters params{{"megabytes", megabytes}, {"frame_bytes", frame}, {"frames", frames},
                          {"cycles", cycles},       {"core", core},         {"seed", seed}};
  const std::string suffix = std::to_string(megabytes) + "mb";
  const auto report = [&](const char* time, const std::vector<double>& f,
                          const std::vector<double>& c) {
    const std::string mark = std::string(time) == "first" ? "" : "/again";
    const quartiles ratio = ratio_of(f, c);
    ctx.add("fiber/segmented" + mark, "ratio_to_contiguous_" + suffix, ratio.median, "ratio",
            params);
    ctx.add("fiber/segmented" + mark, "ratio_to_contiguous_" + suffix + "_q1", ratio.q1, "ratio",
            params);
    ctx.add("fiber/segmented" + mark, "ratio_to_contiguous_" + suffix + "_q3", ratio.q3, "ratio",
            params);
    ctx.add("fiber/segmented" + mark, "ms_" + suffix, median(f), "ms", params);
    ctx.add("thread/contiguous" + mark, "ms_" + suffix, median(c), "ms", params);
    out.row({std::to_string(megabytes) + " MB", time, fixed(frames, 0), fixed(median(f), 2),
             fixed(median(c), 2), fixed(ratio.median, 3),
             fixed(ratio.q1, 3) + ".." + fixed(ratio.q3, 3)});
  };
  report("first", fiber.first, contiguous.first);
  report("again", fiber.again, contiguous.again);
}

void run(context& ctx) {
  if (const std::string why = why_not_segmented(); !why.empty()) {
    std::printf("  nothing to measure, there are no segmented stacks here: %s\n", why.c_str());
    return;
  }
  const unsigned cycles = ctx.pick(9u, 31u);
  std::printf("  %u processes each, in turn; never measured by .NET's team\n", cycles);
  table out({"recursion", "time", "frames", "fiber/segmented ms", "thread/contiguous ms",
             "ratio to contiguous", "quartiles"});
  for (const long megabytes : {1L, 10L, 100L})
    ctx.attempt("fiber/segmented", [&] { measure(ctx, megabytes, cycles, out); });
  out.print();
}

const registration entry({"E4g",
                          "growth: recursion to 1, 10 and 100 MB, the first time and again",
                          "what a stack of segments costs against one mapping that is large enough",
                          "loops at the edge of a segment (E8h)",
                          {"fiber/segmented", "fiber/segmented/again", "thread/contiguous",
                           "thread/contiguous/again"},
                          run});

}  // namespace
}  // namespace bench
