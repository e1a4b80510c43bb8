// SPDX-License-Identifier: Apache-2.0
#include "sched/hot_start.hpp"

#include "base/sanitizer.hpp"
#include "base/split.hpp"
#include "platform/memory.hpp"
#include "sched/core_pool.hpp"
#include "sched/guest.hpp"
#include "sched/parked.hpp"
#include "sched/registry.hpp"
#include "sched/scheduler.hpp"
#include "sched/slot_guard.hpp"
#include "sched/stopped_threads.hpp"
#include "sched/thread_words.hpp"
#include "sched/worker.hpp"
#include "stack/segmented.hpp"
#include "stack/stack_choice.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace tendril::detail {
namespace {

/// A thread keeps as many of a list: enough for the nesting of ordinary programs. Calls on stacks of other
/// classes take theirs from the worker's caches.
constexpr unsigned most_shells = 64;

// ---- Shells ----------------------------------------------------------------------------------

/// Of a fiber that was none, or has ended. The frame is on the stack, or is destroyed as well.
void release_stack(worker_thread& t, worker* w, fiber_frame* frame, stack_choice what) noexcept {
  if (is_tasklet(what)) {
    auto* const f = static_cast<tasklet_frame*>(frame);
    if (w != nullptr) {
      w->release_slot(*f);
      return;
    }
    t.owner.use_slots_outside([f](slot_table& slots, slot_cache& cache, made_runnable& others) {
      slots.retire(*f, cache, others);
      return true;
    });
    t.tasklet_frames.destroy(f);
    return;
  }
  const stack_slice slice = frame->slice;
  static_cast<own_frame*>(frame)->~own_frame();
  if (w != nullptr) w->release_stack(slice, what);
  else t.owner.give_stack(slice, what);
}

/// Calls f(slots, cache, made_runnable&) as w, the worker that the caller is inside of, or as an outsider.
template <class F>
bool use_slots(worker_thread& t, worker* w, F&& f) noexcept {
  if (w == nullptr) return t.owner.use_slots_outside(f);
  made_runnable others;
  const bool result = f(t.owner.slots(), w->slots(), others);
  w->queue(others);
  return result;
}

/// A slot, exclusively, and a frame. False: the call gets a stack of its own, whose class is in `what`.
bool give_slot(worker_thread& t, worker* w, fiber_core* c, stack_choice& what) noexcept {
  const unsigned slot_class = t.owner.slots().size_class();
  tasklet_frame* const f = size_class_of(what) <= slot_class ? t.tasklet_frames.make(c) : nullptr;
  if (f != nullptr) {
    c->stack_class = what;
    c->frame.store(f, std::memory_order_release);
    if (use_slots(t, w, [c](slot_table& slots, slot_cache& cache, made_runnable& others) {
          return slots.enter_now(*c, cache, others);
        }))
      return true;
    c->frame.store(nullptr, std::memory_order_relaxed);
    t.tasklet_frames.destroy(f);
  }
  what = own_stack_of(what, slot_class);
  return use_slots(t, w, [](slot_table&, slot_cache& cache, made_runnable&) {
    cache.own_stacks.add();
    return false;
  });
}

/// \throws std::bad_alloc
fiber_core* make_shell(worker_thread& t, stack_choice what) {
  const worker_use here;
  worker* const w = t.guest ? nullptr : here.get();
  fiber_core* const c = t.cores.get();
  c->done.reset(detached_marker());
  c->id.store(0, std::memory_order_relaxed);
  c->places.store(0, std::memory_order_relaxed);
  c->slot_wanted.store(false, std::memory_order_relaxed);
  if (is_tasklet(what) && give_slot(t, w, c, what)) return c;
  const stack_slice slice = w != nullptr ? w->acquire_stack(what) : t.owner.take_stack(what);
  if (!slice) {
    t.cores.put(c);
    throw std::bad_alloc();
  }
  c->stack_class = what;
  c->frame.store(lay_out_stack(c, slice).frame, std::memory_order_release);
  return c;
}

/// Where shells of that class are kept; null: nowhere.
shell_list* list_of(worker_thread& t, stack_choice what) noexcept {
  if (what == t.shells.what) return &t.shells;
  return what == t.tasklet_shells.what ? &t.tasklet_shells : nullptr;
}

/// Where c is kept once its call has ended: a tasklet, if its slot is its own.
shell_list* list_for(worker_thread& t, const fiber_core* c) noexcept {
  if (is_tasklet(c->stack_class) &&
      !tasklet_frame_of(*c).home->exclusive.load(std::memory_order_relaxed))
    return nullptr;
  return list_of(t, c->stack_class);
}

fiber_core* pop_shell(shell_list& from) noexcept {
  fiber_core* const c = from.first;
  if (c == nullptr) return nullptr;
  from.first = c->next;
  --from.count;
  return c;
}

/// \throws std::bad_alloc
fiber_core* take_shell(worker_thread& t, stack_choice what) {
  if (shell_list* const list = list_of(t, what))
    if (fiber_core* const c = pop_shell(*list)) return c;
  return make_shell(t, what);
}

/// Inside the hold, if the thread has a worker.
void destroy_shell(worker_thread& t, worker* w, fiber_core* c) noexcept {
  fiber_frame* const frame = c->the_frame();
  c->frame.store(nullptr, std::memory_order_relaxed);
  c->host = nullptr;  // of its last call; for who looks whom a fiber is hosted by
  release_stack(t, w, frame, c->stack_class);
  free_shell_core(c, t);
}

void put_shell(shell_list& to, fiber_core* c) noexcept {
  c->next = to.first;
  to.first = c;
  ++to.count;
}

/// The end of a call that has used what few do: an id, a stop source, options, a stack of its own.
[[gnu::noinline]] void clean_shell(worker_thread& t, fiber_core* c) noexcept {
  reset_shell_core(c);
  shell_list* const list = list_for(t, c);
  if (list != nullptr && list->count < most_shells) {
    put_shell(*list, c);
    return;
  }
  const worker_use here;
  destroy_shell(t, t.guest ? nullptr : here.get(), c);
}

std::uintptr_t limit_of(const fiber_core* c) noexcept {
  if constexpr (segments_built)
    if (is_segmented(c->stack_class))
      return segment_at_end(c->the_frame()->slice, first_bytes(c->stack_class))->limit;
  return 0;
}

// ---- The fiber's side ------------------------------------------------------------------------

/// The end of one that has left its host, or has something to clear away.
[[gnu::noinline]] TENDRIL_NO_SPLIT platform::next_context end_slowly(fiber_core* self,
                                                                     const hot_ops* ops,
                                                                     hot_sink& sink) noexcept;
platform::next_context end_slowly(fiber_core* self, const hot_ops* ops, hot_sink& sink) noexcept {
  flow_locals& flow = self->the_frame()->block.flow;
  end_flow(flow);
  if (hot_call* const host = self->host) {
    if constexpr (segments_built)
      if (is_segmented(self->stack_class)) platform::tendril_give_back_segments();
    return return_context(self->ctx, host->ctx);
  }
  if (!self->extras.empty()) {  // see keep_lent(); the destructors of values may set others
    release_ambient(self->extras.take_inherited());
    end_flow(flow);
  }
  if (sink.state != nullptr) ops->finished(sink);
  ::new (static_cast<void*>(self->closure)) std::exception_ptr();
  return worker::end_current(hold_worker());
}

/// Not split, as worker::fiber_main. The body is on the caller's stack: not to be touched after the run.
TENDRIL_NO_SPLIT platform::next_context hot_main(void* transfer) noexcept;
platform::next_context hot_main(void* transfer) noexcept {
  enter_context();
  auto& body = *static_cast<hot_body*>(transfer);
  fiber_core* const self = body.fiber;
  const hot_ops* const ops = body.ops;
  hot_sink sink{body.result};
  body.sink = &sink;
  try {
    ops->run(body, sink);
  } catch (...) {
    ops->fail(sink, std::current_exception());
  }
  hot_call* const host = self->host;
  if (host == nullptr || is_segmented(self->stack_class) ||
      owns_anything(self->the_frame()->block.flow)) [[unlikely]]
    return end_slowly(self, ops, sink);
  return return_context(self->ctx, host->ctx);
}

// ---- The host's side -------------------------------------------------------------------------

/// The values that c was lent are the parent's, who goes on now and may drop them. Kept beside c's flow, not in its
/// word: scopes on c's stack may have saved that.
void keep_lent(const flow_locals& parent, fiber_core* c) noexcept {
  if (const std::uintptr_t kept = ambient_for_child(parent)) c->extras.inherit(kept);
}

/// c has left its host, whose thread is as before the call. See invariant 2.
[[gnu::noinline]] void finish_departure(worker_thread& t, const flow_locals& parent, fiber_core* c,
                                        hot_departure how, hot_body& body) noexcept {
  keep_lent(parent, c);  // first: what follows runs users' code, as the parent
  body.ops->suspended(body, *body.sink);
  note_new(c);  // before others can find it parked
  c->host = nullptr;
  scheduler& s = t.owner;
  const worker_use here;
  worker* const w = t.guest ? nullptr : here.get();
  if (w != nullptr) {
    if (c->id.load(std::memory_order_relaxed) == 0)
      c->id.store(w->take_id(), std::memory_order_relaxed);
    w->counters().spawned.add();
  } else {
    ensure_id(c);
    s.count_spawned_outside();
  }
  // Counted, then the look: request_stop() says so first, then looks for fibers. One of us sees the other.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (s.stopping()) {
    c->flags.fetch_or(flag::stop_requested, std::memory_order_relaxed);
    c->park.unpark();  // it is not parked yet: a permit
  }
  const bool slotted = is_tasklet(c->stack_class);
  slot* const home = slotted ? tasklet_frame_of(*c).home : nullptr;
  if (slotted) {
    tasklet_frame_of(*c).kind = kind_of(body.ops);
    guard_slot(*c, slot_low(*c));
    use_slots(t, w, [c](slot_table& slots, slot_cache& cache, made_runnable& others) {
      slots.leave(*c, cache, others);
      return true;
    });
  }
  if (how == hot_departure::park && c->park.commit_park()) {
    if (slotted && is_wanted(c))
      use_slots(t, w, [home](slot_table& slots, slot_cache& cache, made_runnable& others) {
        slots.leave_parked(*home, cache, others);
        return true;
      });
    return;
  }
  if (w != nullptr && how != hot_departure::move && c->affinity == affinity_any) w->push_back(c);
  else s.requeue(c);
}

