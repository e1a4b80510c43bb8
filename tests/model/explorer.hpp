// SPDX-License-Identifier: Apache-2.0
//
// A stateless model checker for the runtime's lock-free parts: it runs the code that ships, with
// model_atomics in place of std_atomics, through every interleaving that can make a difference.
//
//     const auto found = model::explore("two increments", [](model::execution& run) {
//       model::atomic<int> counter{0};                       // fresh for every execution
//       const auto add = [&] { counter.fetch_add(1); };
//       if (run.threads({add, add}))                         // false: this execution was cut short
//         run.check(counter.load() == 2, "no increment is lost");
//     });
//     CHECK(found.passed());
//
// How. The threads are contexts that run one at a time. Each announces its next atomic operation; then
// the explorer picks who goes on, the first time round by default, later by replaying the choices of
// the execution before and changing the last that has an alternative: depth first. Sleep sets
// (Godefroid 1996) leave out executions that differ only in the order of independent operations.
//
// What is explored
//  1. Store buffers. A store goes to its thread's buffer; when it reaches memory is one more choice. The
//     thread itself sees it at once. A release store waits for all stores before it; a relaxed one may
//     be overtaken by later ones to other locations. seq_cst stores and fences wait until the buffer is
//     empty, and so does a read-modify-write with release; without, only for its own location. So a
//     store-load protocol fails here without its fence, and a publication without its release.
//  2. Happens-before, by vector clocks as the C++ memory model defines it (release sequences and fences
//     included): plain<T> fails on a data race. So a publication fails without its acquire.
// What is not: loads never see a value older than memory's. A protocol that is only wrong because two
// relaxed loads may be reordered, and that touches no plain<T> by it, passes here.
//
// Rules for threads: deterministic; no exception leaves them; nothing on their stacks owns memory (an
// execution that is cut short forgets the stacks). State whose destructor checks that all is done goes
// into undestroyed<T>. Failures are reported by model::check, never by doctest's macros.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

namespace tendril::model {

inline constexpr unsigned max_threads = 4;

/// How far each thread had come, in its own operations.
using vector_clock = std::array<std::uint32_t, max_threads>;

/// An atomic's memory. Values are passed as 64 bits.
struct location {
  explicit location(std::uint64_t initial);
  location(const location&) = delete;
  location& operator=(const location&) = delete;

  std::uint64_t value;
  std::uint32_t version = 0;  // changes of value
  vector_clock published{};   // what an acquire load of value learns
  unsigned id;                // in the order of construction
};

/// The operations. Off the model's threads (set-up and final checks) they act at once.
std::uint64_t load(const location& where, std::memory_order order);
void store(location& where, std::uint64_t value, std::memory_order order);
/// Waits for its turn; then no other thread runs before finish_rmw().
std::uint64_t begin_rmw(location& where, std::memory_order order);
void finish_rmw(location& where, std::uint64_t value, std::memory_order order);
void fail_rmw(location& where, std::memory_order order);
void fence_seq_cst();
/// A full fence on all threads, as membarrier(2): done when nobody's buffer holds a store.
void fence_everywhere();
/// Off until the location read last has changed.
void spin();
/// Off until the value is not zero; then as an acquire read-modify-write.
std::uint64_t begin_wait(location& where);

/// In a thread: ends the execution and the exploration when condition is false.
void check(bool condition, const char* message);

template <class T>
class atomic {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));

 public:
  atomic() noexcept : atomic(T{}) {}
  atomic(T initial) noexcept : where_(pack(initial)) {}  // NOLINT: converts, as std::atomic does

  T load(std::memory_order order = std::memory_order_seq_cst) const noexcept {
    return unpack(model::load(where_, order));
  }
  void store(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    model::store(where_, pack(value), order);
  }
  T exchange(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(order, [&](T) { return value; });
  }
  T fetch_add(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(order, [&](T old) { return static_cast<T>(old + value); });
  }
  T fetch_sub(T value, std::memory_order order = std::memory_order_seq_cst) noexcept {
    return update(order, [&](T old) { return static_cast<T>(old - value); });
  }
  bool compare_exchange_strong(T& expected, T desired, std::memory_order success,
                               std::memory_order failure) noexcept {
    const T old = unpack(begin_rmw(where_, success));
    if (pack(old) == pack(expected)) {
      finish_rmw(where_, pack(desired), success);
      return true;
    }
    fail_rmw(where_, failure);
    expected = old;
    return false;
  }
  bool compare_exchange_weak(T& expected, T desired, std::memory_order success,
                             std::memory_order failure) noexcept {
    return compare_exchange_strong(expected, desired, success, failure);
  }

 private:
  static std::uint64_t pack(T value) noexcept {
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
  }
  static T unpack(std::uint64_t bits) noexcept {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }
  template <class Change>
  T update(std::memory_order order, Change change) noexcept {
    const T old = unpack(begin_rmw(where_, order));
    finish_rmw(where_, pack(change(old)), order);
    return old;
  }

  location where_;
};

