// SPDX-License-Identifier: Apache-2.0
//
// examples/dining, from outside.

#include <doctest/doctest.h>

#include <string>

#include "examples/program.hpp"

namespace {

using examples::program;

TEST_SUITE("dining") {
  TEST_CASE("everybody eats and the evening ends") {
    for (int i = 0; i != 3; ++i) {
      program dinner({EXAMPLE_DINING, "50"});
      CHECK(dinner.wait() == 0);
      for (const char* name : {"Aspasia", "Diogenes", "Hypatia", "Plato", "Zeno"}) {
        CHECK(dinner.output().find(std::string(name) + " has eaten 50 times\n") !=
              std::string::npos);
      }
    }
  }

  TEST_CASE("a wrong number of meals is refused") {
    for (const char* meals : {"0", "many", "5x", "-1"}) {
      program dinner({EXAMPLE_DINING, meals});
      CHECK(dinner.wait() == 2);
    }
  }
}

}  // namespace