[[gnu::noinline]] bool start_hot_slow(worker_thread* t, hot_body& body,
                                      const hot_options* options) {
  // A fiber that runs on its own runtime hosts by itself; everybody else's thread becomes a guest.
  if (t != nullptr && t->current != nullptr &&
      (options == nullptr || options->runtime == 0 || options->runtime == t->owner.serial())) {
    if (!t->on_own_stack())
      return t->guest && options != nullptr ? start_hot_on_guest(*t, body, options)
                                            : run_hot(*t, nullptr, body, options);
    if constexpr (segments_built) {  // native calls of the fiber must begin below the host's
      platform::stack_bounds bounds;
      platform::this_thread_stack(bounds);
      const thread_segments below(*t, bounds);
      return run_hot(*t, nullptr, body, options);
    }
  }
  return start_hot_as_guest(t, body, options);
}

/// The caller's context as the sanitizers see it. stack: on which the caller stands.
void describe_caller([[maybe_unused]] hot_call& call,
                     [[maybe_unused]] const context& stack) noexcept {
#if TENDRIL_ASAN
  call.ctx.stack_low = stack.stack_low;
  call.ctx.stack_bytes = stack.stack_bytes;
#endif
#if TENDRIL_TSAN
  call.ctx.tsan_fiber = __tsan_get_current_fiber();
#endif
}

