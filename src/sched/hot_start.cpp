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

#include <tendril/detail/future_state.hpp>
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <algorithm>
#include <cstddef>
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

/// At the top of its stack, above its frames: where a collector looks, and what tasklets take along. Not of a tasklet
/// that is pinned, whose frame names another stack: hot_body::sink is right then, too.
hot_sink* sink_of(const fiber_core* c) noexcept {
  fiber_frame* const frame = c->the_frame();
  std::byte* const end =
      is_tasklet(c->stack_class) ? frame->slice.high : reinterpret_cast<std::byte*>(frame);
  return reinterpret_cast<hot_sink*>(end) - 1;
}
static_assert(sizeof(hot_sink) % 16 == 0, "frames begin below it");

/// The end of one that has left its host. transfer: the state of its future, or null.
[[gnu::noinline]] TENDRIL_NO_SPLIT platform::next_context end_left(void* transfer) noexcept;
platform::next_context end_left(void* transfer) noexcept {
  fiber_core* const self = current_fiber();
  flow_locals& flow = self->the_frame()->block.flow;
  end_flow(flow);
  if (!self->extras.empty()) {  // see keep_lent(); the destructors of values may set others
    release_ambient(self->extras.take_inherited());
    end_flow(flow);
  }
  if (auto* const state = static_cast<future_state_base*>(transfer)) {
    state->publish();
    state->release_producer();
  }
  ::new (static_cast<void*>(self->closure)) std::exception_ptr();
  return worker::end_current(hold_worker());
}

/// The end of one that has not left its host when its body returns, and has something to clear away: at that it may.
[[gnu::noinline]] TENDRIL_NO_SPLIT platform::next_context end_slowly(void* transfer) noexcept;
platform::next_context end_slowly(void* transfer) noexcept {
  fiber_core* const self = static_cast<hot_body*>(transfer)->fiber;
  end_flow(self->the_frame()->block.flow);
  hot_call* const host = self->host;
  if (host == nullptr) return end_left(sink_of(self)->state);
  if constexpr (segments_built)
    if (is_segmented(self->stack_class)) platform::tendril_give_back_segments();
  return return_context(self->ctx, host->ctx);
}
/// The same, where the body has returned to the host already.
TENDRIL_NO_SPLIT platform::next_context end_slowly_there(void* transfer) noexcept;
platform::next_context end_slowly_there(void* transfer) noexcept {
  enter_context();
  return end_slowly(transfer);
}

