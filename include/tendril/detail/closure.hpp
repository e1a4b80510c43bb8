// SPDX-License-Identifier: Apache-2.0
//
// How a callable becomes a fiber's body. A fiber's core has room for a small callable; a larger one
// goes to the heap. At the fiber's start the callable is moved onto the fiber's own stack, so that
// its captures are ordinary locals from then on.
#pragma once

#include <tendril/config.hpp>

#include <atomic>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace tendril::detail {

struct fiber_core;
class scheduler;

/// What the core does with the callable it carries.
struct closure_ops {
  /// Moves the callable out, or uses it there, and invokes it; may throw. `which`: where the core has this; null when
  /// there is nothing (any more) to be looked at in the core.
  void (*run)(void* storage, const closure_ops*& which);
  void (*destroy)(void* storage) noexcept;  ///< for a fiber that never started
  /// 0: the callable is in the core, and moves to the fiber's stack at its start. Else it stays on the heap while
  /// the fiber lives, so large, and its address is in the core: null before and after.
  std::size_t heap_bytes = 0;
};

inline constexpr std::size_t inline_closure_bytes = 48;

/// \throws std::bad_alloc
TENDRIL_API fiber_core* allocate_core();
TENDRIL_API void free_unstarted_core(fiber_core*) noexcept;
/// The inline_closure_bytes of the core, aligned to 16.
TENDRIL_API void* closure_storage(fiber_core*) noexcept;
/// Before the callable is made: from here on the core is looked at by who inspects parked fibers (inspect.hpp), who
/// must not miss what it captures.
TENDRIL_API void set_closure(fiber_core*, const closure_ops*) noexcept;
/// Queues the fiber; it frees itself at its end. s == null: the current runtime.
/// \throws std::system_error errc::no_runtime, errc::runtime_stopping; the core is freed then
TENDRIL_API void start_detached(fiber_core*, scheduler* s);
/// Queues the fiber; its handle joins or detaches it later.
TENDRIL_API void start_joinable(fiber_core*, scheduler* s);

template <class F>
inline constexpr bool fits_inline = sizeof(F) <= inline_closure_bytes &&
                                    alignof(F) <= 16 && std::is_nothrow_move_constructible_v<F>;

template <class F>
struct inline_closure {
  static void run(void* storage, const closure_ops*& which) {
    F* source = std::launder(static_cast<F*>(storage));
    F f(std::move(*source));
    source->~F();
    std::atomic_signal_fence(std::memory_order_release);  // it is elsewhere first: inspect.hpp
    which = nullptr;
    f();
  }
  static void destroy(void* storage) noexcept { std::launder(static_cast<F*>(storage))->~F(); }
  static constexpr closure_ops ops{&run, &destroy};
};

template <class F>
struct heap_closure {
  static void run(void* storage, const closure_ops*& which) {
    struct owner {
      void* storage;
      const closure_ops*& which;
      ~owner() {
        destroy(storage);
        which = nullptr;
      }
    };
    const owner o{storage, which};
    (**static_cast<F**>(storage))();
  }
  static void destroy(void* storage) noexcept {
    F*& place = *static_cast<F**>(storage);
    F* const f = place;
    std::destroy_at(f);
    place = nullptr;  // who inspects the fiber does not read what is freed
    std::allocator<F>().deallocate(f, 1);
  }
  static constexpr closure_ops ops{&run, &destroy, sizeof(F)};
};

/// A core that carries f, not yet queued.
template <class F>
fiber_core* make_fiber_core(F&& f) {
  using D = std::decay_t<F>;
  static_assert(std::is_invocable_v<D&>,
                "a fiber's body takes no arguments; bind them in a lambda");
  fiber_core* core = allocate_core();
  if constexpr (fits_inline<D> && std::is_nothrow_constructible_v<D, F&&>) {
    set_closure(core, &inline_closure<D>::ops);
    ::new (closure_storage(core)) D(std::forward<F>(f));
  } else {
    std::allocator<D> memory;
    D* heap = nullptr;
    try {
      heap = memory.allocate(1);
      *static_cast<D**>(closure_storage(core)) = heap;
      set_closure(core, &heap_closure<D>::ops);
      ::new (static_cast<void*>(heap)) D(std::forward<F>(f));
    } catch (...) {
      set_closure(core, nullptr);
      if (heap != nullptr) memory.deallocate(heap, 1);
      free_unstarted_core(core);
      throw;
    }
  }
  return core;
}

}  // namespace tendril::detail
