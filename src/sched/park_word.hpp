// SPDX-License-Identifier: Apache-2.0
//
// The word on which one waiter (a fiber) and any number of wakers agree who schedules it.
//
//              unpark                commit_park
//     permit <-------- none ---------------------> parked
//        |               ^                            |
//        '--try_consume--'<---------- unpark ---------'   this unpark() returns true:
//         or commit_park                                  its caller schedules the waiter
//
// The waiter loops: check the condition; try_consume(); when that failed, switch away, and on the other
// stack, once the context is saved, commit_park(). A waker makes the condition true, then unpark()s.
//
// Invariants
//  1. parked is entered by commit_park() only, after the waiter's context is complete in memory, and
//     left by exactly one unpark(), which learns it by its return value. So no two workers ever run one
//     fiber, and no waker touches a context that is still being saved.
//  2. Whatever a waker wrote before unpark() is visible to the waiter when it next checks: every
//     unpark() is a read-modify-write with release, whatever the state was.
//  3. The word is type-stable and never reset by a plain store: a stray unpark() of a waiter that has
//     moved on, or of a recycled one, leaves a permit, which costs its next wait one turn of the loop.
//     Hence every wait loops on its condition; none takes being resumed as proof.
//
// A parked waiter can be *held* (try_hold, release_hold) by one that moves its stack: to wakers it looks like one
// that runs. Holders are excluded from each other by the lock of the slot, see slots.hpp.
//
// Encoding: a count, -1 parked, 0 none, above 0 permit. unpark() is then one unconditional fetch_add:
// wait-free, and exactly the arrows above. An exchange(permit) cannot go parked -> none at once, and the
// plain store of none that would have to follow erases a second waker's permit; a compare-exchange loop
// can fail under contention. 64 bits, because 32 overflow after ten seconds of unparking a busy fiber.
#pragma once

#include <cstdint>

#include "base/atomics.hpp"
#include "base/check.hpp"

namespace tendril::detail {

template <class Atomics = std_atomics>
class basic_park_word {
 public:
  basic_park_word() noexcept = default;
  basic_park_word(const basic_park_word&) = delete;
  basic_park_word& operator=(const basic_park_word&) = delete;

  /// Any thread. True: the waiter was parked and the caller now owns the right, and has the duty, to
  /// schedule it. False: it runs or is being scheduled by another; a permit is left for it.
  bool unpark() noexcept {
    // Acquire pairs with commit_park()'s release: whoever moves parked -> none sees the saved context.
    // Release pairs with the acquire in try_consume() and commit_park(): the waiter sees the condition.
    //
    // Why not return early when a load shows a permit already there? Two wakers, A and B. A left the
    // permit. B makes its condition true, loads "permit", and returns: a load publishes nothing, B's
    // write may still sit in its store buffer. The waiter consumes A's permit, checks, misses B's
    // write, and parks. Then B's write arrives and nobody unparks for it: a lost wake-up. As a
    // read-modify-write B's unpark() is either before the consumption (which then acquires B's write,
    // the additions forming one release sequence) or after it (and leaves a new permit).
    return word_.fetch_add(1, std::memory_order_acq_rel) == parked;
  }

  /// The waiter. True when there was a permit; it is used up, and the condition is worth another look.
  bool try_consume() noexcept {
    // Relaxed look, as it decides nothing: commit_park() will see a permit that it misses.
    if (word_.load(std::memory_order_relaxed) == none) return false;
    // Acquire: what all the wakers whose additions we take wrote before. An exchange and not a
    // subtraction of what we saw: any number of wake-ups make one permit.
    word_.exchange(none, std::memory_order_acquire);
    return true;
  }

  /// On behalf of the waiter, by the worker that has just switched away from it. True: it is parked, and
  /// may already be running elsewhere: the caller must not touch it again. False: there was a permit,
  /// now used up; the caller makes the waiter runnable again at once.
  bool commit_park() noexcept {
    // Release publishes the saved context to the unpark() that will find parked; acquire is for the
    // permit, as in try_consume().
    const std::int64_t before = word_.fetch_sub(1, std::memory_order_acq_rel);
    TENDRIL_ASSERT(before != parked, "a parked waiter does not park");
    if (before == none) return true;
    // Only when several wake-ups came within the few instructions since try_consume().
    if (before > 1) word_.exchange(none, std::memory_order_acquire);
    return false;
  }

  /// Any thread that has something to do to the stack of a parked waiter. True: it was parked, and until
  /// release_hold() it stays so: an unpark() leaves a permit, and nobody schedules it.
  bool try_hold() noexcept {
    std::int64_t expected = parked;
    if (word_.compare_exchange_strong(expected, held, std::memory_order_acq_rel,
                                      std::memory_order_relaxed))
      return true;
    // A read-modify-write, as the exchange that failed was not: either commit_park() comes after it, and
    // acquires what its caller wrote before (the wish that the waiter looks for after its commit), or it
    // sees parked.
    if (word_.fetch_add(0, std::memory_order_acq_rel) != parked) return false;
    expected = parked;
    return word_.compare_exchange_strong(expected, held, std::memory_order_acq_rel,
                                         std::memory_order_relaxed);
  }

  /// Ends a successful try_hold(). True: it was unparked meanwhile, and the caller has the duty to schedule it.
  bool release_hold() noexcept {
    // Release: who unparks it now sees what was done to its stack.
    std::int64_t expected = held;
    if (word_.compare_exchange_strong(expected, parked, std::memory_order_acq_rel,
                                      std::memory_order_acquire))
      return false;
    // As in unpark() of a parked waiter: the first wake-up schedules it, those after it are part of it,
    // for the waiter looks again before it parks again.
    word_.exchange(none, std::memory_order_acq_rel);
    return true;
  }

  /// A guess, for dumps and statistics.
  bool looks_parked() const noexcept { return word_.load(std::memory_order_relaxed) < none; }

 private:
  static constexpr std::int64_t held = std::int64_t{-1} << 62;  ///< plus the permits since
  static constexpr std::int64_t parked = -1;
  static constexpr std::int64_t none = 0;

  typename Atomics::template atomic<std::int64_t> word_{none};
};

using park_word = basic_park_word<>;

}  // namespace tendril::detail
