// SPDX-License-Identifier: Apache-2.0
//
// Where the tests of native_call run: on a plain thread, on a fiber with a contiguous stack, and in a third
// place, from which foreign calls go to a native stack. In the program that is compiled for segmented stacks
// that is a segmented fiber. In the other it is a thread that is dressed up as one: it has a limit word, which
// code that was not compiled for segments never looks at, and a native stack of its own.
#pragma once

#include <tendril/detail/native_stack.hpp>

#include <atomic>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>

namespace tendril::test {

/// Called by the tests' foreign functions: counts the call, and whether it is on the wrong stack, which is
/// any but the native one in the third place, and the native one elsewhere.
void note_foreign_call() noexcept;
inline std::atomic<int> foreign_calls{0};
inline std::atomic<int> misplaced_calls{0};

/// Whether the caller runs on the native stack of its thread, by its address; whether foreign functions
/// should at this time.
bool on_native_stack() noexcept;
bool in_third_place() noexcept;
/// The limit word; 0 in builds without segmented stacks.
std::uintptr_t limit_word_now() noexcept;

void run_on_thread(const std::function<void()>& f);
void run_on_fiber(const std::function<void()>& f);
void run_dressed_up(const std::function<void()>& f);
void run_on_segments(const std::function<void()>& f);

struct place {
  const char* name;
  void (*run)(const std::function<void()>&);
};
inline constexpr place all_places[] = {
    {"thread", &run_on_thread},
    {"reserved fiber", &run_on_fiber},
#ifdef TENDRIL_SPLIT_CODE
    {"segmented fiber", &run_on_segments},
#else
    {"dressed-up thread", &run_dressed_up},
#endif
};

/// Runs f, which records and must not throw, in each place, and calls check(name) after each on the
/// caller's thread.
template <class F, class Check>
void everywhere(F f, Check check) {
  for (const place& p : all_places) {
    foreign_calls = 0;
    misplaced_calls = 0;
    p.run(std::ref(f));
    check(p.name);
  }
}

}  // namespace tendril::test
