// SPDX-License-Identifier: Apache-2.0
#include "sched/stopped_threads.hpp"

#include "base/check.hpp"
#include "base/static_tables.hpp"
#include "platform/memory.hpp"
#include "platform/suspend_signal.hpp"
#include "sched/core_pool.hpp"
#include "sched/hot_start.hpp"
#include "sched/worker_thread.hpp"
#include "stack/arena_table.hpp"
#include "stack/segment_ranges.hpp"
#include "stack/stack_choice.hpp"

#include <tendril/detail/stopped_threads.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <mutex>
#include <new>
#include <span>
#include <system_error>

namespace tendril::detail {

constinit std::atomic<bool> threads_observed{false};

namespace {

using record = stopped_thread;

thread_hooks hooks{};
/// Who holds it is not stopped meanwhile: others wait for it whose signal is held as well. And who is in the list, but
/// does not know it yet, would seem to run. The collector's own lock is not taken with the signal held.
constinit std::mutex list_mutex;
std::atomic<record*> first_record{nullptr};
// Read in signal handlers: never allocated there.
[[gnu::tls_model("initial-exec")]] constinit thread_local record* mine = nullptr;
constinit thread_local bool thread_ends = false;

/// The thread runs no fibers any more.
void forget_thread() noexcept {
  record* const gone = mine;
  if (gone == nullptr) return;
  {
    const platform::suspend_signal_held unstopped;
    const std::scoped_lock hold(list_mutex);
    std::atomic<record*>* link = &first_record;
    while (link->load() != gone) link = &link->load()->next;
    link->store(gone->next.load());
    mine = nullptr;
  }
  if (gone->entered) hooks.leave();
  delete gone;
}

/// Of threads that no runtime made.
struct thread_end {
  ~thread_end() {
    thread_ends = true;
    forget_thread();
  }
  void use() const noexcept {}
};
thread_local thread_end at_thread_end;

bool on_suspend(const platform::interruption* i) noexcept {
  record* const r = mine;
  if (r == nullptr) return false;
  if (i != nullptr) {
    r->saved_end = i->saved_end;
    r->runs = this_worker_thread();
  }
  r->sp.store(i != nullptr ? i->stack_pointer : nullptr, std::memory_order_release);
  return true;
}

record* enter(worker_thread* own) noexcept {
  if (mine != nullptr || thread_ends) return mine;
  auto* const r = new (std::nothrow) record;
  TENDRIL_CHECK(r != nullptr, "no memory to tell the collector of a thread that runs fibers");
  r->own = own;
  platform::stack_bounds bounds;
  if (platform::this_thread_stack(bounds)) r->lowest = bounds.low;
  r->handle = hooks.enter(r->bottom, r->entered);
  TENDRIL_CHECK(r->handle != nullptr, "the collector refuses a thread that runs fibers");
  const platform::suspend_signal_held unstopped;
  const std::scoped_lock hold(list_mutex);
  r->next.store(first_record.load());
  first_record.store(r);
  mine = r;
  return r;
}

/// Whether it can be running a fiber just now.
bool runs_fibers(const record& r) noexcept {
  return r.own != nullptr || r.hot_calls.load(std::memory_order_relaxed) != 0;
}

const std::byte* bytes(const void* p) noexcept { return static_cast<const std::byte*>(p); }

/// The segment that sp is on, if it is on one.
const segment* segment_at(const found_stack& at, const void* sp) noexcept {
  if constexpr (segments_built) {
    const segment* const s =
        segment_at_end(at.slice, at.is_small_segment() ? small_segment_bytes : at.bytes());
    // What is there may be no header, or one of former times.
    if (!is_core(s->owner)) return nullptr;
    const auto& c = *static_cast<const fiber_core*>(s->owner);
    const fiber_frame* const frame = c.frame.load(std::memory_order_relaxed);
    if (frame == nullptr || !is_segmented(c.stack_class)) return nullptr;
    return find_segment(segment_at_end(frame->slice, first_bytes(c.stack_class)), sp) == s
               ? s
               : nullptr;
  } else {
    return nullptr;
  }
}

/// True: sp is on a fiber's stack, which is visited from there on.
bool visit_fiber_stack(const void* sp, range_visitor visit) {
  found_stack at;
  if (!find_stack(sp, at)) return false;
  if constexpr (segments_built) {
    if (const segment* const s = segment_at(at, sp)) {
      visit_interrupted_segments(s, bytes(sp), visit);
      return true;
    }
  }
  if (sp < at.slice.high)
    visit(std::max(bytes(sp), const_cast<const std::byte*>(at.slice.low)), at.slice.high);
  return true;
}

/// Whether the thread has native frames in the middle of the segmented stack that sp is on.
[[maybe_unused]] bool stands_before_native_frames(const void* sp) noexcept {
  found_stack at;
  if (!find_stack(sp, at)) return false;
  const segment* const s = segment_at(at, sp);
  return s != nullptr && s->pinned != 0;
}

void visit_record(const record& r, const void* sp, worker_thread* runs, range_visitor visit) {
  const void* own = nullptr;  // from where on the thread's own stack is in use
  if (!visit_fiber_stack(sp, visit)) own = sp;
  const fiber_core* c = runs != nullptr ? runs->current.get() : nullptr;
  bool hot = runs != nullptr && runs->is_hot();
  while (c != nullptr) {
    if constexpr (segments_built) {
      // Native calls: the fiber's frames are on its segments, the thread is on its own stack.
      if (own == sp && is_segmented(c->stack_class) && c->the_frame() != nullptr) {
        const segment* const first =
            segment_at_end(c->the_frame()->slice, first_bytes(c->stack_class));
        visit_whole_segments(first, visit);
      } else if (own != sp && r.own != nullptr && stands_before_native_frames(sp)) {
        own = r.lowest;  // a callback of such a call
      }
    }
    const hot_call* const host = hot ? c->host : nullptr;
    if (host == nullptr) break;
    if (const void* const below = host->ctx.sp;
        below != nullptr && !visit_fiber_stack(below, visit))
      own = own == nullptr ? below : std::min(own, below);
    c = host->caller;
    hot = host->caller_is_hot;
  }
  if (own == nullptr && r.own != nullptr) own = r.own->scheduler_context.sp;
  if (own != nullptr && own < r.bottom) visit(own, r.bottom);
}

}  // namespace

collected_thread::collected_thread(worker_thread& t) noexcept {
  if (threads_observed.load(std::memory_order_acquire)) enter(&t);
}

collected_thread::~collected_thread() { forget_thread(); }

stopped_thread* collect_guest() noexcept {
  if (!threads_observed.load(std::memory_order_acquire)) return nullptr;
  if (!thread_ends) at_thread_end.use();
  return enter(nullptr);
}

__attribute__((noinline)) void rest_observed(void (*wait)(void*) noexcept,
                                             void* argument) noexcept {
  record* const r = mine;
  if (r == nullptr || r->own == nullptr) {
    hooks.rest(wait, nullptr, argument);  // no fiber runs here now
    return;
  }
  struct rest_of {
    record* thread;
    void (*wait)(void*) noexcept;
    void* argument;
  } self{r, wait, argument};
  r->rests.store(true, std::memory_order_release);
  hooks.rest(
      [](void* s) noexcept {
        const auto& rest = *static_cast<const rest_of*>(s);
        rest.wait(rest.argument);
      },
      [](void* s) noexcept {
        static_cast<rest_of*>(s)->thread->rests.store(false, std::memory_order_relaxed);
      },
      &self);
}

bool collector_stops(platform::thread_number thread) noexcept {
  if (!threads_observed.load(std::memory_order_acquire)) return false;
  const std::scoped_lock hold(list_mutex);
  for (const record* r = first_record.load(); r != nullptr; r = r->next.load())
    if (r->own != nullptr && r->own->number.load(std::memory_order_relaxed) == thread)
      return r->sp.load(std::memory_order_acquire) != nullptr;
  return false;
}

void observe_threads(const thread_hooks& h, int suspend_signal) {
  const auto refuse = [](const char* why) {
    throw std::system_error(std::make_error_code(std::errc::operation_not_permitted), why);
  };
  if (threads_observed.load(std::memory_order_acquire))
    refuse("tendril: a collector observes the threads already; there can be one");
  if (!platform::wrap_suspend_signal(suspend_signal, &on_suspend))
    refuse("tendril: the signal by which the collector stops threads has no handler");
  hooks = h;
  threads_observed.store(true, std::memory_order_release);
}

void visit_static_tables(range_visitor visit) {
  static_table::for_each(
      [&](std::span<const std::byte> table) { visit(table.data(), table.data() + table.size()); });
}

bool threads_are_stopped() noexcept {
  for (const record* r = first_record.load(); r != nullptr; r = r->next.load())
    if (r != mine && runs_fibers(*r) && r->sp.load(std::memory_order_acquire) == nullptr &&
        !r->rests.load(std::memory_order_acquire))
      return false;
  return true;
}

__attribute__((noinline)) void visit_stopped_threads(range_visitor visit, bottom_setter set) {
  __builtin_unwind_init();  // our callers' registers: into this frame
  for (const record* r = first_record.load(); r != nullptr; r = r->next.load()) {
    if (r == mine) {
      // This frame's words lie below its address. The collector's own frames will take its place.
      const void* here = nullptr;
      here = &here;
      const void* const frame = __builtin_frame_address(0);
      visit_record(*r, std::min<const void*>(here, frame), this_worker_thread(), visit);
      set(r->handle, bytes(frame) + sizeof(void*));
      continue;
    }
    const void* const sp = r->sp.load(std::memory_order_acquire);
    // It runs no fiber, and is blocked where the collector knows of it, as in rest().
    if (sp == nullptr) continue;
    visit_record(*r, sp, r->runs, visit);
    set(r->handle, r->saved_end);
  }
}

void restore_bottoms(bottom_setter set) {
  // Of others nothing was changed; the collector may have forgotten them already, as their threads end.
  for (const record* r = first_record.load(); r != nullptr; r = r->next.load())
    if (r == mine || r->sp.load(std::memory_order_relaxed) != nullptr) set(r->handle, r->bottom);
}

}  // namespace tendril::detail