/// The policy of base/atomics.hpp.
struct model_atomics {
  template <class T>
  using atomic = model::atomic<T>;
  static void fence_seq_cst() noexcept { model::fence_seq_cst(); }
  static void spin_pause() noexcept { model::spin(); }
  static void spin_yield() noexcept { model::spin(); }
};

/// A counting semaphore: how a model's thread sleeps. Waits that nobody ends are found as deadlocks.
class semaphore {
 public:
  explicit semaphore(std::uint64_t count = 0) noexcept : where_(count) {}
  void release() noexcept {
    const std::uint64_t old = begin_rmw(where_, std::memory_order_seq_cst);
    finish_rmw(where_, old + 1, std::memory_order_seq_cst);
  }
  void acquire() noexcept {
    const std::uint64_t old = begin_wait(where_);
    finish_rmw(where_, old - 1, std::memory_order_acquire);
  }
  /// At the end of an execution.
  std::uint64_t count() const noexcept { return where_.value; }

 private:
  location where_;
};

/// Who accessed a plain variable last; fails the execution on a data race.
class race_detector {
 public:
  void read() const;
  void write();

 private:
  mutable vector_clock reads_{};
  unsigned writer_ = max_threads;  // none: the set-up
  std::uint32_t written_ = 0;
};

/// Data that is not atomic: every access must be ordered with every write.
template <class T>
class plain {
 public:
  plain(T initial = T{}) noexcept : value_(initial) {}  // NOLINT: converts
  T get() const {
    detector_.read();
    return value_;
  }
  void set(T value) {
    detector_.write();
    value_ = value;
  }

 private:
  race_detector detector_;
  T value_;
};

/// Constructs, and never destroys.
template <class T>
class undestroyed {
 public:
  template <class... Args>
  explicit undestroyed(Args&&... args) {
    ::new (static_cast<void*>(memory_)) T(static_cast<Args&&>(args)...);
  }
  undestroyed(const undestroyed&) = delete;
  undestroyed& operator=(const undestroyed&) = delete;
  T& operator*() noexcept { return *std::launder(reinterpret_cast<T*>(memory_)); }
  T* operator->() noexcept { return &**this; }

 private:
  alignas(T) unsigned char memory_[sizeof(T)];
};

struct options {
  /// How often a thread that could go on is made to wait. Bounded, sleep sets are off.
  unsigned preemptions = std::numeric_limits<unsigned>::max();
  std::uint64_t executions = 3'000'000;  // give up then
  unsigned steps = 1'000;                // more in one execution is a livelock
};

struct result {
  bool passed() const { return failure.empty() && complete; }

  std::uint64_t executions = 0;  // complete ones
  std::uint64_t redundant = 0;   // cut short, as they repeat a complete one
  bool complete = false;         // no alternative was left
  std::string failure;           // what went wrong first, and the steps that lead there
};

/// One execution, given to the body of explore().
class execution {
 public:
  /// Runs the threads to their end. False when the execution was cut short: leave the body at once.
  bool threads(std::vector<std::function<void()>> bodies);
  /// After threads(): what must hold at the end.
  void check(bool condition, const char* message);
};

/// Runs body once for each execution, and prints how many there were. Stops at the first failure.
result explore(const char* name, const std::function<void(execution&)>& body, options limits = {});

}  // namespace tendril::model
