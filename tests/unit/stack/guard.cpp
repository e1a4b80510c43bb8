// SPDX-License-Identifier: Apache-2.0
#include "stack/guard.hpp"

#include "platform/memory.hpp"
#include "stack/overflow.hpp"
#include "stack/stack_cache.hpp"
#include "stack/stack_source.hpp"
#include "support/forked.hpp"

#include <tendril/error.hpp>

#include <doctest/doctest.h>

#include <csignal>
#include <cstdlib>
#include <optional>
#include <ostream>
#include <string>
#include <system_error>
#include <vector>

using namespace tendril;
using namespace tendril::detail;

namespace {

constexpr unsigned k64 = 2;

/// Sets the variable for one scope; tests run one after the other.
struct environment {
  explicit environment(const char* value) { ::setenv("TENDRIL_STACK_GUARD", value, 1); }
  ~environment() { ::unsetenv("TENDRIL_STACK_GUARD"); }
};

struct map_limit {
  explicit map_limit(std::size_t n) { set_map_limit(n); }
  ~map_limit() { set_map_limit(std::nullopt); }
};

std::string error_of(const char* mode) {
  try {
    choose_guard_mode(mode);
  } catch (const std::system_error& e) {
    return e.code() == errc::invalid_option ? e.what() : "another code";
  }
  return {};
}

/// What comes of a write one byte below a fresh stack, and of the stack's release after it.
test::child_result write_below(stack_guard mode, bool release = true) {
  return test::run_forked([&] {
    stack_source source({.guard = mode});
    stack_cache cache(source);
    const stack_slice slice = cache.acquire(k64);
    const_cast<volatile std::byte*>(slice.low)[-1] = std::byte{1};
    if (source.guard_intact(slice, k64)) std::_Exit(3);
    if (!release) std::_Exit(4);
    cache.release(slice, k64);
  });
}

}  // namespace

