// SPDX-License-Identifier: Apache-2.0
//
// What every primitive that makes somebody wait is built from.
//
// A *waiter* is a fiber or a plain thread. It owns one wait_block, which holds the list node, the
// timer, the stop callback and a small cell for a value handed over. The block belongs to the
// waiter's control block and never to its stack, because a suspended stack may be copied away:
// nobody but the waiter itself may hold a pointer into it.
//
// Waiting:  the primitive is locked, found unavailable, the waiter's node is linked into the
//           primitive's wait_list, and wait_locked() unlocks and parks.
// Waking:   the waker, holding the lock, unlinks a node, sets its outcome, and after unlocking
//           unparks the waiter it has read from the node.
// Giving up: a deadline, a stop request or a stop token only *unparks* the waiter. The waiter then
//           takes the lock and looks: if its node was signalled meanwhile the wait has succeeded,
//           else it unlinks itself and reports why. So exactly one of them happens, and a value or
//           a permit that was handed over is never lost.
//
// Unparking is a permit, as in LockSupport: it may come early or once too often, and each wait
// re-checks its node. Waiters are never unmapped, so a late permit finds valid memory.
#pragma once

#include <tendril/config.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stop_token>
#include <system_error>
#include <type_traits>

namespace tendril::detail {

class waiter;

using clock = std::chrono::steady_clock;
using time_point = clock::time_point;
inline constexpr time_point no_deadline = time_point::max();

enum class outcome : std::uint32_t {
  waiting,      ///< still linked
  signalled,    ///< a waker chose this node
  closed,       ///< the object waited on was closed
  timed_out,    ///< the wait's own deadline passed
  canceled,     ///< the fiber was requested to stop, or the wait's stop token was
  expired,      ///< the deadline of an enclosing deadline_scope passed
  refused,      ///< the waiter's synchronization context: it would wait for itself
  interrupted,  ///< by a signal's handler, in a wait that asked for it
};

/// One place in one wait_list.
struct wait_node {
  wait_node* next = nullptr;
  wait_node* prev = nullptr;
  waiter* who = nullptr;
  std::atomic<outcome> result{outcome::waiting};
  std::uint32_t index = 0;  ///< which case of a select
  void* cell = nullptr;     ///< where a value is put or taken, owned by the waiter's block
  std::atomic<std::uint32_t>* claim =
      nullptr;  ///< shared by the nodes of one select; null otherwise

  /// True when this waker may complete the node: always, but for select, whose nodes stand in
  /// several lists and are claimed by the first.
  bool try_claim() noexcept {
    if (claim == nullptr) return true;
    std::uint32_t expected = 0;
    return claim->compare_exchange_strong(expected, index + 1, std::memory_order_acq_rel,
                                          std::memory_order_relaxed);
  }
};

/// A spinlock of four bytes for the few instructions that a primitive's state changes in.
/// Never held across a park.
class tiny_lock {
 public:
  void lock() noexcept {
    if (word_.exchange(1, std::memory_order_acquire) != 0) lock_slow();
  }
  bool try_lock() noexcept { return word_.exchange(1, std::memory_order_acquire) == 0; }
  void unlock() noexcept { word_.store(0, std::memory_order_release); }
  /// Returns when it has been free since somebody held it, of whose holding the caller knows by what that one wrote:
  /// an older value than his it cannot load. Acquire: his unlock() is before whatever comes next, even destruction.
  void await_free() noexcept {
    if (word_.load(std::memory_order_acquire) == 0) [[likely]]
      return;
    lock();
    unlock();
  }

 private:
  TENDRIL_API void lock_slow() noexcept;
  std::atomic<std::uint32_t> word_{0};
};

/// FIFO of wait_nodes, guarded by the lock of the primitive that contains it.
class wait_list {
 public:
  bool empty() const noexcept { return head_ == nullptr; }
  wait_node* front() const noexcept { return head_; }
  void push_back(wait_node& n) noexcept {
    n.next = nullptr;
    n.prev = tail_;
    (tail_ != nullptr ? tail_->next : head_) = &n;
    tail_ = &n;
  }
  void push_front(wait_node& n) noexcept {
    n.prev = nullptr;
    n.next = head_;
    (head_ != nullptr ? head_->prev : tail_) = &n;
    head_ = &n;
  }
  void remove(wait_node& n) noexcept {
    (n.prev != nullptr ? n.prev->next : head_) = n.next;
    (n.next != nullptr ? n.next->prev : tail_) = n.prev;
    n.next = n.prev = nullptr;
  }
  wait_node* pop_front() noexcept {
    wait_node* n = head_;
    if (n != nullptr) remove(*n);
    return n;
  }

