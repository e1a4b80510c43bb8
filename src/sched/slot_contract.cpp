// SPDX-License-Identifier: Apache-2.0
#include "sched/slot_contract.hpp"

#include "base/sanitizer.hpp"
#include "base/spinlock.hpp"
#include "platform/trace.hpp"
#include "sched/core_pool.hpp"
#include "sched/pinned_stack.hpp"
#include "sched/registry.hpp"
#include "sched/scheduler.hpp"
#include "sched/slot_guard.hpp"
#include "sched/slots.hpp"
#include "sched/worker_thread.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>

namespace tendril::detail {

constinit slot_hull all_slots{};

namespace {

constexpr const char* advice =
    "While a tasklet waits nobody else may use its stack. Keep on the heap what is shared, or call "
    "that code by "
    "this_fiber::pin, or run it on stack_kind::reserved: see docs/tasklets.md.";

/// Null: in no slot of any runtime.
slot* find_slot(const waiter* self, const void* address) noexcept {
  if (self != nullptr && self->what == waiter::kind::fiber) {
    scheduler* const own = scheduler_at(static_cast<const fiber_core*>(self)->scheduler_index());
    if (slot* const s = own->slots().find(address)) return s;
  }
  slot* found = nullptr;
  for_each_scheduler([&](scheduler& s) {
    if (found == nullptr) found = s.slots().find(address);
  });
  return found;
}

bool lives_in(const fiber_core& c, const slot& s) noexcept {
  return (c.flags.load(std::memory_order_relaxed) & flag::alive) != 0 &&
         is_tasklet(c.stack_class) && c.the_frame() != nullptr && tasklet_frame_of(c).home == &s;
}

struct fiber_text {
  char text[96];
};
fiber_text text_of(const fiber_core* c) noexcept {
  fiber_text t;
  if (c == nullptr) {
    std::snprintf(t.text, sizeof t.text, "a plain thread");
  } else {
    char name[32];
    copy_name_of(c, name, sizeof name);
    std::snprintf(t.text, sizeof t.text, "%s '%s' (id %llu)",
                  is_tasklet(c->stack_class) ? "tasklet" : "fiber", name,
                  static_cast<unsigned long long>(ensure_id(const_cast<fiber_core*>(c))));
  }
  return t;
}

/// Whose bytes are, or were, at that address of s. Walks all fibers, while others run: for a last report.
struct owner_search {
  const slot& where;
  const std::byte* address;
  const fiber_core* resident = nullptr;
  const fiber_core* away = nullptr;  ///< one of those whose image has that address
  unsigned others_away = 0;

