// SPDX-License-Identifier: Apache-2.0
//
// What became of calls that were made on fibers, counted by symbol; the text for people (tendril/intercept.hpp).
//
// Whether a call parked is told by its worker's number of switches: who does not park does not switch, and nobody
// else switches that worker meanwhile. Another worker, or none: it parked, or lost its worker while it blocked.
#pragma once

#include "intercept/symbols.hpp"

namespace tendril::detail {

class worker;

/// The call went to another thread.
void count_elsewhere(symbol what) noexcept;
/// The call was made in place although it blocks: no thread or memory to do better.
void count_blocked(symbol what) noexcept;

/// From the beginning to the end of a call. On threads: nothing.
class call_watch {
 public:
  explicit call_watch(symbol what) noexcept;
  ~call_watch();
  call_watch(const call_watch&) = delete;
  call_watch& operator=(const call_watch&) = delete;

 private:
  symbol what_;
  bool on_fiber_;
  const worker* worker_ = nullptr;
  std::uint64_t switches_ = 0;
};

/// TENDRIL_INTERCEPT_REPORT asks for a report at exit. The first time: it will be made.
bool report_is_wanted() noexcept;

}  // namespace tendril::detail
