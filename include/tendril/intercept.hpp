// SPDX-License-Identifier: Apache-2.0
//
// What became of libc's calls on fibers, in a program that has tendril::intercept linked or preloaded: which parked,
// and which blocked their worker, by whom they were made and for how long.
//
//     tendril::interception::count_calls(true);
//     serve();
//     std::fputs(tendril::interception::report().c_str(), stderr);
//
// Without a change to the program: TENDRIL_INTERCEPT_REPORT=1 in the environment counts from the first runtime's start
// and prints the report to stderr at exit; any other value than 0 and 1 is a file to write it to.
//
// Two halves. *Counts* are of calls that came to tendril::intercept on fibers, by symbol. *Blocks* are what the monitor
// of blocked workers has found, intercepted or not: a worker whose thread was in a system call for 10 ms and more while
// work waited for it. A block shorter than that, or one that nobody waited for, is in neither half.
// docs/interception.md lists what is intercepted; `./dev check-binary` what a program has that is not.
#pragma once

#include <tendril/config.hpp>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace tendril::interception {

/// Of one symbol, since counting began.
struct call_counts {
  const char* symbol = "";  ///< static
  std::uint64_t in_place =
      0;                     ///< did not wait: libc's call was made, or there was something to take
  std::uint64_t parked = 0;  ///< waited for an event, the worker being free
  std::uint64_t elsewhere = 0;  ///< made on another thread, the fiber parked; counted always
  std::uint64_t blocked =
      0;  ///< should have been made elsewhere, and there was no thread; counted always
};

/// One place in the program where a fiber blocked its worker's thread.
struct blocked_place {
  std::string
      call;  ///< the function that made the system call, and its library: "flock+0x7 (libc.so.6)"
  std::string caller;  ///< what likely called that library; empty: unknown
  /// Innermost first: addresses on the fiber's stack that look like return addresses. Some may be left over from earlier
  /// calls: the thread was not stopped to find out. Empty: unknown, as in a segment of a segmented stack.
  std::vector<std::string> trace;
  long system_call = -1;  ///< its number; -1: unknown
  std::uint64_t times = 0;
  std::chrono::nanoseconds longest{};  ///< to about 10 ms
  std::chrono::nanoseconds total{};
};

/// Whether calls come here: there is a tendril::intercept in the process, it precedes libc, and a runtime has been
/// started.
///
/// \switch  no
/// \threads any
TENDRIL_API bool is_installed() noexcept;

/// Whether to count calls in place and parked ones; off at first, unless TENDRIL_INTERCEPT_REPORT is set. Off: counts
/// are kept as they are.
///
/// \switch  no
/// \threads any
/// \cost    while on: about 20 ns a call on a fiber; none on threads
TENDRIL_API void count_calls(bool on) noexcept;

/// Of symbols that were called at all, most calls first. A snapshot: calls go on meanwhile.
///
/// \throws  std::bad_alloc
/// \switch  no
/// \threads any
TENDRIL_API std::vector<call_counts> counts();

/// The longest in total first; at most 256 places of the whole process.
///
/// \throws  std::bad_alloc
/// \switch  no
/// \threads any
/// \cost    reads a file of /proc for each thread that is blocked right now
TENDRIL_API std::vector<blocked_place> blocked_places();

/// Both as text, a line for each entry.
///
/// \throws  std::bad_alloc
/// \switch  no
/// \threads any
TENDRIL_API std::string report();

}  // namespace tendril::interception
