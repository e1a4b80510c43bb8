// SPDX-License-Identifier: Apache-2.0
#include "sched/parked.hpp"

#include "sched/core_pool.hpp"
#include "sched/pinned_stack.hpp"
#include "sched/registry.hpp"
#include "sched/scheduler.hpp"
#include "sched/slots.hpp"
#include "stack/segment_ranges.hpp"
#include "stack/stack_choice.hpp"

#include <tendril/fiber_local.hpp>

#include <array>
#include <cstddef>

namespace tendril::detail {

std::atomic<bool> epochs_used{false};

namespace {

constexpr unsigned most_runtimes = 256;  // as many as a core's flags can tell apart

/// Of each runtime the last epoch that began with it; 0: all its fibers are marked.
constinit std::array<std::atomic<std::uint64_t>, most_runtimes> epochs{};
constinit std::atomic<std::uint64_t> last_epoch{0};

enum class state : std::uint8_t {
  nothing,    ///< a free core, an ended fiber, a shell
  unstarted,  ///< or not even queued
  started
};

state state_of(const fiber_core& c, const fiber_frame* frame, flag::word flags) noexcept {
  if (frame == nullptr) return c.ops != nullptr ? state::unstarted : state::nothing;
  return (flags & flag::alive) != 0 ? state::started : state::nothing;
}

void visit_closure(const fiber_core& c, range_visitor visit) {
  if (c.ops == nullptr) return;
  if (c.ops->heap_bytes == 0) visit(c.closure, c.closure + inline_closure_bytes);
  // Null: it has been destroyed.
  else if (const std::byte* const at = *reinterpret_cast<std::byte* const*>(c.closure))
    visit(at, at + c.ops->heap_bytes);
}

void visit_locals(const flow_locals& flow, range_visitor visit) {
  if (flow.locals == nullptr) return;
  for (const local_value* v = flow.locals->newest; v != nullptr; v = v->older)
    visit(v, reinterpret_cast<const std::byte*>(v) + v->bytes);
}

segment* first_segment(const fiber_core& c, const fiber_frame& frame) noexcept {
  return segment_at_end(frame.slice, first_bytes(c.stack_class));
}

/// In pieces what is not whole: there may be no room for all, and no way to get it.
void visit_image(const tasklet_frame& frame, range_visitor visit) {
  const image_word image = frame.image.seen();
  if (image.folded()) {
    std::array<std::byte, 2048> words;
    fold_reader reader = image.reader(image_owner_of(frame));
    while (const std::size_t n = reader.read(words.data(), words.size() / sizeof(std::uint64_t)))
      visit(words.data(), words.data() + n * sizeof(std::uint64_t));
  } else if (image.packed()) {
    std::array<std::byte, pack_reader::chunk_bytes> chunk;
    pack_reader reader = image.reader();
    while (const std::size_t n = reader.read(chunk.data())) visit(chunk.data(), chunk.data() + n);
  } else if (const stack_image::block* const b = image.whole()) {
    visit(b->data(), b->data() + b->bytes);
  }
}

/// What a fiber that does not run has of its stack in use. False: its frame is not in that range.
bool visit_stack(const fiber_core& c, const fiber_frame& frame, flag::word flags,
                 range_visitor visit) {
  // It may be running, and its departure being saved.
  const auto* const sp = static_cast<const std::byte*>(
      std::atomic_ref(const_cast<void*&>(c.ctx.sp)).load(std::memory_order_relaxed));
  if (is_segmented(c.stack_class)) {
    if constexpr (segments_built) {
      const segment* const inner = find_segment(first_segment(c, frame), sp);
      if (inner == nullptr) return false;
      visit_segments(inner, sp, visit);  // the frame lies on the first
    }
    return true;
  }
  if (!is_tasklet(c.stack_class)) {
    const auto* const end =
        reinterpret_cast<const std::byte*>(&static_cast<const own_frame&>(frame) + 1);
    if (sp < frame.slice.low || sp >= end) return false;
    visit(sp, end);  // and the frame, which lies above
    return true;
  }
  const auto& tasklet = static_cast<const tasklet_frame&>(frame);
  const std::byte* low = sp;
  if ((flags & flag::elsewhere) != 0) {  // between its setting and its clearing the rest is there
    if (sp >= frame.slice.low && sp < frame.slice.high) visit(sp, frame.slice.high);
    low = pinned_header_of(c).anchor;
  }
  // Acquire: with the image, which the monitor may just have made.
  if ((c.places.load(std::memory_order_acquire) & spot::away) == 0) {
    const stack_slice& slot = tasklet.home->slice;
    if (low >= slot.low && low < slot.high) visit(low, slot.high);
  } else if (tasklet.started) {
    visit_image(tasklet, visit);
  }
  return false;  // the frame lies elsewhere
}

void visit_started(const fiber_core& c, const fiber_frame& frame, flag::word flags,
                   range_visitor visit) {
  if (!visit_stack(c, frame, flags, visit)) {
    visit(&frame, &frame + 1);
    if (is_tasklet(c.stack_class)) {
      if (const wait_extras* const e = static_cast<const tasklet_frame&>(frame).extras)
        visit(e, e + 1);
    } else {
      const auto& own = static_cast<const own_frame&>(frame);
      visit(&own.cell, &own.cell + 1);
    }
  }
  visit_closure(c, visit);
  visit_locals(frame.block.flow, visit);
}

/// In scope: of that runtime, or no matter which.
class walk {
 public:
  walk(const runtime* r, range_visitor v) : visit_(v) {
    if (r != nullptr) scope_ = table_index_of(*r);
  }

