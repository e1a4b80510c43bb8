// SPDX-License-Identifier: Apache-2.0
#include "sched/blocked_places.hpp"

#include "platform/thread_state.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <string>

namespace tendril::detail {
namespace {

struct place {
  platform::blocked_call call;
  const void* caller;
  std::array<const void*, blocked_fiber::most_frames> trace;
  std::uint64_t times;
  std::chrono::nanoseconds longest;
  std::chrono::nanoseconds total;
};

struct open_block {
  std::size_t place;
  platform::thread_number thread;
  const void* instruction;
  time_point since;
  std::chrono::nanoseconds counted;  ///< what the place has of it
};

constexpr std::size_t most_places = 256;

// The monitors' threads, and whoever asks. Never destroyed: monitors of runtimes that nobody stops go on.
struct tables {
  std::mutex mutex;
  std::vector<place> places;
  std::vector<open_block> open;
};
tables& all() {
  static tables* const t = new tables;
  return *t;
}
/// So that a round without blocks costs a load.
std::atomic<bool> any_open{false};

void prolong_locked(tables& t, open_block& b, time_point now) noexcept {
  const auto lasted = std::chrono::nanoseconds(now - b.since);
  place& p = t.places[b.place];
  p.total += lasted - b.counted;
  p.longest = std::max(p.longest, lasted);
  b.counted = lasted;
}

void follow_locked(tables& t) noexcept {
  const time_point now = clock::now();
  std::erase_if(t.open, [&](open_block& b) {
    if (platform::activity_of(b.thread) != platform::thread_activity::blocked ||
        platform::blocked_call_of(b.thread).instruction != b.instruction)
      return true;
    prolong_locked(t, b, now);
    return false;
  });
  any_open.store(!t.open.empty(), std::memory_order_relaxed);
}

std::string text_of(const void* address) {
  char text[256];
  platform::describe_address(address, text, sizeof text);
  return text;
}

}  // namespace

void note_block(const blocked_fiber& who, std::chrono::nanoseconds so_far) noexcept {
  if (who.call.instruction == nullptr) return;
  try {
    tables& t = all();
    const std::lock_guard hold(t.mutex);
    for (const open_block& b : t.open)
      if (b.thread == who.thread && b.instruction == who.call.instruction) return;
    auto p = std::find_if(t.places.begin(), t.places.end(), [&](const place& known) {
      return known.call.instruction == who.call.instruction && known.caller == who.caller;
    });
    if (p == t.places.end()) {
      if (t.places.size() == most_places) return;
      t.places.push_back({who.call, who.caller, who.trace, 0, {}, {}});
      p = t.places.end() - 1;
    }
    ++p->times;
    const time_point now = clock::now();
    t.open.push_back({static_cast<std::size_t>(p - t.places.begin()),
                      who.thread,
                      who.call.instruction,
                      now - so_far,
                      {}});
    prolong_locked(t, t.open.back(), now);
    any_open.store(true, std::memory_order_relaxed);
  } catch (...) {  // no memory: it is left out
  }
}

void follow_blocks() noexcept {
  if (!any_open.load(std::memory_order_relaxed)) return;
  tables& t = all();
  const std::lock_guard hold(t.mutex);
  follow_locked(t);
}

std::vector<interception::blocked_place> all_blocked_places() {
  std::vector<place> places;
  {
    tables& t = all();
    const std::lock_guard hold(t.mutex);
    follow_locked(t);
    places = t.places;
  }
  std::sort(places.begin(), places.end(),
            [](const place& a, const place& b) { return a.total > b.total; });
  std::vector<interception::blocked_place> result;
  result.reserve(places.size());
  for (const place& p : places) {
    auto& r = result.emplace_back();
    r.call = text_of(p.call.instruction);
    if (p.caller != nullptr) r.caller = text_of(p.caller);
    for (const void* const frame : p.trace)
      if (frame != nullptr) r.trace.push_back(text_of(frame));
    r.system_call = p.call.number;
    r.times = p.times;
    r.longest = p.longest;
    r.total = p.total;
  }
  return result;
}

}  // namespace tendril::detail
