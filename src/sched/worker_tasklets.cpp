// SPDX-License-Identifier: Apache-2.0
//
// What a worker does for tasklets: it finds their stacks in place, brings them there, or looks for another fiber
// to run. Apart from worker.cpp, because none of it is on the path of a fiber whose stack is where it ran last.
#include "sched/hot_start.hpp"
#include "sched/scheduler.hpp"
#include "sched/worker.hpp"

#include <cstdio>
#include <cstdlib>
#include <new>
#include <utility>

namespace tendril::detail {
namespace {

[[noreturn]] void no_frame_for(const fiber_core& c) noexcept {
  std::fprintf(stderr, "tendril: no memory for the frame of tasklet '%s' (id %llu, %zu bytes)\n",
               name_of(&c), static_cast<unsigned long long>(c.id.load(std::memory_order_relaxed)),
               sizeof(tasklet_frame));
  std::abort();
}

}  // namespace

wait_extras& wait_extras_of_tasklet(fiber_core& c) noexcept {
  tasklet_frame& f = tasklet_frame_of(c);
  if (f.extras == nullptr) {
    void* const memory = std::malloc(sizeof(wait_extras));
    if (memory == nullptr) no_frame_for(c);
    f.extras = ::new (memory) wait_extras;
  }
  return *f.extras;
}

/// c is at spot::away. True: it can be switched to. False: it waits for its slot.
bool worker::bring_in(fiber_core* c) noexcept {
  slot_table& slots = owner_.slots();
  const bool starts = c->the_frame() == nullptr;
  if (starts) {
    if (!attach_slot_frame(c)) return true;
    if (slots.crowded(slot_cache_)) [[unlikely]]
      free_tasklet_shells(*thread_, *this);
  }
  made_runnable others;
  switch (slots.enter(*c, slot_cache_, others)) {
    case slot_table::entrance::in:
      if (starts) {  // it has no frame until prepare(), which tells by that who runs for the first time
        placed_ = c->the_frame();
        c->frame.store(nullptr, std::memory_order_relaxed);
      }
      queue(others);
      return true;
    case slot_table::entrance::waits:
      queue(others);
      return false;
    case slot_table::entrance::no_slot:
      break;
  }
  detach_slot_frame(c);
  use_own_stack(c);
  return true;
}

/// Undoes attach_slot_frame().
void worker::detach_slot_frame(fiber_core* c) noexcept {
  tasklet_frame* const f = &tasklet_frame_of(*c);
  c->frame.store(nullptr, std::memory_order_relaxed);
  if (const std::uintptr_t ambient = std::exchange(f->block.flow.ambient, 0))
    c->extras.inherit(ambient);
  thread_->tasklet_frames.destroy(f);
}

/// True: c, a tasklet that has not started yet, begins in place of one that has ended, in the same slot and with no
/// switch: a chain of fibers of which each spawns the next uses the memory of one stack.
__attribute__((noinline)) bool worker::succeed(const ending& e, fiber_core* c) noexcept {
  if (!is_away(c) || c->the_frame() != nullptr || !attach_slot_frame(c)) return false;
  auto& ended = *static_cast<tasklet_frame*>(e.frame);
  if (!owner_.slots().succeed(ended, *c)) {
    detach_slot_frame(c);
    return false;
  }
  thread_->tasklet_frames.destroy(&ended);
  c->ctx.describe_as(e.mine);
  counters_.switches.add();
  thread_->current = c;
  flow_state::clear(slots_);
  platform::reset_control_words();
  thread_->hold.leave();
  return true;
}

/// False: c gets a stack of its own, because it asks for more than a slot has, or others of its kind used so much.
bool worker::attach_slot_frame(fiber_core* c) noexcept {
  const std::uint16_t kind = kind_of(c->ops);
  if (size_class_of(c->stack_class) > owner_.slots().size_class() || owner_.slots().is_deep(kind)) {
    use_own_stack(c);
    return false;
  }
  tasklet_frame* const f = thread_->tasklet_frames.make(c);
  if (f == nullptr) no_frame_for(*c);
  f->kind = kind;
  inherit(c, f->block);
  c->frame.store(f, std::memory_order_release);
  if (owner_.stopping()) c->flags.fetch_or(flag::stop_requested, std::memory_order_relaxed);
  return true;
}

/// What a fiber does for which there is no slot: it is an ordinary one on a reserved stack.
void worker::use_own_stack(fiber_core* c) noexcept {
  c->stack_class = own_stack_of(c->stack_class, owner_.slots().size_class());
  c->leave(spot::away);
  slot_cache_.own_stacks.add();
}

/// The departure of c is not committed yet, and its slot is wanted.
__attribute__((noinline)) void worker::make_room(fiber_core* c) noexcept {
  if (!is_tasklet(c->stack_class)) {  // the wish was for one that had this core before
    c->slot_wanted.store(false, std::memory_order_relaxed);
    return;
  }
  made_runnable others;
  owner_.slots().leave(*c, slot_cache_, others);
  queue(others);
}

/// A tasklet that stood at sp has been committed as parked; its slot was wanted just then.
__attribute__((noinline)) void worker::make_room_behind(const void* sp) noexcept {
  slot* const s = owner_.slots().find(sp);
  if (s == nullptr) return;
  made_runnable others;
  owner_.slots().leave_parked(*s, slot_cache_, others);
  queue(others);
}

__attribute__((noinline)) void worker::release_slot(tasklet_frame& f) noexcept {
  made_runnable others;
  owner_.slots().retire(f, slot_cache_, others);
  thread_->tasklet_frames.destroy(&f);
  queue(others);
}

void worker::queue(const made_runnable& fibers) noexcept {
  for (fiber_core* const c : {fibers.first, fibers.second}) {
    if (c == nullptr) continue;
    if (c->affinity == affinity_any && scheduler_index_ == c->scheduler_index()) push_back(c);
    else schedule_elsewhere(c);
  }
}

}  // namespace tendril::detail