/// Not split, as worker::fiber_main. The body is on the caller's stack: gone if the fiber has left that.
TENDRIL_NO_SPLIT platform::next_context hot_main(void* transfer) noexcept;
platform::next_context hot_main(void* transfer) noexcept {
  enter_context();
  auto& body = *static_cast<hot_body*>(transfer);
  fiber_core* const self = body.fiber;
  const hot_sink end = body.ops->run(body);
  if (end.result == nullptr) return end_left(end.state);
  if (is_segmented(self->stack_class) || owns_anything(self->the_frame()->block.flow)) [[unlikely]]
    return end_slowly(transfer);
  return return_context(self->ctx, self->host->ctx);
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

/// c's call has ended.
void settle(fiber_core* c) noexcept {
  c->ctx.destroy();
  c->flags.store(0, std::memory_order_relaxed);
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

/// c, a shell off any list, gets what it needs for a call.
[[gnu::always_inline]] inline void prepare(worker_thread& t, hot_call& call, const context& stack,
                                           const wait_block& parent, fiber_core* c,
                                           fiber_frame* frame, hot_sink* sink,
                                           hot_body& body) noexcept {
  // Frames that were left by the last switch to a host.
  unpoison(frame->slice.low,
           static_cast<std::size_t>(reinterpret_cast<std::byte*>(sink + 1) - frame->slice.low));
  c->host = &call;
  body.fiber = c;
  body.sink = ::new (static_cast<void*>(sink)) hot_sink{body.result};
  frame->block.ambient_deadline = parent.ambient_deadline;
  frame->block.flow.ambient = ambient_to_lend(parent.flow);
  c->flags.store(t.owner.start_flags(), std::memory_order_relaxed);
  describe_caller(call, stack);
}

/// A prepared one is called. Null: it has ended.
void* call_shell(worker_thread& t, hot_call& call, fiber_core* c, std::uintptr_t limit,
                 platform::entry_function entry, hot_body& body) noexcept {
  fiber_core* const caller = t.current;
  const std::uint32_t pins = t.pins;
  t.current = c;
  t.pins = worker_thread::hot;
  void* const left =
      call_context(call.ctx, c->ctx, c->the_frame()->slice.low, sink_of(c), limit, entry, &body);
  t.current = caller;
  t.pins = pins;
  if (left == nullptr) [[likely]]
    settle(c);
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
  prepare(t, call, stack, parent, c, c->the_frame(), sink_of(c), body);
  void* const left = call_shell(t, call, c, limit_of(c), &hot_main, body);
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
// fiber on a stack of such a kind, or a thread that is nobody's.
//
// What they cost is the number of functions that they go through, 1 ns each with its return (Zen 5), the words that
// they store, and stmxcsr, 2 ns there. So it is one function that the caller calls, which changes to the stack where
// the first function is f's caller; what nobody has left behind is found out by one branch; and what is needed only
// when something is to be cleared away is computed only then, and not kept in registers that would have to be saved.
//
// Rejected: to inline the change of stacks into that function, or all of it into the thunk (no gain); to
// save no MXCSR, whose control bits the caller has to find as they were when f changes them and then waits.

/// As tendril_call_body calls it: of two words the same registers, whatever their names.
platform::body_function body_of(const hot_body& body) noexcept {
  static_assert(sizeof(hot_sink) == sizeof(platform::body_end) &&
                offsetof(hot_sink, result) == offsetof(platform::body_end, stays) &&
                offsetof(hot_sink, state) == offsetof(platform::body_end, rest));
  return reinterpret_cast<platform::body_function>(reinterpret_cast<void (*)()>(body.ops->run));
}

/// Whether the next call may take its shell from the list: one lies there, that is a stack like any other.
[[gnu::always_inline]] inline bool has_plain(const shell_list& list) noexcept {
  return list.first != nullptr && (list.what & (segmented_bit | tasklet_bit)) == 0;
}
/// The same of any stack.
bool has_usual(const worker_thread& t, const shell_list& list) noexcept {
  // Tasklets of some kinds get another stack: see run_hot().
  return list.first != nullptr && !is_segmented(list.what) &&
         !(is_tasklet(list.what) && t.owner.slots().any_deep());
}
[[gnu::always_inline]] inline bool nothing_thrown(const worker_thread& t) noexcept {
  const exception_state& globals = *t.slots.exceptions;
  return globals.caught == nullptr && globals.uncaught == 0;
}

/// Who calls: the fiber that t runs, or a plain thread, whose guest t is.
const wait_block& caller_of(const worker_thread& t) noexcept {
  return t.guest && t.current == nullptr ? tls_waiter->wait : t.current->the_frame()->block;
}

[[gnu::noinline]] bool depart(worker_thread& t, fiber_core* c, const hot_call& call,
                              hot_body& body) noexcept {
  --list_of(t, c->stack_class)->count;
  *t.slots.exceptions = {};  // it may have left inside a catch block
  const flow_locals& parent = caller_of(t).flow;
  if (call.caller == nullptr) worker_thread::enter_as(nullptr);
  finish_departure(t, parent, c, call.how, body);
  return false;
}

/// The end of a call after which there is something to clear away.
[[gnu::noinline]] bool end_used(worker_thread& t, fiber_core* c, hot_call& call,
                                hot_body& body) noexcept {
  if (!owns_anything(c->the_frame()->block.flow)) settle(c);
  else if (call_shell(t, call, c, 0, &end_slowly_there, body) != nullptr)
    return depart(t, c, call, body);
  --list_of(t, c->stack_class)->count;
  clean_shell(t, c);
  return true;
}

/// Whether c's call has left anything of that kind. One branch for all.
[[gnu::always_inline]] inline bool needs_clearing(const fiber_core* c,
                                                  const flow_locals& flow) noexcept {
  const std::uintptr_t owned = flow.ambient & ((flow.ambient & borrowed_bit) - 1);
  const std::uintptr_t extras = c->extras.empty() ? 0 : 1;
  return (c->id.load(std::memory_order_relaxed) | extras | owned |
          reinterpret_cast<std::uintptr_t>(flow.locals)) != 0;
}

/// Preconditions: has_usual(t, list), nothing_thrown(t). The shell keeps its place in the list: its count stays.
/// caller, pins: t's; null for a plain thread. plain: the list is.
[[gnu::always_inline]] inline bool run_usual(worker_thread& t, shell_list& list, fiber_core* caller,
                                             std::uint32_t pins, const context& stack,
                                             const wait_block& parent, hot_call& call, bool plain,
                                             hot_body& body) noexcept {
  fiber_core* const c = list.first;
  fiber_frame* const frame = c->the_frame();
  list.first = c->next;
  call.caller = caller;
  call.caller_is_hot = (pins & worker_thread::hot) != 0;
  hot_sink* const sink = plain ? reinterpret_cast<hot_sink*>(frame) - 1 : sink_of(c);
  prepare(t, call, stack, parent, c, frame, sink, body);
  t.current = c;
  t.pins = worker_thread::hot;
  void* const left = call_body(call.ctx, c->ctx, frame->slice.low, sink, &hot_main, body_of(body),
                               &body, &end_left);
  t.current = caller;
  t.pins = pins;
  if (left != nullptr) [[unlikely]]
    return depart(t, c, call, body);
  if (needs_clearing(c, c->the_frame()->block.flow)) [[unlikely]]
    return end_used(t, c, call, body);
  settle(c);
  c->next = list.first;
  list.first = c;
  return true;
}

/// By the fiber that t runs, which is not segmented.
[[gnu::noinline]] bool start_from(worker_thread& t, hot_body& body) noexcept {
  fiber_core* const caller = t.current;
  hot_call call;
  return run_usual(t, t.shells, caller, t.pins, caller->ctx, caller->the_frame()->block, call, true,
                   body);
}
/// The same with shells of any kind.
[[gnu::noinline]] bool start_from(worker_thread& t, shell_list& list, hot_body& body) noexcept {
  fiber_core* const caller = t.current;
  hot_call call;
  return run_usual(t, list, caller, t.pins, caller->ctx, caller->the_frame()->block, call, false,
                   body);
}

/// The list whose shells are what the options ask for, here. Null options: for nothing.
shell_list* list_asked_for(worker_thread& t, const hot_options* options) noexcept {
  if (options == nullptr) return &t.shells;
  return options->stack_only && options->runtime == 0 ? list_of(t, options->stack_class) : nullptr;
}

/// Where the quickest way does not go.
[[gnu::noinline]] bool start_hot_anyhow(hot_body& body, const hot_options* options) {
  worker_thread* const t = tls_thread;
  if (t != nullptr && t->current != nullptr && !is_segmented(t->current->stack_class)) {
    shell_list* const list = list_asked_for(*t, options);
    if (list != nullptr && has_usual(*t, *list) && nothing_thrown(*t))
      return start_from(*t, *list, body);
  }
  return start_hot_slow(t, body, options);
}

/// On a plain thread.
[[gnu::noinline]] bool start_as_guest(hot_body& body) {
  guest* const g = tls_guests;
  if (g == nullptr || g->serial != latest_serial() || tls_waiter == nullptr || !g->enter_quickly())
      [[unlikely]]
    return start_hot_anyhow(body, nullptr);
  worker_thread& t = g->thread;
  if (!has_plain(t.shells) || !nothing_thrown(t)) [[unlikely]] {
    g->leave_quickly();
    return start_hot_anyhow(body, nullptr);
  }
  hot_call call;
  if constexpr (segments_built) g->entered_at = reinterpret_cast<std::byte*>(&call);
  tls_thread = &t;
  const bool ended =
      run_usual(t, t.shells, nullptr, 0, g->stack, tls_waiter->wait, call, true, body);
  tls_thread = nullptr;
  g->leave_quickly();
  return ended;
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

[[gnu::noinline]] bool start_hot(hot_body& body) {
  worker_thread* const t = tls_thread;
  if (t == nullptr) return start_as_guest(body);
  const fiber_core* const caller = t->current;
  if (caller != nullptr && !is_segmented(caller->stack_class) && has_plain(t->shells) &&
      nothing_thrown(*t)) [[likely]]
    return start_from(*t, body);
  return start_hot_anyhow(body, nullptr);
}

[[gnu::noinline]] bool start_hot(hot_body& body, const hot_options& options) {
  return start_hot_anyhow(body, &options);
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
