// SPDX-License-Identifier: Apache-2.0
//
// What calls into your library cost from fibers, and which way of calling it to choose.
//
//     ffi_cost LIBRARY SYMBOL [INTEGER...]
//
//     ffi_cost libz.so.1 zlibVersion
//     ffi_cost libz.so.1 adler32 1 0 0
//     ffi_cost ./libmine.so my_function 42
//
// The function is called very often, with the integers (at most six) as its arguments; one that takes
// pointers can be given 0 where it takes a null pointer. It is loaded and runs in this process: what it
// does to its arguments is its affair, and a crash in it is this program's.
//
// The ways of calling it, which take turns, half a millisecond each, so that all meet the same moments
// of the machine:
//   thread, direct      what the call costs anywhere else; the others are compared with it
//   reserved, direct    the same from a fiber on a reserved stack: no difference is to be expected
//   adjusted            from code on a segmented stack: a function, entered for each call, whose entry the
//                       linker has made to ask for room, and there is room
//   adjusted, at edge   the same where there is none, so that each call moves to a larger segment and back
//   native_call         on the worker's own stack, also when the function throws
//   native_call_noexcept  the same for a function that does not throw
//   batched             one native_call around a loop of 1,000 calls
//
// docs/measuring.md has an output and how to read it.
#include <tendril/ffi.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <dlfcn.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "plain_calls.hpp"

namespace {

using std::chrono::steady_clock;

constexpr long batch = 1000;

struct subject {
  foreign_function function;
  foreign_arguments arguments;
};

// --- the loops: `count` calls each ---------------------------------------------------------------------

using loop = long (*)(const subject&, long count);

long direct(const subject& s, long count) { return plain_loop(s.function, s.arguments, count); }

/// Entered for each call; the assembler statement keeps the compiler from jumping instead of calling.
[[gnu::noinline]] long adjusted_call(const subject& s) {
  long result = plain_call(s.function, s.arguments);
  asm volatile("" : "+r"(result));
  return result;
}

long adjusted(const subject& s, long count) {
  long result = 0;
  for (long i = 0; i < count; ++i) result = adjusted_call(s);
  return result;
}

long native(const subject& s, long count) {
  long result = 0;
  for (long i = 0; i < count; ++i)
    result = tendril::native_call<&plain_call>(s.function, s.arguments);
  return result;
}

long native_noexcept(const subject& s, long count) {
  long result = 0;
  for (long i = 0; i < count; ++i)
    result = tendril::native_call_noexcept<&plain_call>(s.function, s.arguments);
  return result;
}

long batched(const subject& s, long count) {
  long result = 0;
  for (; count > 0; count -= batch)
    result = tendril::native_call<&plain_loop>(s.function, s.arguments, std::min(count, batch));
  return result;
}

// --- where they run ------------------------------------------------------------------------------------

enum class place { thread, reserved, segmented, segmented_with_room };

struct way {
  const char* name;
  place where;
  loop run;
};

constexpr way ways[] = {
    {"thread, direct", place::thread, direct},
    {"reserved, direct", place::reserved, direct},
    {"adjusted", place::segmented_with_room, adjusted},
    {"adjusted, at edge", place::segmented, adjusted},
    {"native_call", place::segmented, native},
    {"native_call_noexcept", place::segmented, native_noexcept},
    {"batched", place::segmented, batched},
};

struct slice {
  const subject& what;
  const way& how;
  long count;
  long result = 0;
  double ns_per_call = 0;
};

// The clock is foreign code, too: read in a function of its own, it leaves the caller's frame small and
// the loop on the segment where it is.
[[gnu::noinline]] double now_ns() {
  return std::chrono::duration<double, std::nano>(steady_clock::now().time_since_epoch()).count();
}

[[gnu::noinline]] void timed(slice& s) {
  const double begin = now_ns();
  s.result = s.how.run(s.what, s.count);
  s.ns_per_call = (now_ns() - begin) / static_cast<double>(s.count);
}

/// A frame that fits no small segment: what it calls has room.
[[gnu::noinline]] void timed_with_room(slice& s) {
  char frame[std::size_t{24} << 10];
  asm volatile("" : : "r"(frame) : "memory");
  timed(s);
  asm volatile("" : : "r"(frame) : "memory");
}

void run(slice& s) {
  if (s.how.where == place::thread) return timed(s);
  tendril::fiber_options options;
  options.stack.kind = s.how.where == place::reserved ? tendril::stack_kind::reserved
                                                      : tendril::stack_kind::segmented;
  const bool room = s.how.where == place::segmented_with_room;
  tendril::fiber fiber(options, [&s, room] { room ? timed_with_room(s) : timed(s); });
  fiber.join();
}

// --- figures -------------------------------------------------------------------------------------------

double median(std::vector<double> v) {
  const auto middle = v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2);
  std::nth_element(v.begin(), middle, v.end());
  return *middle;
}

