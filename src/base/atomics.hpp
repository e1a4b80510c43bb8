// SPDX-License-Identifier: Apache-2.0
//
// The policy through which lock-free code reaches atomics.
//
// Every lock-free structure here is a template on such a policy, so that the explorer in tests/model
// runs the very code that ships, with atomics whose every operation is a scheduling point. The other
// way, a macro or a namespace alias switched per build, would give one program two definitions of the
// same class. A policy offers
//
//     atomic<T>         the interface of std::atomic<T>
//     fence_seq_cst()   std::atomic_thread_fence(seq_cst)
//     spin_pause()      inside a short spin: tell the core that we wait
//     spin_yield()      in a spin that went on for long: give the processor away
#pragma once

#include <tendril/detail/sanitizers.hpp>

#include <atomic>
#include <thread>

#include "base/yield.hpp"

namespace tendril::detail {

struct std_atomics {
  template <class T>
  using atomic = std::atomic<T>;

  static void fence_seq_cst() noexcept {
#if TENDRIL_TSAN
    // ThreadSanitizer does not model fences (gcc says so in a warning). A read-modify-write of one
    // common word orders at least as much, and the tool understands it.
    static std::atomic<unsigned> order{0};
    order.fetch_add(0, std::memory_order_seq_cst);
#else
    std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
  }

  static void spin_pause() noexcept {
    // A question to the compiler, not to the processor's name; without the builtin the spin is merely
    // less polite to the sibling hyperthread.
#if __has_builtin(__builtin_ia32_pause)
    __builtin_ia32_pause();
#elif __has_builtin(__builtin_arm_yield)
    __builtin_arm_yield();
#else
    std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
  }

  static void spin_yield() noexcept { yield_thread(); }
};

}  // namespace tendril::detail
