// SPDX-License-Identifier: Apache-2.0
//
// The word of a future's state that says who still needs it, and through which a stop request reaches
// the producer without keeping it alive.
//
//   readers (24 bits)  futures, and who has borrowed the state for a moment
//   producer           the promise, the fiber or the continuation that will write the result
//   locked             somebody looks at what the lock guards; a few instructions, never a park
//   requested          the producer has been asked to stop; at most once
//   closed             the producer is at its end: what the lock guards is about to go
//   hooked             the promise has left a hook in the result's room (guarded by the lock)
//
// Invariants
//  1. Who clears the last of readers and producer destroys the state, and sees all that others did.
//  2. The producer does not go, nor close, while the word is locked. So a request, which locks, may use
//     what the producer is made of (a fiber's control block, the futures it waits for) until it unlocks,
//     though that may be gone an instant later; and the producer's ordinary end pays one
//     read-modify-write, which it needs for its reference anyway.
//  3. The lock is not taken once there is no producer, or while closed. A request that comes while closed is
//     noted, and who opens again learns of it.
//  4. hooked implies that there is a reader, or that one is on its way to run the hook.
//
// Rejected: a std::stop_source in each state (an allocation, and most futures are never cancelled); a
// lock beside the count (its own read-modify-write at every producer's end).
#pragma once

#include <tendril/config.hpp>

#include <atomic>
#include <cstdint>

namespace tendril::detail {

/// The policy for what ships; a model puts its own in place.
struct life_atomics {
  template <class T>
  using atomic = std::atomic<T>;
  TENDRIL_API static void spin_pause() noexcept;
};

template <class Atomics = life_atomics>
class basic_state_life {
 public:
  enum class last_reader { no, destroy, has_hook };
  enum class request_result {
    refused,  ///< asked before, or there is no producer any more
    noted,    ///< nothing to call now
    locked,   ///< the caller tells the producer and unlocks
  };

  // ---- Readers ------------------------------------------------------------------------------

  /// For who holds a reference, or the lock over who does.
  void add_reader() noexcept { word_.fetch_add(1, std::memory_order_relaxed); }

  /// has_hook: the reader has not gone; it runs the hook (by a request) and calls again.
  last_reader release_reader() noexcept {
    // Acquire here and in the failed exchange: what the others did with the state comes before its end.
    std::uint32_t w = word_.load(std::memory_order_acquire);
    for (;;) {
      // The other side gone, nobody can revive the count: a load suffices for the last.
      if ((w & (readers_mask | producer)) == 1) return last_reader::destroy;
      if ((w & hooked) != 0 && (w & readers_mask) == 1) [[unlikely]]
        return last_reader::has_hook;
      if (word_.compare_exchange_weak(w, w - 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
        return last_reader::no;
    }
  }

  request_result request() noexcept {
    std::uint32_t w = word_.load(std::memory_order_acquire);
    for (;;) {
      if ((w & requested) != 0 || (w & producer) == 0) return request_result::refused;
      if ((w & locked) != 0) {
        w = pause();
        continue;
      }
      const std::uint32_t want = w | requested | ((w & closed) != 0 ? 0 : locked);
      if (word_.compare_exchange_weak(w, want, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
        return (want & locked) != 0 ? request_result::locked : request_result::noted;
    }
  }
  /// False: there is nothing to look at.
  bool lock_if_open() noexcept {
    std::uint32_t w = word_.load(std::memory_order_acquire);
    for (;;) {
      if ((w & closed) != 0 || (w & producer) == 0) return false;
      if ((w & locked) != 0) {
        w = pause();
        continue;
      }
      if (word_.compare_exchange_weak(w, w | locked, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
        return true;
    }
  }
  void unlock() noexcept { word_.fetch_sub(locked, std::memory_order_release); }

  // ---- The producer -------------------------------------------------------------------------

  /// True: destroy.
  bool release_producer() noexcept {
    std::uint32_t w = word_.load(std::memory_order_acquire);
    for (;;) {
      if ((w & (readers_mask | producer)) == producer) return true;
      if ((w & locked) != 0) [[unlikely]] {
        w = pause();
        continue;
      }
      if (word_.compare_exchange_weak(w, w - producer, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
        return false;
    }
  }
  /// From here on nobody looks at what the lock guards.
  void close() noexcept {
    std::uint32_t w = word_.load(std::memory_order_acquire);
    for (;;) {
      if ((w & locked) != 0) [[unlikely]] {
        w = pause();
        continue;
      }
      if (word_.compare_exchange_weak(w, w | closed, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
        return;
    }
  }
  /// The opposite: what the lock guards is in place again. True: a request came meanwhile or before.
  bool open() noexcept {
    return (word_.fetch_sub(closed, std::memory_order_acq_rel) & requested) != 0;
  }
  /// The lock, for the producer itself.
  void lock() noexcept {
    std::uint32_t w = word_.load(std::memory_order_relaxed);
    for (;;) {
      if ((w & locked) != 0) {
        w = pause();
        continue;
      }
      if (word_.compare_exchange_weak(w, w | locked, std::memory_order_acquire,
                                      std::memory_order_relaxed))
        return;
    }
  }
  /// Unlocks with a hook in place. False: nobody is left to run it.
  bool unlock_hooked() noexcept {
    std::uint32_t w = word_.load(std::memory_order_relaxed);
    while (!word_.compare_exchange_weak(w, (w | hooked) & ~locked, std::memory_order_acq_rel,
                                        std::memory_order_relaxed)) {
    }
    return (w & readers_mask) != 0;
  }
  /// Unlocks; whoever called has taken the hook out.
  void unlock_unhooked() noexcept { word_.fetch_sub(locked | hooked, std::memory_order_release); }

  // ---- A look -------------------------------------------------------------------------------

  bool is_hooked() const noexcept { return (load() & hooked) != 0; }
  bool is_requested() const noexcept { return (load() & requested) != 0; }
  bool has_readers() const noexcept { return (load() & readers_mask) != 0; }

 private:
  static constexpr std::uint32_t readers_mask = (1U << 24) - 1;
  static constexpr std::uint32_t producer = 1U << 24;
  static constexpr std::uint32_t locked = 1U << 25;
  static constexpr std::uint32_t requested = 1U << 26;
  static constexpr std::uint32_t closed = 1U << 27;
  static constexpr std::uint32_t hooked = 1U << 28;

  std::uint32_t load() const noexcept { return word_.load(std::memory_order_acquire); }
  std::uint32_t pause() noexcept {
    Atomics::spin_pause();
    return load();
  }

  typename Atomics::template atomic<std::uint32_t> word_{producer | 1};
};

using state_life = basic_state_life<>;

}  // namespace tendril::detail
