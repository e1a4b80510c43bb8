// SPDX-License-Identifier: Apache-2.0
//
// examples/ffi_cost, from outside: that it measures every way it names, never what comes out.

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "examples/program.hpp"

namespace {

using examples::program;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// The figures of the line that begins with the name: "name   1.23   1.00".
std::vector<double> figures(const std::string& output, const std::string& name) {
  const auto line = output.find('\n' + name + "  ");
  std::vector<double> found;
  if (line == std::string::npos) return found;
  const char* at = output.c_str() + line + 1 + name.size();
  for (char* end = nullptr;; at = end) {
    const double value = std::strtod(at, &end);
    if (end == at || found.size() == 2) return found;
    found.push_back(value);
  }
}

TEST_SUITE("ffi_cost") {
  TEST_CASE("a function of a system library is called in every way there is") {
    program measuring({EXAMPLE_FFI_COST, "libc.so.6", "labs", "-5"});
    CHECK(measuring.wait() == 0);
    const std::string& output = measuring.output();
    CAPTURE(output);
    CHECK(contains(output, "labs(-5) = 5 (0x5); "));
    CHECK_FALSE(contains(output, "did not return the same"));

    std::vector<std::string> ways{"thread, direct", "reserved, direct"};
#ifdef EXAMPLES_HAVE_SEGMENTED
    const bool segmented = !contains(output, "the ways for segmented stacks are left out: ");
    CHECK(segmented);
    for (const char* way :
         {"adjusted", "adjusted, at edge", "native_call", "native_call_noexcept", "batched"})
      ways.emplace_back(way);
#else
    CHECK(contains(output, "the ways for segmented stacks are left out: "));
    CHECK(figures(output, "native_call").empty());
#endif
    for (const std::string& way : ways) {
      CAPTURE(way);
      const std::vector<double> f = figures(output, way);
      REQUIRE(f.size() == 2);
      CHECK(f[0] > 0);
      CHECK(f[1] > 0);
    }
    CHECK(figures(output, "thread, direct")[1] == 1.0);
  }

  TEST_CASE("a library that cannot be loaded is named") {
    program measuring({EXAMPLE_FFI_COST, "libnowhere.so.0", "f"});
    CHECK(measuring.wait() == 1);
    CHECK(contains(measuring.output(), "ffi_cost: libnowhere.so.0"));
  }

  TEST_CASE("a symbol that the library does not have is named") {
    program measuring({EXAMPLE_FFI_COST, "libc.so.6", "no_such_function"});
    CHECK(measuring.wait() == 1);
    CHECK(contains(measuring.output(), "no_such_function"));
  }

  TEST_CASE("a wrong command line is refused, and says why") {
    struct wrong {
      std::vector<std::string> words;
      const char* why;
    };
    for (const wrong& w :
         {wrong{{}, "a library and a symbol"}, wrong{{"libc.so.6"}, "a library and a symbol"},
          wrong{{"libc.so.6", "labs", "five"}, "'five' is not an integer"},
          wrong{{"libc.so.6", "labs", "5x"}, "'5x' is not an integer"},
          wrong{{"libc.so.6", "labs", "99999999999999999999"}, "does not fit"},
          wrong{{"libc.so.6", "labs", "1", "2", "3", "4", "5", "6", "7"},
                "at most 6 integers can be passed, not 7"}}) {
      CAPTURE(w.why);
      std::vector<std::string> command{EXAMPLE_FFI_COST};
      command.insert(command.end(), w.words.begin(), w.words.end());
      program measuring(command);
      CHECK(measuring.wait() == 2);
      CHECK(contains(measuring.output(), w.why));
      CHECK(contains(measuring.output(), "usage: ffi_cost"));
    }
  }
}

}  // namespace
