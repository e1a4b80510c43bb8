// SPDX-License-Identifier: Apache-2.0
#include "sched/blocked_report.hpp"

#include "platform/trace.hpp"

#include <algorithm>
#include <cstdio>

namespace tendril::detail {
namespace {

std::uint64_t mix(std::uint64_t key, std::uint64_t part) noexcept {
  key = (key ^ part) * 0x9E3779B97F4A7C15U;
  return key ^ key >> 29;
}
std::uint64_t mix(std::uint64_t key, const void* part) noexcept {
  return mix(key, static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(part)));
}

std::string fiber_text(const char* name, std::uint64_t id) {
  return "tendril: fiber '" + std::string(name) + "' (id " + std::to_string(id) + ")";
}

std::string address_text(const void* address) {
  char text[256];
  platform::describe_address(address, text, sizeof text);
  return text;
}

}  // namespace

bool blocked_reporter::is_new(std::uint64_t key) {
  const std::scoped_lock hold(mutex_);
  if (places_.size() == most_places ||
      std::find(places_.begin(), places_.end(), key) != places_.end())
    return false;
  places_.push_back(key);
  return true;
}

void blocked_reporter::say(const std::string& text) {
  if (options_.on_blocked_worker) options_.on_blocked_worker(text);
  else platform::write_error(text.data(), text.size());
}

void blocked_reporter::blocked(unsigned worker, const blocked_fiber& who,
                               std::chrono::nanoseconds stuck_for,
                               crew::hand_over result) noexcept {
  try {
    std::string text;
    if (result == crew::hand_over::no_barrier) {
      if (!is_new(1)) return;
      text =
          "tendril: worker " + std::to_string(worker) +
          "'s thread is blocked while work waits for it, and cannot be replaced: the system has no "
          "membarrier(2)";
    } else {
      if (!is_new(mix(mix(mix(static_cast<std::uint64_t>(result),
                              static_cast<std::uint64_t>(who.call.number)),
                          who.call.instruction),
                      who.caller)))
        return;
      const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(stuck_for).count();
      text = fiber_text(who.name, who.id) + " has blocked the thread of worker " +
             std::to_string(worker) + " for " + std::to_string(ms) + " ms";
      if (who.call.instruction != nullptr) {
        if (who.call.number >= 0) text += ", in system call " + std::to_string(who.call.number);
        text += " at " + address_text(who.call.instruction);
      }
      if (who.caller != nullptr) text += ", called from about " + address_text(who.caller);
      if (result == crew::hand_over::no_spare) {
        text += ", while other work waits for that worker: it cannot go on, because " +
                std::to_string(options_.max_spare_threads) +
                " threads are blocked already (runtime_options::max_spare_threads), or the system "
                "gives "
                "no more";
      } else {
        text += "; the worker goes on on another thread";
      }
    }
    text +=
        ". Tendril's own calls, and tendril::blocking(), do not block a worker. (Said once for "
        "each "
        "place.)\n";
    say(text);
  } catch (...) {  // no memory, or a handler that throws against its contract
  }
}

void blocked_reporter::pinned(const fiber_core& who, const char* reason, bool given) noexcept {
  try {
    constexpr std::size_t most = 32;
    const void* trace[most];
    const std::size_t n = platform::capture_trace(trace, most);
    std::uint64_t key = 2;
    for (std::size_t i = 0; i != n; ++i) key = mix(key, trace[i]);
    if (!is_new(key)) return;
    std::string text =
        fiber_text(name_of(&who), who.id) + " waits in " + reason +
        " while it is pinned to its thread, by a native call or a callback from one: " +
        (given ? "the thread is blocked, the worker goes on on another"
               : "the thread and its worker are blocked, as there is no spare thread "
                 "(runtime_options::max_spare_threads)") +
        ". (Said once for each place.)\n";
    for (std::size_t i = 1; i < n; ++i) text += "  " + address_text(trace[i]) + '\n';
    say(text);
  } catch (...) {
  }
}

}  // namespace tendril::detail
