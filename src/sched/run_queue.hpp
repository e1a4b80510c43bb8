// SPDX-License-Identifier: Apache-2.0
//
// A worker's own queue of runnable fibers: a bounded FIFO ring with one owner and any number of thieves.
//
//      head_ (all compare-exchange)             tail_ (owner stores)
//        v                                        v
//     +--+----+----+----+----+----+----+----+----+--+      positions only grow; slot = position mod
//     |  | f0 | f1 | f2 | f3 | f4 | f5 | f6 | f7 |  |      Capacity
//     +--+----+----+----+----+----+----+----+----+--+
//        '--- a thief's half ---'
//
// Who may call what: push, pop, pop_exclusive, pop_half: the owner. steal_into: the owner of another
// queue, which it passes as `mine`. size, empty: anyone, as a guess.
//
// Invariants
//  1. 0 <= tail - head <= Capacity. tail is written by the owner alone; head moves by compare-exchange
//     only (but see pop_exclusive), and only forward: 64 bits never wrap, so a head that compares equal
//     has not moved since it was read: no ABA.
//  2. A slot in [head, tail) is not written. The owner overwrites the slot of position p only after it
//     has seen head beyond p.
//  3. Whoever moves head over a position owns the fiber there. A taker reads slots first and moves head
//     afterwards; if the move fails, what it read is void. Slots are atomic only because such a void
//     read may race with the owner's overwriting.
//
// Rejected: a Chase-Lev deque (the owner's end is LIFO, which starves whoever waits longest; takes one
// element a theft); a mutex (two locked operations where push needs none); growth (a full queue means
// that others should have a share: the owner moves half of it to the injection queue).
#pragma once

#include <array>

#include <cstddef>
#include <cstdint>

#include "base/atomics.hpp"
#include "base/cacheline.hpp"
#include "base/check.hpp"

namespace tendril::detail {

template <class T, std::size_t Capacity = 256, class Atomics = std_atomics>
class basic_run_queue {
  static_assert(Capacity >= 2 && (Capacity & (Capacity - 1)) == 0,
                "the capacity of a run queue is a power of two");

 public:
  static constexpr std::size_t capacity = Capacity;

  basic_run_queue() noexcept = default;
  basic_run_queue(const basic_run_queue&) = delete;
  basic_run_queue& operator=(const basic_run_queue&) = delete;

  /// Owner: appends. False when full: take half out with pop_half(), share it, and push again.
  bool push(T* element) noexcept {
    const std::uint64_t tail =
        tail_.load(std::memory_order_relaxed);  // ours: nobody else writes it
    // Pairs with the release in take(): a thief that moved head beyond a slot has finished reading it.
    // With relaxed, our store below could overtake that read and hand it a fiber that is still queued.
    const std::uint64_t head = head_.load(std::memory_order_acquire);
    if (tail - head >= Capacity) return false;
    slot(tail).store(element, std::memory_order_relaxed);  // published by the next line
    // Pairs with the acquire of tail in steal_into(): slot and fiber are complete when a thief sees it.
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }

  /// What follows the element that was popped, or nullptr. A guess: a thief may own it by now, so it is good
  /// for prefetching only.
  struct followers {
    T* next = nullptr;
    T* after_next = nullptr;
  };

  /// Owner: the oldest, or nullptr.
  T* pop() noexcept {
    followers f;
    return pop(f);
  }
  /// The same; f is set if there is one.
  T* pop(followers& f) noexcept {
    std::uint64_t head = head_.load(std::memory_order_relaxed);  // a stale one fails in take()
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    while (head != tail) {
      // We wrote this slot ourselves: no acquire needed to read it.
      T* const element = slot(head).load(std::memory_order_relaxed);
      if (take(head, 1)) {
        f = followers_at(head + 1, tail);
        return element;
      }
    }
    return nullptr;
  }

  /// Owner, while no thief can exist (a runtime with one worker): the oldest, or nullptr, without a
  /// locked operation.
  T* pop_exclusive() noexcept {
    followers f;
    return pop_exclusive(f);
  }
  /// The same; f is set if there is one.
  T* pop_exclusive(followers& f) noexcept {
    const std::uint64_t head = head_.load(std::memory_order_relaxed);
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    if (head == tail) return nullptr;
    T* const element = slot(head).load(std::memory_order_relaxed);
    head_.store(head + 1, std::memory_order_relaxed);
    f = followers_at(head + 1, tail);
    return element;
  }