/// c: a shell, off any list. Null: it has ended.
[[gnu::always_inline]] inline void* call_shell(worker_thread& t, hot_call& call,
                                               const context& stack, const wait_block& parent,
                                               fiber_core* c, std::uintptr_t limit,
                                               hot_body& body) noexcept {
  fiber_frame* const frame = c->the_frame();
  c->host = &call;
  body.fiber = c;
  frame->block.ambient_deadline = parent.ambient_deadline;
  frame->block.flow.ambient = ambient_to_lend(parent.flow);
  c->flags.store(t.owner.start_flags(), std::memory_order_relaxed);
  describe_caller(call, stack);
  std::byte* const top =
      is_tasklet(c->stack_class) ? frame->slice.high : reinterpret_cast<std::byte*>(frame);
  // Frames that were left by the last switch to a host.
  unpoison(frame->slice.low, static_cast<std::size_t>(top - frame->slice.low));
  fiber_core* const caller = t.current;
  const std::uint32_t pins = t.pins;
  t.current = c;
  t.pins = worker_thread::hot;
  void* const left = call_context(call.ctx, c->ctx, frame->slice.low, top, limit, &hot_main, &body);
  t.current = caller;
  t.pins = pins;
  if (left == nullptr) [[likely]] {
    c->ctx.destroy();
    c->flags.store(0, std::memory_order_relaxed);
  }
  return left;
}

