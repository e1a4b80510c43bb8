// SPDX-License-Identifier: Apache-2.0
//
// tendril::gc: the Boehm-Demers-Weiser collector finds what fibers refer to.
//
//     int main() {
//       tendril::gc::enable();                       // first of all: before any runtime
//       tendril::run([] {
//         auto* node = new (GC) struct node;         // <gc/gc_cpp.h>; held by a stack, that is enough
//         ...
//       });
//     }
//
// An optional header: link tendril::gc (the component `gc` of the package), which brings the collector.
//
// What it does. Threads that run fibers are registered with the collector: those of runtimes, spare ones as well, when
// they begin, others when the beginning of a thunk first runs on them, until they end. At each collection the memory of
// fibers that do not run is pushed (<tendril/inspect.hpp> lists what that is), and of each stopped thread the stacks
// that it runs on. A procedure that GC_set_push_other_roots had before goes on being called.
//
// Modes. aged: in the collector's generational mode (GC_enable_incremental) a young collection keeps the marks of the
// one before, so what a stack that has not changed since refers to is marked already: only fibers that are new or have
// run since are pushed. That a collection is a full one is told by the collector's start callback (one that was there
// before goes on being called), and, should a program replace it, by an object of ours that is not marked any more. In
// a collector that is not generational every collection is a full one. naive: everything every time.
//
// What it does not see: references on the heap of malloc, where the standard library's containers, channels' buffers,
// futures' states, ambient values and the callable of runtime::run live. With gc_allocator and GC_MALLOC_UNCOLLECTABLE
// they are seen as in any program with this collector. Its global operator new (libgctba) is not for programs with
// runtimes, which would lose memory of their own. Code that runs in blocking() and other pool work is on threads that
// the collector does not know: it must neither allocate nor hold the only reference.
//
// On a fiber, GC_do_blocking and GC_call_with_gc_active are not to be used: they remember the stack of the thread.
// docs/collector.md has the details.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/stopped_threads.hpp>
#include <tendril/inspect.hpp>

#ifndef GC_THREADS
#define GC_THREADS
#endif
// Its macros for pthread_create and its kin are for the program to choose.
#ifndef GC_NO_THREAD_REDIRECTS
#define GC_NO_THREAD_REDIRECTS
#define TENDRIL_GC_UNDO_REDIRECTS
#endif
#include <gc/gc.h>
#include <gc/gc_mark.h>
#ifdef TENDRIL_GC_UNDO_REDIRECTS
#undef GC_NO_THREAD_REDIRECTS
#undef TENDRIL_GC_UNDO_REDIRECTS
#endif

#include <atomic>
#include <cstdint>