 private:
  wait_node* head_ = nullptr;
  wait_node* tail_ = nullptr;
};

/// The calling fiber, or the calling thread.
///
/// \cost  one thread-local read; a thread's first call allocates its waiter
TENDRIL_API waiter* current_waiter();
/// The node in the waiter's own block, reset for a new wait. One wait at a time uses it.
TENDRIL_API wait_node& own_node(waiter*) noexcept;
/// A cell of at least `bytes` in the waiter's own block, or null when it has none that large.
inline constexpr std::size_t own_cell_bytes = 64;
TENDRIL_API void* own_cell(waiter*) noexcept;

/// Lets w's current or next park return. Callable from anywhere; never blocks, never allocates.
TENDRIL_API void unpark(waiter* w) noexcept;

/// The value by which the wait that has wait_options::interruption is ended.
inline constexpr std::uint64_t wait_interrupted = 1;

struct wait_options {
  time_point deadline = no_deadline;
  const std::stop_token* stop = nullptr;  ///< ends this wait besides the fiber's own stop request
  bool cancelable =
      true;  ///< false: only the signal ends it (re-acquiring, joining in destructors)
  const char* reason = "wait";  ///< static string, shown by fiber dumps
  /// False: what follows the wait does not go by way of the flow's synchronization context.
  bool on_context = true;
  /// Looked at before parking and after each unpark.
  const std::atomic<std::uint64_t>* interruption = nullptr;
};

/// Precondition: `lock` is held and `node` (of the calling waiter) is linked in `list`.
/// Unlocks, parks until the node has an outcome or the wait is given up; on return the lock is not
/// held and the node is unlinked.
///
/// \switch  yes
TENDRIL_API outcome wait_locked(tiny_lock& lock, wait_list& list, wait_node& node,
                                const wait_options& options);

/// The same for waits that stand in several lists or in none: parks until done(argument) is true or
/// the wait is given up, and tells which. done is asked after every unpark, by the waiter itself;
/// after anything but `signalled` the caller decides under its own locks whether a waker was faster.
///
/// \switch  yes, unless done already
TENDRIL_API outcome wait_until_done(bool (*done)(const void*) noexcept, const void* argument,
                                    const wait_options& options);

/// Completes a node taken from a list, under the list's lock; returns who must be unparked once the
/// lock is released.
inline waiter* complete(wait_node& node, outcome result = outcome::signalled) noexcept {
  waiter* who =
      node.who;  // read first: the node is its owner's again as soon as the outcome is seen
  node.result.store(result, std::memory_order_release);  // pairs with wait_locked's acquire
  return who;
}

/// Throws for outcomes that a wait without an error form cannot return: canceled, expired, closed,
/// timed_out. what = the operation.
[[noreturn]] TENDRIL_API void throw_outcome(outcome result, const char* what);
inline void require_signalled(outcome result, const char* what) {
  if (result != outcome::signalled) [[unlikely]]
    throw_outcome(result, what);
}
TENDRIL_API std::error_code to_error(outcome result) noexcept;

/// Runs once, on whoever completes what it was attached to. Belongs to who attached it: part of a coroutine's
/// frame or of a heap block, never on a fiber's stack. It may destroy itself in run.
struct alignas(16) continuation {
  void (*run)(continuation* self) noexcept = nullptr;
};

/// Set once; waited for by at most one waiter, or followed by at most one continuation: the end of a fiber,
/// a future's readiness.
/// word: 0 pending, 1 set, else the waiter, else the continuation + 2.
class completion {
 public:
  bool is_set() const noexcept { return word_.load(std::memory_order_acquire) == 1; }
  /// Returns whom to unpark, or null. Only where no continuation can be.
  waiter* set() noexcept {
    const auto old = word_.exchange(1, std::memory_order_acq_rel);
    return old > 1 ? reinterpret_cast<waiter*>(old) : nullptr;
  }
  /// set(), and unparks or runs who is there.
  void complete() noexcept {
    const auto old = word_.exchange(1, std::memory_order_acq_rel);
    if (old > 1) notify(old);
  }
  /// complete(), but what is attached is the caller's to run.
  [[nodiscard]] continuation* complete_and_take() noexcept {
    const auto old = word_.exchange(1, std::memory_order_acq_rel);
    if ((old & is_continuation) != 0) return reinterpret_cast<continuation*>(old - is_continuation);
    if (old > 1) unpark(reinterpret_cast<waiter*>(old));
    return nullptr;
  }
  /// \switch yes, unless set
  outcome wait(const wait_options& options) {
    return is_set() ? outcome::signalled : wait_slow(options);
  }
  /// The same for who knows itself, and that it is not set.
  outcome wait_as(waiter* self, const wait_options& options);
  /// Makes w the one that set() returns; false when it is set already.
  bool install(waiter* w) noexcept {
    std::uintptr_t expected = 0;
    return word_.compare_exchange_strong(expected, reinterpret_cast<std::uintptr_t>(w),
                                         std::memory_order_acq_rel, std::memory_order_acquire);
  }
  /// The same for what runs when it is set.
  bool install(continuation& c) noexcept {
    std::uintptr_t expected = 0;
    return word_.compare_exchange_strong(expected, tagged(c), std::memory_order_acq_rel,
                                         std::memory_order_acquire);
  }
  /// True: c will not run. False: it has run, or runs now.
  bool withdraw(continuation& c) noexcept {
    auto expected = tagged(c);
    return word_.compare_exchange_strong(expected, 0, std::memory_order_acq_rel,
                                         std::memory_order_acquire);
  }
  /// A look: whether w is installed at this moment.
  bool holds(const waiter* w) const noexcept {
    return word_.load(std::memory_order_relaxed) == reinterpret_cast<std::uintptr_t>(w);
  }
  /// Takes w out again; false when it was set first.
  bool withdraw(waiter* w) noexcept {
    auto expected = reinterpret_cast<std::uintptr_t>(w);
    return word_.compare_exchange_strong(expected, 0, std::memory_order_acq_rel,
                                         std::memory_order_acquire);
  }
  /// Before anybody else knows of it: pending, or with w installed.
  void reset(waiter* w = nullptr) noexcept {
    word_.store(reinterpret_cast<std::uintptr_t>(w), std::memory_order_relaxed);
  }

