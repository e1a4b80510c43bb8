// SPDX-License-Identifier: Apache-2.0
//
// tendril-experiments: runs the experiments by id, prints tables, writes JSON.
//
//   tendril-experiments --list
//   tendril-experiments --run E7,E9 --full --json figures.json
//
// The first word may also name a role (bench/support/role.hpp): that is how experiments start servers
// and measurements in processes of their own.
//
// Exit status: 0 everything measured; 1 a variant or check failed; 2 the command line is wrong.

#include "bench/scenario/variants.hpp"
#include "bench/support/experiment.hpp"
#include "bench/support/process.hpp"
#include "bench/support/role.hpp"

#include <CLI/CLI.hpp>

#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace {

std::string joined(const std::vector<std::string>& words, const char* gap) {
  std::string text;
  for (const std::string& w : words) text += (text.empty() ? "" : gap) + w;
  return text;
}

void list(const std::vector<bench::experiment>& all) {
  for (const bench::experiment& e : all) {
    std::printf("%-4s %s\n", e.id.c_str(), e.title.c_str());
    std::printf("     shows:         %s\n", e.shows.c_str());
    std::printf("     does not show: %s\n", e.does_not_show.c_str());
    std::printf("     variants:      %s\n", joined(e.variants, ", ").c_str());
  }
}

/// The experiments to run, in the order asked for. Throws CLI::ValidationError naming an unknown id.
std::vector<bench::experiment> chosen(const std::vector<bench::experiment>& all,
                                      const std::vector<std::string>& ids) {
  if (ids.empty()) return all;
  std::vector<bench::experiment> picked;
  for (const std::string& id : ids) {
    std::vector<std::string> known;
    bool found = false;
    for (const bench::experiment& e : all) {
      known.push_back(e.id);
      if (e.id != id) continue;
      picked.push_back(e);
      found = true;
    }
    if (!found)
      throw CLI::ValidationError("--run",
                                 "unknown experiment '" + id + "'; known: " + joined(known, ", "));
  }
  return picked;
}

void print_machine(const bench::machine& m) {
  std::printf("machine: %s, %u cores, %s\n", m.cpu.c_str(), m.cores, m.kernel.c_str());
  std::printf("build:   %s, %s, commit %s; %s UTC, load average %.2f%s%s\n", m.compiler.c_str(),
              m.build.c_str(), m.commit.c_str(), m.date.c_str(), m.load_average,
              m.governor.empty() ? "" : ", governor ", m.governor.c_str());
  if (m.cores < 2)
    std::printf("note:    one core only: servers and loader share it, rates are not comparable\n");
  if (m.build == "debug")
    std::printf(
        "note:    built without optimisation or with assertions: do not quote these figures\n");
  if (m.load_average > 0.5) std::printf("note:    the machine is busy: expect noise\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1)
    if (const bench::role* role = bench::find_role(argv[1]))
      return bench::run_role_main(*role, {argv + 2, argv + argc});

  CLI::App app("Runs Tendril's experiments and the baselines beside them.", "tendril-experiments");
  std::vector<std::string> ids;
  std::string json_file;
  bool want_list = false;
  bool brief = false;
  bool full = false;
  bool self_check = false;
  app.add_flag("--list", want_list, "list the experiments and what they show");
  app.add_option("--run", ids, "ids, comma-separated (default: all)")->delimiter(',');
  auto* const brief_flag =
      app.add_flag("--short", brief, "short runs, at most 4 minutes in all (default)");
  app.add_flag("--full", full, "long runs, for figures to quote")->excludes(brief_flag);
  app.add_option("--json", json_file, "write the figures to this file");
  app.add_flag("--self-check", self_check,
               "E7: compare the reference server with a second instance of itself");

  const std::vector<bench::experiment> all = bench::experiments();
  std::vector<bench::experiment> picked;
  try {
    app.parse(argc, argv);
    picked = chosen(all, ids);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (want_list) {
    list(all);
    return 0;
  }

  bench::report report;
  report.where = bench::describe_machine();
  print_machine(report.where);
  for (const bench::absent_stack& a : bench::absent_stacks()) {
    const std::string variant = "fiber/" + a.stack;
    std::printf("note:    no %s: %s\n", variant.c_str(), a.reason.c_str());
    report.absent.push_back({variant, a.reason});
  }
  bench::context context(report, full ? bench::run_mode::full : bench::run_mode::brief, self_check);
  const auto start = std::chrono::steady_clock::now();
  for (const bench::experiment& e : picked) {
    std::printf("\n%s %s\n", e.id.c_str(), e.title.c_str());
    std::fflush(stdout);
    const auto begin = std::chrono::steady_clock::now();
    context.begin(e.id);
    context.attempt("(all)", [&] { e.run(context); });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    std::printf("  (%s took %.1f s)\n", e.id.c_str(), took.count());
  }

  const std::chrono::duration<double> all_took = std::chrono::steady_clock::now() - start;
  std::printf("\n%zu experiments took %.0f s%s\n", picked.size(), all_took.count(),
              full ? "" : ", of at most 240 s");

  if (!json_file.empty()) {
    try {
      bench::write_json(report, json_file);
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
      return 1;
    }
  }
  if (!report.failures.empty()) std::printf("\n%zu failed, see above\n", report.failures.size());
  return report.failures.empty() ? 0 : 1;
}
