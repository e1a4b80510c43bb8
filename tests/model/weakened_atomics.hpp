// SPDX-License-Identifier: Apache-2.0
//
// Policies that forget one memory order. A protocol that still passes with one of them does not need
// that order, or its model test does not look where it matters: every protocol's test has a case for
// either that must fail.
#pragma once

#include <atomic>

#include "model/explorer.hpp"

namespace tendril::model {

template <bool Release, bool Acquire>
struct weakened_atomics {
  static constexpr std::memory_order weaken(std::memory_order order) {
    if (order == std::memory_order_acq_rel) {
      if (!Release && !Acquire) return std::memory_order_relaxed;
      if (!Release) return std::memory_order_acquire;
      if (!Acquire) return std::memory_order_release;
    }
    if (order == std::memory_order_release && !Release) return std::memory_order_relaxed;
    if (order == std::memory_order_acquire && !Acquire) return std::memory_order_relaxed;
    return order;
  }

  template <class T>
  class atomic : public model::atomic<T> {
    using base = model::atomic<T>;

   public:
    using base::base;
    T load(std::memory_order order) const noexcept { return base::load(weaken(order)); }
    void store(T value, std::memory_order order) noexcept { base::store(value, weaken(order)); }
    T exchange(T value, std::memory_order order) noexcept {
      return base::exchange(value, weaken(order));
    }
    T fetch_add(T value, std::memory_order order) noexcept {
      return base::fetch_add(value, weaken(order));
    }
    T fetch_sub(T value, std::memory_order order) noexcept {
      return base::fetch_sub(value, weaken(order));
    }
    bool compare_exchange_strong(T& expected, T desired, std::memory_order success,
                                 std::memory_order failure) noexcept {
      return base::compare_exchange_strong(expected, desired, weaken(success), weaken(failure));
    }
  };

  static void fence_seq_cst() noexcept { model::fence_seq_cst(); }
  static void spin_pause() noexcept { model::spin(); }
  static void spin_yield() noexcept { model::spin(); }
};

using no_release = weakened_atomics<false, true>;
using no_acquire = weakened_atomics<true, false>;

}  // namespace tendril::model