  void look_at(const fiber_core& c) noexcept {
    if (!lives_in(c, where)) return;
    if (!c.is_at(spot::away)) {
      if (where.resident.load(std::memory_order_relaxed) == &c) resident = &c;
      return;
    }
    const std::size_t from_top = static_cast<std::size_t>(where.slice.high - address);
    if (tasklet_frame_of(c).image.bytes() < from_top) return;
    if (away == nullptr) away = &c;
    else ++others_away;
  }
  /// The resident, if it waits there with these bytes in use.
  bool resident_has_it() const noexcept {
    return resident != nullptr &&
           (!resident->park.looks_parked() || address >= slot_low(*resident));
  }
};

void print_owner(const slot& s, const void* address) noexcept {
  owner_search search{s, static_cast<const std::byte*>(address)};
  for_each_core([](fiber_core& c, void* self) { static_cast<owner_search*>(self)->look_at(c); },
                &search);
  if (search.away == nullptr || (search.resident_has_it() && search.others_away == 0)) {
    if (search.resident != nullptr)
      std::fprintf(stderr, "the stack of %s, which is in its slot", text_of(search.resident).text);
    else std::fputs("a slot that is empty", stderr);
    if (search.away == nullptr) return;
    std::fputs("; or of ", stderr);
  } else {
    std::fputs("the stack of ", stderr);
  }
  std::fprintf(stderr, "%s, which is copied away while it waits", text_of(search.away).text);
  if (search.others_away != 0)
    std::fprintf(stderr, " (or of one of %u others that share its slot)", search.others_away);
  if (search.resident != nullptr && !search.resident_has_it())
    std::fprintf(stderr, "; %s is there now", text_of(search.resident).text);
}

[[noreturn]] void end() noexcept {
  std::fprintf(stderr, ". %s\n", advice);
  std::fflush(stderr);
  platform::write_trace(2);
  std::abort();
}

}  // namespace

void extend_slot_hull(const std::byte* from, std::size_t bytes) noexcept {
  static constinit spinlock changes;
  const std::lock_guard hold(changes);
  const auto low = reinterpret_cast<std::uintptr_t>(from);
  const std::uintptr_t old_low = all_slots.low.load(std::memory_order_relaxed);
  const std::uintptr_t old_high = old_low + all_slots.bytes.load(std::memory_order_relaxed);
  const std::uintptr_t new_low = old_low == 0 ? low : std::min(low, old_low);
  all_slots.low.store(new_low, std::memory_order_relaxed);
  all_slots.bytes.store(std::max(old_high, low + bytes) - new_low, std::memory_order_relaxed);
}

// ---- Waiting ---------------------------------------------------------------------------------

__attribute__((noinline)) bool check_wait_place(waiter* self, const void* place,
                                                const char* operation) noexcept {
  const slot* const s = find_slot(self, place);
  if (s == nullptr) return false;
  auto* const c = self->what == waiter::kind::fiber ? static_cast<fiber_core*>(self) : nullptr;
  if (c != nullptr && lives_in(*c, *s)) {
    c->flags.fetch_or(flag::own_place, std::memory_order_relaxed);
    return true;
  }
  std::fprintf(stderr, "tendril: %s waits (%s) on an object at %p, which is on ", text_of(c).text,
               operation, place);
  print_owner(*s, place);
  end();
}

void unmark_own_place(waiter* self) noexcept {
  self->flags.fetch_and(~flag::own_place, std::memory_order_relaxed);
}

__attribute__((noinline)) void check_lock_place(const void* lock) noexcept {
  fiber_core* const c = current_fiber();
  const slot* const s = find_slot(c, lock);
  if (s == nullptr || (c != nullptr && lives_in(*c, *s))) return;
  const fiber_core* const r = s->resident.load(std::memory_order_relaxed);
  if (r != nullptr && !r->park.looks_parked())
    return;  // it runs, and may let others use what it has
  std::fprintf(stderr, "tendril: %s wants the lock of an object at %p, which is on ",
               text_of(c).text, lock);
  print_owner(*s, lock);
  end();
}

__attribute__((noinline)) void check_wake(const fiber_core& c) noexcept {
  // One that blocks its thread keeps its slot, and so does one whose stack others may use.
  if (c.affinity == affinity_thread || tasklet_frame_of(c).stays) return;
  const wait_node& node = c.the_frame()->block.node;
  if (node.result.load(std::memory_order_acquire) == outcome::waiting)
    return;  // a timer, a stop request
  const char* const operation = c.the_frame()->block.reason.load();
  std::fprintf(
      stderr,
      "tendril: %s ends a wait (%s) of %s on an object that is on the waiter's own stack, in "
      "[%p, %p)",
      text_of(current_fiber()).text, operation != nullptr ? operation : "?", text_of(&c).text,
      static_cast<void*>(tasklet_frame_of(c).home->slice.low),
      static_cast<void*>(tasklet_frame_of(c).home->slice.high));
  end();
}

// ---- Bytes -----------------------------------------------------------------------------------

void report_written(const slot& s, const std::byte* at) noexcept {
  std::fprintf(stderr, "tendril: somebody has written to %p, which is on ",
               static_cast<const void*>(at));
  print_owner(s, at);
  end();
}

void report_below(const fiber_core& c) noexcept {
  const std::byte* const low = slot_low(c);
  const slot& s = *tasklet_frame_of(c).home;
  std::fprintf(stderr,
               "tendril: somebody has written to [%p, %p), just below the stack of %s in [%p, %p), "
               "while it waited: there were variables of functions that have returned, of this "
               "tasklet or of another one of the same slot",
               static_cast<const void*>(low - slot_guard_bytes), static_cast<const void*>(low),
               text_of(&c).text, static_cast<const void*>(s.slice.low),
               static_cast<const void*>(s.slice.high));
  end();
}

void report_damaged(const fiber_core& c, const char* what) noexcept {
  std::fprintf(stderr, "tendril: %s: %s", text_of(&c).text, what);
  end();
}

}  // namespace tendril::detail

#if TENDRIL_ASAN

/// Called by AddressSanitizer before it reports an error. Weak: a program may have its own.
extern "C" __attribute__((weak)) void __asan_on_error() {
  using namespace tendril::detail;
  const void* const address = __asan_get_report_address();
  if (!may_be_in_a_slot(address)) return;
  const fiber_core* const c = current_fiber();
  const slot* const s = find_slot(c, address);
  if (s == nullptr || s->resident.load(std::memory_order_relaxed) != nullptr) return;
  std::fprintf(stderr, "tendril: %s %s %p, which is on ", text_of(c).text,
               __asan_get_report_access_type() != 0 ? "writes to" : "reads", address);
  print_owner(*s, address);
  std::fprintf(stderr, ". %s\n", advice);
}

#endif
