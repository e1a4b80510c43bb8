// SPDX-License-Identifier: Apache-2.0
//
// tendril-bench: what one operation costs, with a baseline beside it. Google Benchmark's flags, with
// other defaults: five repetitions of at least 0.2 s each, of which the console shows the median and
// the coefficient of variation; --benchmark_out has every repetition. Two to three minutes in all on a
// quiet machine.
//
//   tendril-bench --benchmark_filter='^yield' --benchmark_out=yield.json
//
// Names are given as `theme/variant/wN`. Google Benchmark adds how it was told to measure
// ("/process_time/manual_time"), which is the same for all and no part of what is measured: the
// reporters below leave it out, so that a name in a report stays the same when measuring changes, and
// a filter that ends in $ means the end of the name as shown.
//
// Exit status: 0 all measured; 1 a benchmark failed its own check; 2 the command line is wrong.
#include "bench/micro/harness.hpp"
#include "bench/support/report.hpp"

#include <unistd.h>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace bench::micro {

void require_memory(std::uint64_t bytes) {
  std::ifstream in("/proc/meminfo");
  for (std::string key, rest; in >> key; std::getline(in, rest)) {
    if (key != "MemAvailable:") continue;
    std::uint64_t kib = 0;
    in >> kib;
    if (kib >= bytes >> 10) return;
    throw std::runtime_error("needs " + std::to_string(bytes >> 30) + " GiB of memory, " +
                             std::to_string(kib >> 20) + " GiB are available");
  }
  throw std::runtime_error("cannot tell how much memory is available");
}

namespace {

using run = benchmark::BenchmarkReporter::Run;

std::vector<run> with_plain_names(std::vector<run> runs) {
  for (run& r : runs) {
    r.run_name.iterations.clear();
    r.run_name.repetitions.clear();
    r.run_name.time_type.clear();
  }
  return runs;
}

class console_reporter final : public benchmark::ConsoleReporter {
 public:
  console_reporter()
      : ConsoleReporter(::isatty(STDOUT_FILENO) != 0 ? OO_ColorTabular : OO_Tabular) {}

  void ReportRuns(const std::vector<run>& runs) override {
    std::vector<run> shown = with_plain_names(runs);
    for (const run& r : shown) failed_ = failed_ || r.error_occurred;
    std::erase_if(shown, [](const run& r) {
      return r.run_type == run::RT_Aggregate &&
             (r.aggregate_name == "mean" || r.aggregate_name == "stddev");
    });
    if (!shown.empty()) ConsoleReporter::ReportRuns(shown);
  }
  bool failed() const { return failed_; }

 private:
  bool failed_ = false;
};

class json_reporter final : public benchmark::JSONReporter {
 public:
  void ReportRuns(const std::vector<run>& runs) override {
    JSONReporter::ReportRuns(with_plain_names(runs));
  }
};

/// Whether an argument, or the environment as Google Benchmark reads it, names an output file.
bool wants_file(const std::vector<std::string>& arguments) {
  bool wanted = false;
  if (const char* const value = std::getenv("BENCHMARK_OUT")) wanted = *value != '\0';
  constexpr std::string_view flag = "--benchmark_out=";
  for (const std::string& a : arguments)
    if (a.starts_with(flag)) wanted = a.size() > flag.size();
  return wanted;
}

void describe_conditions() {
  const bench::machine m = bench::describe_machine();
  benchmark::AddCustomContext("cpu", m.cpu);
  benchmark::AddCustomContext("kernel", m.kernel);
  benchmark::AddCustomContext("compiler", m.compiler);
  benchmark::AddCustomContext("build", m.build);
  benchmark::AddCustomContext("commit", m.commit);
  if (m.build != "release")
    benchmark::AddCustomContext("warning", "not a release build: do not quote these figures");
  if (std::thread::hardware_concurrency() <= 2)
    benchmark::AddCustomContext(
        "note",
        "two processors or fewer: whatever else runs takes one of the workers'; "
        "/w2 and std_thread figures are noisy, compare medians of several runs");
}

}  // namespace
}  // namespace bench::micro

int main(int argc, char** argv) {
  using namespace bench::micro;
  // The last of two equal flags counts, so these can be overruled.
  std::vector<std::string> arguments{argv[0], "--benchmark_repetitions=5",
                                     "--benchmark_min_time=0.2",
                                     "--benchmark_display_aggregates_only=true"};
  arguments.insert(arguments.end(), argv + 1, argv + argc);
  const bool to_file = wants_file(arguments);
  std::vector<char*> pointers;
  for (std::string& a : arguments) pointers.push_back(a.data());
  pointers.push_back(nullptr);
  int count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, pointers.data());
  if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) return 2;

  if (std::string filter = benchmark::GetBenchmarkFilter(); filter.ends_with('$')) {
    filter.insert(filter.size() - 1,
                  "(/iterations:[0-9]+)?(/repeats:[0-9]+)?/process_time/manual_time");
    benchmark::SetBenchmarkFilter(filter);
  }

  register_switch();
  register_yield();
  register_spawn();
  register_channel();
  register_future();
  register_mutex();
  register_native_call();
  register_flow();
  register_sleepers();
  register_skynet();
  register_task();
  register_tasklet();
  register_thunk();

  describe_conditions();
  console_reporter console;
  json_reporter file;
  benchmark::RunSpecifiedBenchmarks(&console, to_file ? &file : nullptr);
  benchmark::Shutdown();
  return console.failed() ? 1 : 0;
}