struct measured {
  const way* how;
  std::vector<double> ns;      // a call, in each round
  std::vector<double> ratios;  // to direct, within the round
  long result;
};

/// As many calls as take about half a millisecond, at least one.
long calls_in_slice(const subject& what) {
  for (long count = 1;; count *= 2) {
    slice s{what, ways[0], count};
    run(s);
    if (s.ns_per_call * static_cast<double>(count) >= 5e5) return count;
  }
}

std::vector<measured> measure(const subject& what, std::vector<const way*> candidates, long count) {
  std::vector<measured> all;
  for (const way* w : candidates) all.push_back({w, {}, {}, 0});
  std::mt19937 random(std::random_device{}());
  std::vector<measured*> order;
  for (measured& m : all) order.push_back(&m);

  const auto end = steady_clock::now() + std::chrono::seconds(1);
  for (int round = 0; round < 5 || (round < 200 && steady_clock::now() < end); ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (measured* m : order) {
      slice s{what, *m->how, count};
      run(s);
      m->ns.push_back(s.ns_per_call);
      m->result = s.result;
    }
    for (measured& m : all) m.ratios.push_back(m.ns.back() / all.front().ns.back());
  }
  return all;
}

/// Empty, or why fibers cannot have segmented stacks here.
std::string why_not_segmented() {
  try {
    tendril::fiber_options options;
    options.stack.kind = tendril::stack_kind::segmented;
    tendril::fiber(options, [] {}).join();
  } catch (const std::system_error& e) {
    return e.what();
  }
  return {};
}

// --- the command line ----------------------------------------------------------------------------------

struct bad_usage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

long parse_integer(std::string_view word) {
  long value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error == std::errc::result_out_of_range)
    throw bad_usage("'" + std::string(word) + "' does not fit a long");
  if (error != std::errc() || end != word.data() + word.size())
    throw bad_usage("'" + std::string(word) + "' is not an integer");
  return value;
}

struct unload {
  void operator()(void* library) const noexcept { ::dlclose(library); }
};
using library = std::unique_ptr<void, unload>;

foreign_function find_function(void* in, const std::string& symbol) {
  ::dlerror();
  void* const address = ::dlsym(in, symbol.c_str());
  if (const char* error = ::dlerror(); error != nullptr || address == nullptr)
    throw std::runtime_error(error != nullptr ? error : symbol + " is null");
  return reinterpret_cast<foreign_function>(address);
}

int report(const std::string& call, const subject& what) {
  tendril::runtime_options options;
  options.workers = 1;
  tendril::runtime runtime(options);

  const std::string why_not = why_not_segmented();
  std::vector<const way*> candidates;
  for (const way& w : ways)
    if (why_not.empty() || w.where == place::thread || w.where == place::reserved)
      candidates.push_back(&w);

  const long count = calls_in_slice(what);
  const std::vector<measured> all = measure(what, candidates, count);
  std::printf("%s = %ld (0x%lx); %zu rounds of %ld calls each\n\n", call.c_str(),
              all.front().result, static_cast<unsigned long>(all.front().result),
              all.front().ns.size(), count);
  std::printf("%-22s %12s %16s\n", "", "ns a call", "ratio to direct");
  bool same = true;
  for (const measured& m : all) {
    std::printf("%-22s %12.2f %16.2f\n", m.how->name, median(m.ns), median(m.ratios));
    same = same && m.result == all.front().result;
  }
  if (!same) std::printf("\nnote: the function did not return the same value each time\n");
  if (!why_not.empty())
    std::printf("\nnote: the ways for segmented stacks are left out: %s\n", why_not.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 3) throw bad_usage("a library and a symbol are wanted");
  subject what{nullptr, {}};
  if (static_cast<std::size_t>(argc) - 3 > what.arguments.size())
    throw bad_usage("at most " + std::to_string(what.arguments.size()) +
                    " integers can be passed, not " + std::to_string(argc - 3));
  const std::string symbol = argv[2];
  std::string call = symbol + '(';
  for (int i = 3; i < argc; ++i) {
    what.arguments[static_cast<std::size_t>(i) - 3] = parse_integer(argv[i]);
    call += (i > 3 ? ", " : "") + std::string(argv[i]);
  }
  const library loaded(::dlopen(argv[1], RTLD_NOW | RTLD_LOCAL));
  if (loaded == nullptr) throw std::runtime_error(::dlerror());
  what.function = find_function(loaded.get(), symbol);
  return report(call + ')', what);
} catch (const bad_usage& e) {
  std::fprintf(stderr, "ffi_cost: %s\nusage: ffi_cost LIBRARY SYMBOL [INTEGER...]\n", e.what());
  return 2;
} catch (const std::exception& e) {
  std::fprintf(stderr, "ffi_cost: %s\n", e.what());
  return 1;
}