TEST_SUITE("guard") {
  TEST_CASE("the environment chooses the mode") {
    for (const char* name : {"mprotect", "canary"}) {
      const environment set(name);
      CHECK(to_string(stack_source().guard_mode()) == name);
    }
    {
      const environment set("");
      CHECK(stack_source().guard_mode() != stack_guard::canary);
    }
    if (!platform::guards_supported()) return;
    const environment set("madvise");
    CHECK(stack_source().guard_mode() == stack_guard::madvise);
    CHECK(choose_guard_mode(nullptr) == stack_guard::madvise);
  }

  TEST_CASE("a bad mode is an error that names it and the allowed ones") {
    const environment set("Madvise");
    std::string what;
    try {
      stack_source source;
    } catch (const std::system_error& e) {
      what = e.what();
    }
    CHECK(what.find("TENDRIL_STACK_GUARD='Madvise': allowed are madvise, mprotect, canary") == 0);
    CHECK(error_of("madvise ").find("'madvise '") != std::string::npos);
    CHECK(error_of("canary").empty());
  }

  TEST_CASE("a write below the stack faults where there is a guard page") {
    if (platform::guards_supported()) CHECK(write_below(stack_guard::madvise).signal == SIGSEGV);
    CHECK(write_below(stack_guard::mprotect).signal == SIGSEGV);
  }

  TEST_CASE("a canary lets the write pass, tells when asked, and ends the process at release") {
    CHECK(write_below(stack_guard::canary, false).exit_code == 4);
    const auto result = write_below(stack_guard::canary);
    CHECK(result.signal == SIGABRT);
    CHECK(result.says(
        "tendril: stack overflow in an unknown fiber, found when its stack was released"));
    CHECK(result.says("of 64 KiB"));
    CHECK(result.says("fiber_options::stack.bytes"));
  }

  TEST_CASE("an intact canary costs no memory and is silent") {
    stack_source source({.guard = stack_guard::canary});
    stack_cache cache(source, 0);
    for (int i = 0; i < 50; ++i) {
      const stack_slice slice = cache.acquire(k64);
      slice.low[0] = std::byte{1};  // the last byte of the stack is the fiber's
      CHECK(source.guard_intact(slice, k64));
      cache.release(slice, k64);
    }
    CHECK(source.stats().canaries == source.stats().created);
    CHECK(source.stats().guard == stack_guard::canary);
  }

  TEST_CASE("every stack of a neighbourhood is guarded, also after its memory was given back") {
    for (const stack_guard mode : {stack_guard::madvise, stack_guard::mprotect}) {
      if (mode == stack_guard::madvise && !platform::guards_supported()) continue;
      stack_source source({.guard = mode});
      stack_cache cache(source, 0);
      std::vector<stack_slice> slices;
      for (int i = 0; i < 20; ++i) slices.push_back(cache.acquire(k64));
      for (const stack_slice& s : slices) cache.release(s, k64);
      for (int i : {0, 7, 19}) {
        const auto result = test::run_forked([&] {
          const_cast<volatile std::byte*>(slices[static_cast<std::size_t>(i)].low)[-1] =
              std::byte{1};
        });
        CHECK(result.signal == SIGSEGV);
      }
    }
  }

  TEST_CASE("past three quarters of the mappings stacks get canaries, with one warning") {
    const auto result = test::run_forked([] {
      const std::size_t limit = (platform::map_count() + 400) * 4 / 3;
      const map_limit set(limit);
      stack_source source({.guard = stack_guard::mprotect});
      {
        stack_cache cache(source);
        std::vector<stack_slice> slices;
        for (int i = 0; i < 400; ++i) slices.push_back(cache.acquire(k64));
        const stack_stats s = source.stats();
        const std::size_t guarded = s.created - s.canaries;
        if (guarded < 150 || guarded > 200) std::_Exit(3);
        if (platform::map_count() > limit * 3 / 4 + 8) std::_Exit(4);
        for (const stack_slice& slice : slices) cache.release(slice, k64);
      }
    });
    CHECK(result.exit_code == 0);
    const auto first = result.error_output.find("tendril: warning: no more guard pages");
    CHECK(first != std::string::npos);
    CHECK(result.error_output.find("tendril: warning", first + 1) == std::string::npos);
    CHECK(result.says("vm.max_map_count"));
  }

  TEST_CASE("mappings come back with their source") {
    const auto result = test::run_forked([] {
      const map_limit set((platform::map_count() + 400) * 4 / 3);
      for (int i = 0; i < 20; ++i) {
        stack_source source({.guard = stack_guard::mprotect});
        stack_cache cache(source);
        for (int n = 0; n < 100; ++n) cache.acquire(k64);
        if (source.stats().canaries != 0) std::_Exit(3);
      }
    });
    CHECK(result.exit_code == 0);
  }

  TEST_CASE("a refused guard falls back, it does not lose the stack") {
    const auto result = test::run_forked([] {
      platform::fail_guards(true);
      stack_source source;
      stack_cache cache(source);
      const stack_slice slice = cache.acquire(k64);
      if (!slice) std::_Exit(3);
      if (source.stats().canaries != 16) std::_Exit(4);
      cache.release(slice, k64);
    });
    CHECK(result.exit_code == 0);
    CHECK(result.says("tendril: warning: no more guard pages"));
  }

  TEST_CASE("a hundred thousand mprotect stacks stay below the system's limit") {
    const auto result = test::run_forked([] {
      stack_source source({.guard = stack_guard::mprotect});
      stack_cache cache(source);
      for (int i = 0; i < 100'000; ++i) {
        if (!cache.acquire(k64)) std::_Exit(3);
      }
      // Arenas are mappings too, and go on being made.
      if (platform::map_count() > platform::max_map_count() / 4 * 3 + 64) std::_Exit(4);
      if (source.stats().in_use != 100'000) std::_Exit(5);
    });
    CHECK(result.exit_code == 0);
  }
}