  /// One core. Tells what became of its mark.
  bool look_at(fiber_core& c, bool marked, bool age) {
    const flag::word flags = c.flags.load(std::memory_order_acquire);
    const fiber_frame* const frame = c.frame.load(std::memory_order_acquire);
    const state what = state_of(c, frame, flags);
    if (what == state::nothing) return false;
    if (!in_scope(flags)) return marked || (flags & flag::old) == 0;
    if (what == state::unstarted) {
      visit_closure(c, visit_);
      return true;
    }
    visit_started(c, *frame, flags, visit_);
    if (!age || !c.park.looks_parked()) return true;
    if ((flags & flag::old) == 0) c.flags.fetch_or(flag::old, std::memory_order_relaxed);
    return false;
  }

  void everything() {
    for_each_core(
        [](fiber_core& c, void* self) { static_cast<walk*>(self)->look_at(c, true, false); }, this);
  }
  void begin_epoch() {
    mark_every_core([](fiber_core& c, bool marked,
                       void* self) { return static_cast<walk*>(self)->look_at(c, marked, true); },
                    this);
  }
  void what_is_new() {
    for_each_marked_core(
        [](fiber_core& c, void* self) { return static_cast<walk*>(self)->look_at(c, true, true); },
        this);
  }

  /// Whether what is unmarked was reported in the epoch `since` and nothing was later.
  bool knows(std::uint64_t since) const noexcept {
    for (unsigned i = 0; i != most_runtimes; ++i) {
      if (!covers(i)) continue;
      const std::uint64_t epoch = epochs[i].load(std::memory_order_relaxed);
      if (epoch != 0 && epoch != since) return false;
    }
    return true;
  }
  void enter(std::uint64_t epoch) const noexcept {
    for (unsigned i = 0; i != most_runtimes; ++i)
      if (covers(i)) epochs[i].store(epoch, std::memory_order_relaxed);
  }

 private:
  static constexpr unsigned all = most_runtimes;

  static unsigned table_index_of(const runtime& r) noexcept {
    const std::uint64_t serial = serial_of(r);
    for (unsigned i = 0; i != most_runtimes; ++i)
      if (const scheduler* const s = scheduler_at(i); s != nullptr && s->serial() == serial)
        return i;
    return all;  // not in the table: a runtime that ends, and has no fibers
  }
  bool covers(unsigned index) const noexcept {
    return scheduler_at(index) != nullptr && (scope_ == all || scope_ == index);
  }
  /// A core that is being made does not tell whose it will be.
  bool in_scope(flag::word flags) const noexcept {
    return scope_ == all || (flags & flag::alive) == 0 ||
           (flags & flag::scheduler_mask) >> flag::scheduler_shift == scope_;
  }

  range_visitor visit_;
  unsigned scope_ = all;
};

}  // namespace

__attribute__((noinline)) void note_new_slow(fiber_core* c) noexcept { mark_core(c); }

__attribute__((noinline)) void note_run_slow(fiber_core* c) noexcept {
  mark_core(c);
  std::atomic_signal_fence(std::memory_order_release);  // in this order, see the header
  c->flags.fetch_and(~flag::old, std::memory_order_relaxed);
}

void forget_epoch(unsigned table_index) noexcept {
  epochs[table_index].store(0, std::memory_order_relaxed);
}

void visit_parked(const runtime* r, range_visitor visit) {
  const image_visit here;
  walk(r, visit).everything();
}

parked_epoch visit_parked_since(const runtime* r, parked_epoch since, range_visitor visit) {
  const image_visit here;
  walk w(r, visit);
  const auto before = static_cast<std::uint64_t>(since);
  const bool first = !epochs_used.exchange(true, std::memory_order_relaxed);
  if (first || since == parked_epoch::none || !w.knows(before)) w.begin_epoch();
  else w.what_is_new();
  const std::uint64_t now = last_epoch.fetch_add(1, std::memory_order_relaxed) + 1;
  w.enter(now);
  return static_cast<parked_epoch>(now);
}

}  // namespace tendril::detail
