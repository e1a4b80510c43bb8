// SPDX-License-Identifier: Apache-2.0
//
// tendril-experiments-segmented: the roles of tendril-experiments, compiled and linked for segmented
// stacks (bench/scenario/variants.hpp says why apart). Started by that program, not by people.

#include "bench/support/role.hpp"

#include <cstdio>

int main(int argc, char** argv) {
  if (argc > 1)
    if (const bench::role* role = bench::find_role(argv[1]))
      return bench::run_role_main(*role, {argv + 2, argv + argc});
  std::fprintf(stderr,
               "%s: the first word must be a role; run tendril-experiments, which starts this\n",
               argv[0]);
  return 2;
}
