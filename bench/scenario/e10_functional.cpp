// SPDX-License-Identifier: Apache-2.0
//
// E10 is pass or fail, so it lives among the tests, where a failure stops a build; here is only where.

#include "bench/support/experiment.hpp"

#include <cstdio>

namespace bench {
namespace {

void run(context&) {
  std::printf(
      "  Nothing to measure: these are tests. ctest runs them, or the test program by suite:\n"
      "    a lock contended from fibers, resumed by another fiber   tests/unit/sync\n"
      "    fibers that wait, wake and migrate; ids                  tests/unit/sched, "
      "tests/stress\n"
      "    futures resumed from fibers and threads                  tests/unit/bridge\n"
      "    contexts: 8 fibers read 1, set 2, sleep, read 2          "
      "tests/unit/bridge/ambient.cpp\n");
}

const registration entry({"E10",
                          "functional: locks, contexts, resumption, ids",
                          "where the tests are that answer it",
                          "any figure",
                          {"tests"},
                          run});

}  // namespace
}  // namespace bench
