// SPDX-License-Identifier: Apache-2.0
//
// Where calls are made that a disk takes its time for.
//
// What writes through to a disk is always made on the pool. What looks up or changes a name takes one or two
// microseconds where the folder is cached, as it mostly is, and ten times as much by way of the pool; on a file system
// behind a network, or a disk that sleeps, it takes milliseconds. Neither place is right for both, so the
// choice is made by what the calls have taken, wherever they were made:
//
//   TENDRIL_INTERCEPT_FILES=auto     (default) in place while the mean of the last calls of that name
//                                    is below what a trip to the pool costs
//                           inline   always in place
//                           pool     always on the pool
//
// One slow call sends the next thirty or so to the pool, until the mean has come down again. Measured, stat() of a
// cached name, interleaved on a loaded machine: one fiber 1.2 to 2.3 us in place and by auto, 18 to 49 us by way of
// the pool; a hundred fibers 1.3 to 4.5 us whichever. So auto costs its two looks at the clock.
#pragma once

#include <chrono>
#include <utility>

#include "intercept/aside.hpp"
#include "intercept/symbols.hpp"

namespace tendril::detail {

enum class files_mode { automatic, in_place, pool };
files_mode mode_of_files() noexcept;

/// Whether the last calls of that name were quicker than a trip to the pool.
bool is_quick(symbol what) noexcept;
void note_time(symbol what, std::chrono::nanoseconds took) noexcept;

template <class F>
auto timed(symbol what, F& f) {
  const auto begin = std::chrono::steady_clock::now();
  auto result = f();
  note_time(what, std::chrono::steady_clock::now() - begin);
  return result;
}

/// f makes the call and returns its result; it may have references.
template <class F>
auto on_disk(symbol what, F f) {
  const files_mode m = mode_of_files();
  if (m == files_mode::in_place) return f();
  if (m == files_mode::pool) return on_pool(what, std::move(f));
  if (is_quick(what)) return timed(what, f);
  return on_pool(what, [what, f]() mutable { return timed(what, f); });
}

}  // namespace tendril::detail
