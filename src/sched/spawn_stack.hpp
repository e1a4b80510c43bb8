// SPDX-License-Identifier: Apache-2.0
//
// A worker's fibers that were spawned and have not started: they have no stack yet.
//
// Idea: the owner takes the newest. A tree of fibers then unfolds depth first, and as many stacks are
// alive as the tree is deep; first-in-first-out would unfold it level by level and hold a stack for
// each node of its widest one. Thieves take the oldest, which stand for the largest subtrees. Now and
// then the owner takes the oldest as well (pop_oldest), or a fiber spawned early could wait for ever.
//
// Invariants
//  1. The links are guarded by the lock. An owner constructed exclusive (a runtime with one worker)
//     skips it: then nobody else may call anything but empty() and size().
//  2. size() is stored under the lock and read without it. After the fences of the sleep protocol it
//     cannot miss what was pushed before the pusher's fence.
//  3. A thief never waits for the lock, and never holds two: when the victim is busy it goes elsewhere.
//
// A lock, because the stack must take a million fibers (skynet) and hand half of it to a thief: a
// lock-free deque would have to grow and reclaim its arrays, and pop() would need the same one locked
// operation. Links through members: `Next` and `Prev` are member pointers of type T* T::*.
#pragma once

#include <cstddef>

#include "base/atomics.hpp"
#include "base/cacheline.hpp"
#include "base/check.hpp"
#include "base/spinlock.hpp"

namespace tendril::detail {

template <class T, auto Next, auto Prev, class Atomics = std_atomics>
class basic_spawn_stack {
 public:
  /// A thief takes at most so many: it walks the links with the owner locked out.
  static constexpr std::size_t steal_limit = 64;

  explicit basic_spawn_stack(bool exclusive) noexcept : exclusive_(exclusive) {}
  basic_spawn_stack(const basic_spawn_stack&) = delete;
  basic_spawn_stack& operator=(const basic_spawn_stack&) = delete;
  ~basic_spawn_stack() { TENDRIL_ASSERT(newest_ == nullptr, "a spawn stack dies empty"); }

  /// Owner.
  void push(T* element) noexcept {
    const guard hold(*this);
    element->*Next = newest_;  // towards the older
    element->*Prev = nullptr;
    if (newest_ != nullptr) newest_->*Prev = element;
    else oldest_ = element;
    newest_ = element;
    add(1);
  }

  /// Owner: the newest, or nullptr.
  T* pop() noexcept {
    T* next = nullptr;
    return pop(next);
  }
  /// The same. `next`, if there is one: which is the newest then. A guess, as a thief may take it.
  T* pop(T*& next) noexcept {
    if (empty()) return nullptr;  // only the owner adds: empty stays empty
    const guard hold(*this);
    T* const element = newest_;
    if (element == nullptr) return nullptr;
    newest_ = next = element->*Next;
    if (next != nullptr) next->*Prev = nullptr;
    else oldest_ = nullptr;
    add(-1);
    return detach(element);
  }

  /// Owner: the oldest, or nullptr.
  T* pop_oldest() noexcept {
    if (empty()) return nullptr;
    const guard hold(*this);
    T* const element = oldest_;
    if (element == nullptr) return nullptr;
    cut_at(element->*Prev);
    add(-1);
    return detach(element);
  }

  /// Owner of `mine`, another stack: takes the older half (rounded up, at most steal_limit). The oldest
  /// is given out in `first`, the others go below what `mine` holds, in the same order. Returns how
  /// many were taken; zero when there was nothing, or when another held the lock.
  std::size_t steal_into(basic_spawn_stack& mine, T*& first) noexcept {
    TENDRIL_ASSERT(&mine != this && !exclusive_, "a thief is another worker");
    if (empty() || !lock_.try_lock()) return 0;
    const std::size_t available = size_.load(std::memory_order_relaxed);
    if (available == 0) {
      lock_.unlock();
      return 0;
    }
    std::size_t count = available - available / 2;
    if (count > steal_limit) count = steal_limit;
    T* const oldest = oldest_;
    T* newest = oldest;  // of the chain that leaves
    for (std::size_t i = 1; i != count; ++i) newest = newest->*Prev;
    cut_at(newest->*Prev);
    add(-static_cast<std::ptrdiff_t>(count));
    lock_.unlock();

    if (count > 1) {
      T* const second = oldest->*Prev;
      second->*Next = nullptr;
      mine.put_below(newest, second, count - 1);
    }
    first = detach(oldest);
    return count;
  }

  /// Guesses for all but the owner; see invariant 2.
  std::size_t size() const noexcept { return size_.load(std::memory_order_acquire); }
  bool empty() const noexcept { return size() == 0; }

 private:
  class guard {
   public:
    explicit guard(basic_spawn_stack& stack) noexcept : stack_(stack) {
      if (!stack_.exclusive_) stack_.lock_.lock();
    }
    ~guard() {
      if (!stack_.exclusive_) stack_.lock_.unlock();
    }
    guard(const guard&) = delete;
    guard& operator=(const guard&) = delete;

   private:
    basic_spawn_stack& stack_;
  };

  static T* detach(T* element) noexcept {
    element->*Next = nullptr;
    element->*Prev = nullptr;
    return element;
  }

  /// Everything older than `last` leaves; nullptr: everything.
  void cut_at(T* last) noexcept {
    oldest_ = last;
    if (last != nullptr) last->*Next = nullptr;
    else newest_ = nullptr;
  }

  void put_below(T* newest, T* oldest, std::size_t count) noexcept {
    const guard hold(*this);
    newest->*Prev = oldest_;
    if (oldest_ != nullptr) oldest_->*Next = newest;
    else newest_ = newest;
    oldest_ = oldest;
    add(static_cast<std::ptrdiff_t>(count));
  }

  /// With the lock held: a plain load and store, no locked addition. Release pairs with size()'s
  /// acquire, for readers that draw conclusions from it; the links themselves are the lock's business.
  void add(std::ptrdiff_t change) noexcept {
    size_.store(size_.load(std::memory_order_relaxed) + static_cast<std::size_t>(change),
                std::memory_order_release);
  }

  alignas(cacheline_bytes) basic_spinlock<Atomics> lock_;
  const bool exclusive_;
  T* newest_ = nullptr;
  T* oldest_ = nullptr;
  typename Atomics::template atomic<std::size_t> size_{0};
};

}  // namespace tendril::detail
