// SPDX-License-Identifier: Apache-2.0
//
// Which worker a thread holds, and how it can be taken away while the thread is blocked in code that is
// not ours and may come back at any instant. No signal is sent: it could end the foreign call with EINTR.
//
//   the thread                                   the claimant (one at a time, under the crew's lock)
//     enter:  inside = true                        held = claimed
//             light barrier                        heavy barrier
//             held?                                inside?
//               a worker: it is ours until leave     false: held = null, the worker is the claimant's
//               claimed:  ask under the lock         true:  held = the worker again
//               null:     it is gone
//     leave:  inside = false
//
// Invariants
//  1. What a worker owns (queues, timers, poller, caches) is touched only between enter() and leave(),
//     after enter() has returned the worker.
//  2. Dekker's: the thread stores inside and loads held, the claimant stores held and loads inside. With
//     a full barrier between on both sides one of the two sees the other. The thread's costs nothing,
//     because the claimant's is executed on every processor (platform/barrier.hpp): asymmetric, since one
//     side runs a hundred million times a second and the other a few times.
//  3. leave() releases and claim() acquires: whoever gets the worker sees all that the thread did to it.
//     A later store of inside by the thread cannot stand for an earlier one, as after the barrier it
//     no longer enters with the worker in its hands.
//  4. Between claim() and its decision the thread, when it comes, waits for the lock: never for longer than
//     a few microseconds.
//
// Regions nest (a poll's event unparks a fiber), so enter() tells whether it is the innermost. While a
// thread is inside, held may read `claimed` for a moment: a claim that is about to be withdrawn. So nobody
// may look at held without going the way of enter().
//
// Rejected: a compare-exchange on entering (5 ns, twice a switch); restartable sequences (they end with a
// switch of processors, not with a claim); asking the kernel whether the thread is blocked and taking the
// answer for a lock (it returns between the answer and the taking).
#pragma once

#include "base/atomics.hpp"
#include "platform/barrier.hpp"

#include <atomic>
#include <cstdint>

namespace tendril::detail {

/// std_atomics with the two sides of an asymmetric fence.
struct asymmetric_atomics : std_atomics {
  static void light_fence() noexcept { platform::light_barrier(); }
  /// False: it did not happen.
  static bool heavy_fence() noexcept { return platform::heavy_barrier(); }
};

template <class Worker, class Atomics = asymmetric_atomics>
class basic_worker_hold {
 public:
  basic_worker_hold() noexcept = default;
  basic_worker_hold(const basic_worker_hold&) = delete;
  basic_worker_hold& operator=(const basic_worker_hold&) = delete;

  struct entry {
    Worker* worker;
    bool nested;  ///< for leave()
  };
  /// Neither null nor the sign of a claim.
  static bool is_worker(const Worker* w) noexcept {
    return reinterpret_cast<std::uintptr_t>(w) > 1;
  }
  static bool is_claimed(const Worker* w) noexcept {
    return reinterpret_cast<std::uintptr_t>(w) == 1;
  }

  // The thread.
  entry enter() noexcept {
    const bool nested = inside_.load(std::memory_order_relaxed);
    return {enter_outermost(), nested};
  }
  Worker* enter_outermost() noexcept {
    inside_.store(true, std::memory_order_relaxed);
    Atomics::light_fence();  // the store before the load; pairs with claim()'s heavy fence
    // Acquire: pairs with withdraw(). What the claimant read of us it has read before we change it.
    return held_.load(std::memory_order_acquire);
  }
  void leave(bool nested = false) noexcept {
    inside_.store(nested, std::memory_order_release);  // pairs with claim()'s acquire
  }
  /// Inside, with a worker that nobody else holds.
  void take(Worker* w) noexcept {
    inside_.store(true, std::memory_order_relaxed);
    held_.store(w, std::memory_order_release);  // pairs with held(): who sees w sees us inside
  }
  /// Inside: gives the worker away. Under the lock.
  void drop() noexcept { held_.store(nullptr, std::memory_order_relaxed); }

  /// Under the lock nobody is in the middle of a claim.
  Worker* held() const noexcept { return held_.load(std::memory_order_acquire); }

  // The claimant, under the lock.
  /// A first look without the fence.
  bool looks_inside() const noexcept { return inside_.load(std::memory_order_relaxed); }
  /// True: the thread is not inside and cannot enter before finish_claim() or withdraw().
  bool claim(Worker* w) noexcept {
    held_.store(claim_sign(), std::memory_order_relaxed);
    if (Atomics::heavy_fence() && !inside_.load(std::memory_order_acquire)) return true;
    withdraw(w);
    return false;
  }
  void withdraw(Worker* w) noexcept { held_.store(w, std::memory_order_release); }
  void finish_claim() noexcept { held_.store(nullptr, std::memory_order_release); }

 private:
  static Worker* claim_sign() noexcept { return reinterpret_cast<Worker*>(std::uintptr_t{1}); }

  typename Atomics::template atomic<Worker*> held_{nullptr};
  typename Atomics::template atomic<bool> inside_{true};
};

}  // namespace tendril::detail