namespace tendril::gc {

enum class mode {
  naive,  ///< every parked stack is looked through in every collection
  aged,   ///< in young collections only those that have changed since the last
};

namespace detail {

struct state {
  std::atomic<mode> how{mode::aged};
  GC_push_other_roots_proc before = nullptr;
  GC_start_callback_proc start_before = nullptr;
  bool is_full =
      true;  ///< marks have been cleared since roots were pushed; the collector's lock guards it
  parked_epoch epoch = parked_epoch::none;
  std::uintptr_t sentinel = 0;  ///< the complement of its address: not to be found by looking
  std::uint64_t bytes =
      0;  ///< pushed since the collector's program began; the collector's lock guards it
  std::atomic<std::uint64_t> last_bytes{0};
  std::atomic<std::uint64_t> full{0};
  std::atomic<std::uint64_t> young{0};
};
inline state the_state;

inline void push(const void* low, const void* high) noexcept {
  the_state.bytes +=
      static_cast<std::uint64_t>(static_cast<const char*>(high) - static_cast<const char*>(low));
  // At once: what is put on the collector's mark stack instead may be dropped when that overflows.
  GC_push_all_eager(const_cast<void*>(low), const_cast<void*>(high));
}

inline void set_bottom(void* handle, const void* bottom) noexcept {
  const GC_stack_base base{const_cast<void*>(bottom)};
  GC_set_stackbottom(handle, &base);
}

inline void* enter(const void*& bottom, bool& entered) noexcept {
  GC_stack_base base{};
  entered = GC_thread_is_registered() == 0;
  if (entered &&
      (GC_get_stack_base(&base) != GC_SUCCESS || GC_register_my_thread(&base) != GC_SUCCESS))
    return nullptr;
  void* const handle = GC_get_my_stackbottom(&base);
  bottom = base.mem_base;
  return handle;
}
inline void leave() noexcept {
  if (GC_thread_is_registered() != 0) GC_unregister_my_thread();
}

inline void rest(tendril::detail::rest_step wait, tendril::detail::rest_step over,
                 void* argument) noexcept {
  struct call {
    tendril::detail::rest_step step;
    void* argument;
    static void* GC_CALLBACK make(void* self) {
      const auto& c = *static_cast<const call*>(self);
      c.step(c.argument);
      return nullptr;
    }
  };
  call first{wait, argument};
  if (GC_thread_is_registered() != 0) GC_do_blocking(&call::make, &first);
  else wait(argument);
  if (over == nullptr) return;
  call last{over, argument};
  GC_call_with_alloc_lock(&call::make, &last);
}

/// With the collector's lock held, when a full collection begins.
inline void GC_CALLBACK note_full() {
  the_state.is_full = true;
  if (the_state.start_before != nullptr) the_state.start_before();
}

/// With the collector's lock held.
inline void GC_CALLBACK push_roots() {
  // A collection that takes too long goes on while threads run, which marks in advance what it can: not from stacks
  // that change. It stops them at its end and comes here again.
  if (!tendril::detail::threads_are_stopped()) return;
  state& s = the_state;
  s.bytes = 0;
  auto* const sentinel = reinterpret_cast<void*>(~s.sentinel);
  // The mark alone would not do: the collector looks through its own frames before, and may find the address there.
  const bool is_young = !s.is_full && GC_is_marked(sentinel) != 0;
  if (s.how.load(std::memory_order_relaxed) == mode::aged)
    s.epoch = for_each_parked(push, is_young ? s.epoch : parked_epoch::none);
  else for_each_parked(push);
  GC_set_mark_bit(sentinel);
  s.is_full = false;
  s.last_bytes.store(s.bytes, std::memory_order_relaxed);
  (is_young ? s.young : s.full).fetch_add(1, std::memory_order_relaxed);
  auto visit = [](const void* low, const void* high) { push(low, high); };
  tendril::detail::visit_stopped_threads(tendril::detail::visitor_of(visit), &set_bottom);
  if (s.before != nullptr) s.before();
  tendril::detail::restore_bottoms(&set_bottom);
}

}  // namespace detail

/// Initializes the collector if that has not been done, and makes it see fibers from now on.
///
/// \pre     on the main thread, while no runtime exists
/// \throws std::system_error  std::errc::operation_not_permitted: called twice, or the collector does not stop threads
///                            by a signal
inline void enable(mode how = mode::aged) {
  GC_init();
  GC_allow_register_threads();
  detail::state& s = detail::the_state;
  tendril::detail::observe_threads({&detail::enter, &detail::leave, &detail::rest},
                                   GC_get_suspend_signal());
  auto pass_by = [](const void* low, const void* high) {
    GC_exclude_static_roots(const_cast<void*>(low), const_cast<void*>(high));
  };
  tendril::detail::visit_static_tables(tendril::detail::visitor_of(pass_by));
  s.how.store(how, std::memory_order_relaxed);
  s.sentinel = ~reinterpret_cast<std::uintptr_t>(GC_malloc_atomic(16));
  s.before = GC_get_push_other_roots();
  s.start_before = GC_get_start_callback();
  GC_set_start_callback(&detail::note_full);
  GC_set_push_other_roots(&detail::push_roots);
}

/// Changes the mode, from the next collection on. Any thread; a young collection after naive ones knows what has run since
/// the last aged one.
inline void set_mode(mode how) noexcept {
  detail::the_state.how.store(how, std::memory_order_relaxed);
}

/// What has been done so far.
struct counts {
  std::uint64_t full;          ///< collections that looked at everything
  std::uint64_t young;         ///< collections that kept marks
  std::uint64_t parked_bytes;  ///< of fibers that did not run, pushed in the last of either
};
/// Any thread; while a collection runs the figures need not fit together.
inline counts collections() noexcept {
  const detail::state& s = detail::the_state;
  return {s.full.load(std::memory_order_relaxed), s.young.load(std::memory_order_relaxed),
          s.last_bytes.load(std::memory_order_relaxed)};
}

}  // namespace tendril::gc