  /// Owner: moves the older half, but no more than `most`, to out and returns how many. After push() has failed,
  /// zero means that a thief has made room meanwhile: push again.
  std::size_t pop_half(T** out, std::uint64_t most = Capacity / 2) noexcept {
    std::uint64_t head = head_.load(std::memory_order_relaxed);
    const std::uint64_t tail = tail_.load(std::memory_order_relaxed);
    // At most Capacity / 2 even if head is stale: it is no older than the one the last push() saw.
    const std::uint64_t half = (tail - head) / 2;
    const std::uint64_t count = half < most ? half : most;
    if (count == 0) return 0;
    for (std::uint64_t i = 0; i != count; ++i)
      out[i] = slot(head + i).load(std::memory_order_relaxed);
    return take(head, count) ? static_cast<std::size_t>(count) : 0;
  }

  /// Owner of `mine`, another queue: takes the older half (rounded up) of this one. The oldest is given
  /// out in `first`, to be run at once; the others are appended to `mine`, as far as it has room.
  /// Returns how many were taken; zero when there was nothing.
  std::size_t steal_into(basic_run_queue& mine, T*& first) noexcept {
    TENDRIL_ASSERT(&mine != this, "nobody steals from itself");
    const std::uint64_t my_tail = mine.tail_.load(std::memory_order_relaxed);
    const std::uint64_t room =
        Capacity - (my_tail - mine.head_.load(std::memory_order_acquire));  // as in push()

    // Head before tail, and acquire: whoever moved head to what we see had seen tail at least there,
    // and released; so tail cannot look older than head, and their difference is never negative.
    std::uint64_t head = head_.load(std::memory_order_acquire);
    for (;;) {
      // Pairs with push()'s release: the slots below tail, and the fibers in them, are complete.
      const std::uint64_t tail = tail_.load(std::memory_order_acquire);
      const std::uint64_t available = tail - head;
      if (available == 0) return 0;
      std::uint64_t count = available - available / 2;
      // Head may be stale by then, and available beyond Capacity: take() will find out; until then do
      // not write past our own room.
      if (count > Capacity / 2) count = Capacity / 2;
      if (count > room + 1) count = room + 1;

      T* const oldest = slot(head).load(std::memory_order_relaxed);
      for (std::uint64_t i = 1; i != count; ++i)
        // Into slots of ours that nobody reads yet: they lie beyond our tail.
        mine.slot(my_tail + i - 1)
            .store(slot(head + i).load(std::memory_order_relaxed), std::memory_order_relaxed);
      if (!take(head, count)) continue;  // another took some first: head is fresh now
      if (count > 1)                     // as in push()
        mine.tail_.store(my_tail + count - 1, std::memory_order_release);
      first = oldest;
      return static_cast<std::size_t>(count);
    }
  }

  /// Guesses, unless the caller knows who else is about. A worker that has counted itself asleep and
  /// fenced may rely on empty() not missing what was pushed before the pusher's fence: a stale head
  /// only makes the queue look longer, and tail is read last.
  std::size_t size() const noexcept {
    const std::uint64_t head = head_.load(std::memory_order_acquire);
    const std::uint64_t count = tail_.load(std::memory_order_acquire) - head;
    return static_cast<std::size_t>(count < Capacity ? count : Capacity);
  }
  bool empty() const noexcept { return size() == 0; }

 private:
  using atomic_position = typename Atomics::template atomic<std::uint64_t>;
  using atomic_slot = typename Atomics::template atomic<T*>;

  atomic_slot& slot(std::uint64_t position) noexcept { return slots_[position & (Capacity - 1)]; }

  /// From positions in registers: to read head again would wait for the store that has just moved it.
  followers followers_at(std::uint64_t position, std::uint64_t tail) noexcept {
    followers f;
    if (position < tail) f.next = slot(position).load(std::memory_order_relaxed);
    if (position + 1 < tail) f.after_next = slot(position + 1).load(std::memory_order_relaxed);
    return f;
  }

  /// Moves head from `head` over `count` elements; on failure `head` is what it is now.
  bool take(std::uint64_t& head, std::uint64_t count) noexcept {
    // Release: our reads of the slots stay before it; pairs with push()'s acquire. Acquire on both
    // outcomes: the value read next time round must not be followed by an older tail, see steal_into().
    return head_.compare_exchange_strong(head, head + count, std::memory_order_acq_rel,
                                         std::memory_order_acquire);
  }

  // Apart, as thieves write the one and the owner the other; the slots are the owner's to write.
  alignas(cacheline_bytes) atomic_position head_{0};
  alignas(cacheline_bytes) atomic_position tail_{0};
  std::array<atomic_slot, Capacity> slots_{};
};

}  // namespace tendril::detail
