// SPDX-License-Identifier: Apache-2.0
//
// A fiber's stack, from when a worker runs it for the first time to when it has ended: a reserved one, or a first segment.
// Apart from worker.cpp, because none of it is on the path of a fiber that goes on.
#include "sched/scheduler.hpp"
#include "sched/worker.hpp"

#include <cstdio>
#include <cstdlib>
#include <new>

namespace tendril::detail {

inline stack_slice worker::take_stack(stack_choice what) noexcept {
  if (what != small_first) return stacks_.acquire(size_class_of(what));
  std::byte* const base = segments_.acquire();
  return base != nullptr ? stack_slice{base, base + small_segment_bytes} : stack_slice{};
}

stack_slice worker::acquire_stack(stack_choice what) noexcept { return take_stack(what); }

static inline laid_out lay_out(fiber_core* c, stack_slice slice) noexcept {
  std::uintptr_t top = reinterpret_cast<std::uintptr_t>(slice.high) - sizeof(own_frame);
  std::uintptr_t limit = 0;
  if constexpr (segments_built) {
    if (is_segmented(c->stack_class)) {
      const segment* const first =
          make_first_segment(slice, first_bytes(c->stack_class), sizeof(own_frame), c);
      top = reinterpret_cast<std::uintptr_t>(first->first_sp);
      limit = first->limit;
    }
  }
  top &= ~std::uintptr_t{63};
  return {::new (reinterpret_cast<void*>(top)) own_frame(c, slice), limit};
}

laid_out lay_out_stack(fiber_core* c, stack_slice slice) noexcept { return lay_out(c, slice); }

void inherit(fiber_core* c, wait_block& block) noexcept {
  if (c->extras.empty()) [[likely]]
    return;
  block.flow.ambient = c->extras.take_inherited();
  if (const fiber_extras* const e = c->extras.get()) block.ambient_deadline = e->ambient_deadline;
}

/// Out of line: who names unsplit code is moved to a larger segment each time it is entered.
[[noreturn, gnu::noinline]] static void no_stack_for(const fiber_core& c) noexcept {
  std::fprintf(
      stderr,
      "tendril: no memory for the stack of fiber '%s' (id %llu, %zu KiB): the system gave no more "
      "address space or mappings (see vm.max_map_count, vm.overcommit_memory, RLIMIT_AS)\n",
      name_of(&c), static_cast<unsigned long long>(c.id.load(std::memory_order_relaxed)),
      first_bytes(c.stack_class) >> 10);
  std::abort();
}

/// Gives c its stack when it runs for the first time: fibers that are only queued have none.
__attribute__((noinline)) void worker::attach_stack(fiber_core* c) noexcept {
  const stack_choice what = c->stack_class;
  if (is_tasklet(what)) {  // see bring_in()
    c->frame.store(placed_, std::memory_order_release);
    return;
  }
  const stack_slice slice = take_stack(what);
  if (slice.high == nullptr) {
    no_stack_for(*c);
  }
  const auto [frame, limit] = lay_out(c, slice);
  inherit(c, frame->block);
  c->ctx.make(slice.low, frame, &fiber_main, limit);
  c->frame.store(frame, std::memory_order_release);
  if (owner_.stopping()) c->flags.fetch_or(flag::stop_requested, std::memory_order_relaxed);
}

/// Out of line: who mentions unsplit code is moved to a larger segment each time it is entered.
__attribute__((noinline)) static void free_the_rest(segment* first) noexcept {
  if constexpr (segments_built) free_what_follows(first);
}

/// The segments of a fiber that has ended, wherever on them it was at last. Mostly there is one.
void worker::release_segments(stack_slice slice, stack_choice what) noexcept {
  if constexpr (segments_built) {
    segment* const first = segment_at_end(slice, first_bytes(what));
    if (first->next != nullptr || first->dynamic != nullptr) [[unlikely]]
      free_the_rest(first);
  }
  if (what == small_first) segments_.release(slice.low);
  else stacks_.release(slice, size_class_of(what));
}

}  // namespace tendril::detail
