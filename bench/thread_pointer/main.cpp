// SPDX-License-Identifier: Apache-2.0
//
// tendril-thread-pointer: what one block of thread-locals for each fiber costs, and what it breaks. The figures and
// findings of docs/decisions/thread-per-fiber.md.
//
//   tendril-thread-pointer costs            at a switch, at a fiber's birth, in memory
//   tendril-thread-pointer hazards          each in a child, on bare and on furnished blocks
//   tendril-thread-pointer hazards --check  the same, and fails when they are not those that the page lists
//
// Exit status: 0; 1 a case differs, or something failed; 2 the command line is wrong; 77 this machine or libc has
// no such thing.
#include "bench/thread_pointer/parts.hpp"
#include "bench/thread_pointer/thread_block.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>

int main(int argc, char** argv) {
  using namespace bench::thread_pointer;
  CLI::App app("What a thread pointer of its own costs a fiber, and what it breaks.",
               "tendril-thread-pointer");
  app.require_subcommand(1);
  unsigned cycles = 201;
  auto* const costs = app.add_subcommand("costs", "at a switch, at a fiber's birth, in memory");
  costs->add_option("--cycles", cycles, "turns of each variant")->check(CLI::Range(3, 100'000));
  bool check = false;
  auto* const hazards = app.add_subcommand("hazards", "what breaks: each case in a child process");
  hazards->add_flag("--check", check, "fail when a case does not end as the decision page says");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  if (const char* const why = missing()) {
    std::fprintf(stderr, "tendril-thread-pointer: not on this machine: %s\n", why);
    return 77;
  }
  try {
    if (costs->parsed()) print_costs(cycles);
    if (hazards->parsed() && !print_hazards(check)) return 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "tendril-thread-pointer: %s\n", e.what());
    return 1;
  }
  return 0;
}