 private:
  static constexpr std::uintptr_t is_continuation = 2;
  static std::uintptr_t tagged(continuation& c) noexcept {
    return reinterpret_cast<std::uintptr_t>(&c) | is_continuation;
  }
  static void notify(std::uintptr_t who) noexcept {
    if ((who & is_continuation) == 0) {
      unpark(reinterpret_cast<waiter*>(who));
    } else {
      auto* const c = reinterpret_cast<continuation*>(who - is_continuation);
      c->run(c);
    }
  }

  TENDRIL_API outcome wait_slow(const wait_options& options);
  std::atomic<std::uintptr_t> word_{0};
};

/// steady_clock deadline of a duration, saturating instead of overflowing.
template <class Rep, class Period>
time_point deadline_after(const std::chrono::duration<Rep, Period>& d) {
  using namespace std::chrono;
  if (d <= d.zero()) return clock::now();
  if (duration_cast<duration<double>>(d) > hours(24 * 365 * 100)) return no_deadline;
  return clock::now() + ceil<nanoseconds>(d);
}

/// steady_clock deadline of a time point of any clock. For other clocks the distance is taken now;
/// the caller's loop looks at the foreign clock again.
template <class Clock, class Duration>
time_point deadline_at(const std::chrono::time_point<Clock, Duration>& t) {
  if constexpr (std::is_same_v<Clock, clock>) {
    if (t >= std::chrono::time_point_cast<Duration>(no_deadline)) return no_deadline;
    return std::chrono::ceil<clock::duration>(t);
  } else {
    return deadline_after(t - Clock::now());
  }
}

}  // namespace tendril::detail
