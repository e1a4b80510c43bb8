// SPDX-License-Identifier: Apache-2.0
#include "intercept/report.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include <tendril/intercept.hpp>

#include "base/static_tables.hpp"
#include "intercept/install.hpp"
#include "sched/blocked_places.hpp"
#include "sched/worker.hpp"
#include "sched/worker_thread.hpp"

namespace tendril::detail {
namespace {

struct alignas(64) counters {
  std::atomic<std::uint64_t> in_place{0};
  std::atomic<std::uint64_t> waited{0};  ///< parked, those made elsewhere included
  std::atomic<std::uint64_t> elsewhere{0};
  std::atomic<std::uint64_t> blocked{0};
};
std::array<counters, symbol_count> table;
const static_table table_noted(table);

void count(std::atomic<std::uint64_t>& one) noexcept {
  one.fetch_add(1, std::memory_order_relaxed);
}

counters& of(symbol what) noexcept { return table[static_cast<std::size_t>(what)]; }

std::uint64_t switches_of(const worker* w) noexcept {
  return w != nullptr ? w->counters().switches.get() : 0;
}

std::string milliseconds(std::chrono::nanoseconds time) {
  return std::to_string(std::chrono::duration_cast<std::chrono::milliseconds>(time).count()) +
         " ms";
}

// Where the report goes. Constant after the first call of report_is_wanted().
const char* destination() noexcept {
  static const char* const text = std::getenv("TENDRIL_INTERCEPT_REPORT");
  return text;
}

/// At exit: fibers may still run. A forked child that exits has nothing to report.
void write_report() noexcept {
  if (in_other_process()) return;
  try {
    const std::string text = interception::report();
    if (std::strcmp(destination(), "1") == 0) {
      std::fputs(text.c_str(), stderr);
      return;
    }
    std::FILE* const f = std::fopen(destination(), "w");
    if (f == nullptr) {
      std::fprintf(stderr, "tendril: TENDRIL_INTERCEPT_REPORT=%s: %s\n", destination(),
                   std::strerror(errno));
      return;
    }
    std::fputs(text.c_str(), f);
    std::fclose(f);
  } catch (...) {  // no memory
  }
}

}  // namespace

void count_elsewhere(symbol what) noexcept { count(of(what).elsewhere); }
void count_blocked(symbol what) noexcept { count(of(what).blocked); }

call_watch::call_watch(symbol what) noexcept : what_(what), on_fiber_(current_fiber() != nullptr) {
  if (!on_fiber_) return;
  const worker_use here;
  worker_ = here.get();
  switches_ = switches_of(worker_);
}

call_watch::~call_watch() {
  if (!on_fiber_) return;
  const worker_use here;
  const bool waited = here.get() != worker_ || switches_of(here.get()) != switches_;
  count(waited ? of(what_).waited : of(what_).in_place);
}

bool report_is_wanted() noexcept {
  if (destination() == nullptr || *destination() == 0 || std::strcmp(destination(), "0") == 0)
    return false;
  static const int registered = std::atexit(&write_report);
  return registered == 0;
}

}  // namespace tendril::detail

namespace tendril::interception {

bool is_installed() noexcept { return detail::is_in_place(); }

void count_calls(bool on) noexcept { detail::count_calls(on); }

std::vector<call_counts> counts() {
  std::vector<call_counts> result;
  for (std::size_t i = 0; i != detail::symbol_count; ++i) {
    const auto& c = detail::table[i];
    call_counts one;
    one.symbol = detail::symbol_names[i];
    one.in_place = c.in_place.load(std::memory_order_relaxed);
    one.elsewhere = c.elsewhere.load(std::memory_order_relaxed);
    one.blocked = c.blocked.load(std::memory_order_relaxed);
    const std::uint64_t waited = c.waited.load(std::memory_order_relaxed);
    one.parked = waited > one.elsewhere ? waited - one.elsewhere : 0;
    if (one.in_place + one.parked + one.elsewhere + one.blocked != 0) result.push_back(one);
  }
  const auto sum = [](const call_counts& c) {
    return c.in_place + c.parked + c.elsewhere + c.blocked;
  };
  std::stable_sort(result.begin(), result.end(),
                   [&](const call_counts& a, const call_counts& b) { return sum(a) > sum(b); });
  return result;
}

std::vector<blocked_place> blocked_places() { return detail::all_blocked_places(); }

std::string report() {
  std::string text = "tendril: libc's calls on fibers";
  if (!is_installed()) text += " (tendril::intercept is not in this process)";
  text += "\n  symbol                   in place       parked    elsewhere      blocked\n";
  char line[160];
  for (const call_counts& c : counts()) {
    std::snprintf(
        line, sizeof line, "  %-20s %12llu %12llu %12llu %12llu\n", c.symbol,
        static_cast<unsigned long long>(c.in_place), static_cast<unsigned long long>(c.parked),
        static_cast<unsigned long long>(c.elsewhere), static_cast<unsigned long long>(c.blocked));
    text += line;
  }
  const std::vector<blocked_place> places = blocked_places();
  text += "tendril: calls that blocked a worker for 10 ms and more while work waited for it: ";
  text += places.empty() ? "none\n" : "\n";
  for (const blocked_place& p : places) {
    text += "  " + p.call;
    if (p.system_call >= 0) text.append(", system call ").append(std::to_string(p.system_call));
    if (!p.caller.empty()) text += ", called from about " + p.caller;
    text.append(": ").append(std::to_string(p.times)).append(" times, longest ");
    text += detail::milliseconds(p.longest) + ", total " + detail::milliseconds(p.total) + '\n';
    for (const std::string& frame : p.trace) text.append("    ").append(frame).append("\n");
  }
  return text;
}

}  // namespace tendril::interception