/// Whether the call has left what the next one must not find.
bool is_used(const fiber_core* c) noexcept {
  return c->id.load(std::memory_order_relaxed) != 0 || !c->extras.empty();
}

/// The long way. c: a shell, off any list. list: to which it goes back if it needs no cleaning; null: it does.
bool run_on(worker_thread& t, const hot_outside* outside, fiber_core* c, shell_list* list,
            hot_body& body) noexcept {
  const wait_block& parent = outside != nullptr ? *outside->block : t.current->the_frame()->block;
  const context& stack = outside != nullptr ? *outside->stack : t.current->ctx;
  // A call inside a catch block, or in a destructor during unwinding: the fiber has thrown nothing yet.
  exception_state& globals = *t.slots.exceptions;
  const exception_state exceptions = std::exchange(globals, {});
  hot_call call;
  if (const worker_thread* const around = outside != nullptr ? outside->thread : &t) {
    call.caller = around->current;
    call.caller_is_hot = around->is_hot();
  }
  void* const left = call_shell(t, call, stack, parent, c, limit_of(c), body);
  globals = exceptions;  // the body may have left inside a catch block
  if (left != nullptr) [[unlikely]] {
    if (outside != nullptr) worker_thread::enter_as(outside->thread);
    finish_departure(t, parent.flow, c, call.how, body);
    return false;
  }
  if (list == nullptr || list->count >= most_shells || is_used(c)) [[unlikely]]
    clean_shell(t, c);
  else put_shell(*list, c);
  return true;
}

// ---- The short way -----------------------------------------------------------------------------
//
// Most calls: without options, outside of catch blocks, on a shell that lies ready and needs no preparations; by a
// fiber on a stack of such a kind, or a thread that is nobody's. Bookkeeping is 4 of their 10 ns, the two changes
// of stack with the control words 3.

[[gnu::always_inline]] inline bool is_usual(const worker_thread& t,
                                            const shell_list& list) noexcept {
  // Tasklets of some kinds get another stack: see run_hot().
  if (is_tasklet(list.what) && t.owner.slots().any_deep()) [[unlikely]]
    return false;
  const exception_state& globals = *t.slots.exceptions;
  return list.first != nullptr && !is_segmented(list.what) && globals.caught == nullptr &&
         globals.uncaught == 0;
}

[[gnu::noinline]] bool depart(worker_thread& t, shell_list& list, bool as_guest,
                              const flow_locals& parent, fiber_core* c, const hot_call& call,
                              hot_body& body) noexcept {
  --list.count;
  *t.slots.exceptions = {};  // it may have left inside a catch block
  if (as_guest) worker_thread::enter_as(nullptr);
  finish_departure(t, parent, c, call.how, body);
  return false;
}

/// Precondition: is_usual(t, list). The shell keeps its place in the list: its count stays.
[[gnu::always_inline]] inline bool run_usual(worker_thread& t, shell_list& list, bool as_guest,
                                             const context& stack, const wait_block& parent,
                                             hot_body& body) noexcept {
  fiber_core* const c = list.first;
  list.first = c->next;
  hot_call call;
  if (!as_guest) {
    call.caller = t.current;
    call.caller_is_hot = t.is_hot();
  }
  if (call_shell(t, call, stack, parent, c, 0, body) != nullptr) [[unlikely]]
    return depart(t, list, as_guest, parent.flow, c, call, body);
  if (is_used(c)) [[unlikely]] {
    --list.count;
    clean_shell(t, c);
    return true;
  }
  c->next = list.first;
  list.first = c;
  return true;
}

[[gnu::noinline]] bool start_from(const fiber_core& caller, worker_thread& t, shell_list& list,
                                  hot_body& body) noexcept {
  return run_usual(t, list, false, caller.ctx, caller.the_frame()->block, body);
}

