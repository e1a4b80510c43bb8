// SPDX-License-Identifier: Apache-2.0
//
// examples/contexts, from outside.

#include <doctest/doctest.h>

#include <string>

#include "examples/program.hpp"

namespace {

using examples::program;

TEST_SUITE("contexts") {
  TEST_CASE("prints what its comments, and docs/contexts.md, say") {
    program contexts({EXAMPLE_CONTEXTS});
    CHECK(contexts.wait() == 0);
    const std::string expected =
        "child: steps 1, name parent\n"
        "parent: steps 10, name parent\n"
        "restore: Outer\n"
        "capture: Outer\n"
        "flow up: Inner\n"
        "captured: request 7\n"
        "thread: nobody\n"
        "suppressed: nobody\n"
        "loop: 42\n"
        "tendril: loop 'ui': ";
    CHECK(contexts.output().substr(0, expected.size()) == expected);
    CHECK(contexts.output().find(
              "  the host of loop 'ui' -> future::wait -> what completes it -> a work "
              "queued on loop 'ui' -> the host of loop 'ui'\n") != std::string::npos);
    CHECK(contexts.output().find("\nrefused: ") != std::string::npos);
  }
}

}  // namespace