/// g is entered; it is left here.
[[gnu::noinline]] bool start_as(guest& g, const wait_block& parent, hot_body& body) {
  if (!is_usual(g.thread, g.thread.shells)) [[unlikely]] {
    g.leave(false);
    return start_hot_as_guest(nullptr, body, nullptr);
  }
  const collected_hot_call collected(g.collected);
  g.entered_at = static_cast<std::byte*>(__builtin_frame_address(0));
  tls_thread = &g.thread;
  const bool ended = run_usual(g.thread, g.thread.shells, true, g.stack, parent, body);
  tls_thread = nullptr;
  g.leave(false);
  return ended;
}

/// The list whose shells are what the options ask for, here.
[[gnu::always_inline]] inline shell_list* plain_list(worker_thread& t,
                                                     const hot_options* options) noexcept {
  if (options == nullptr) [[likely]]
    return &t.shells;
  return options->stack_only && options->runtime == 0 ? list_of(t, options->stack_class) : nullptr;
}

}  // namespace

[[gnu::noinline]] bool run_hot(worker_thread& t, const hot_outside* outside, hot_body& body,
                               const hot_options* options) {
  stack_choice what = t.owner.default_stack_class();
  if (options != nullptr) {
    t.owner.check_affinity(options->affinity);
    if (options->stack_class != stack_class_default) what = options->stack_class;
  }
  if (is_tasklet(what) && t.owner.slots().is_deep(kind_of(body.ops))) [[unlikely]] {
    what = own_stack_of(what, t.owner.slots().size_class());
    const worker_use here;
    use_slots(t, t.guest ? nullptr : here.get(),
              [](slot_table&, slot_cache& cache, made_runnable&) {
                cache.own_stacks.add();
                return true;
              });
  }
  fiber_core* const c = take_shell(t, what);
  if (options != nullptr) {
    c->affinity = options->affinity;
    try {
      set_name(c, options->name);
    } catch (...) {
      clean_shell(t, c);
      throw;
    }
  }
  const bool as_it_was = options == nullptr || options->stack_only;
  return run_on(t, outside, c, as_it_was ? list_for(t, c) : nullptr, body);
}

[[gnu::noinline]] bool start_hot(hot_body& body, const hot_options* options) {
  worker_thread* const t = tls_thread;
  if (t != nullptr) {
    const fiber_core* const caller = t->current;
    if (caller != nullptr && !is_segmented(caller->stack_class)) [[likely]] {
      shell_list* const list = plain_list(*t, options);
      if (list != nullptr && is_usual(*t, *list)) [[likely]]
        return start_from(*caller, *t, *list, body);
    }
  } else if (guest* const g = tls_guests; g != nullptr && options == nullptr) {
    bool nested;
    if (g->serial == latest_serial() && tls_waiter != nullptr && g->enter(nested)) [[likely]] {
      if (!nested) [[likely]]
        return start_as(*g, tls_waiter->wait, body);
      g->leave(true);  // users' code that finish_departure() runs
    }
  }
  return start_hot_slow(t, body, options);
}

__attribute__((noinline)) void leave_host(worker_thread& t, hot_departure how) noexcept {
  fiber_core* const self = t.current;
  hot_call& host = *self->host;
  const flow_state flow(t.slots);
  host.how = how;
  if constexpr (segments_built)
    if (is_segmented(self->stack_class)) platform::tendril_give_back_segments();
  t.hold.leave();  // not the worker's business
  void* const back = switch_context(self->ctx, host.ctx, &host);
  worker::arrive(static_cast<worker*>(back), flow);
}

void free_shells(worker_thread& t, worker* here) noexcept {
  for (shell_list* const list : {&t.shells, &t.tasklet_shells})
    while (fiber_core* const c = pop_shell(*list)) destroy_shell(t, here, c);
}

void free_tasklet_shells(worker_thread& t, worker& here) noexcept {
  for (shell_list* const list : {&t.shells, &t.tasklet_shells})
    while (list->first != nullptr && is_tasklet(list->what))
      destroy_shell(t, &here, pop_shell(*list));
}

hot_options make_hot_options(const fiber_options& options) {
  hot_options o;
  if (!asks_for_nothing(options.stack)) o.stack_class = choose_stack_class(options.stack);
  o.affinity = checked_affinity(options.affinity);
  options.name.copy(o.name, sizeof o.name - 1);
  o.stack_only = options.affinity == affinity_any && options.name.empty();
  return o;
}

}  // namespace tendril::detail
