// SPDX-License-Identifier: Apache-2.0
//
// Threads that a collector stops (detail/stopped_threads.hpp): who they are, and where they stand.
//
// Each thread that runs fibers has a record from before it gets an alternate signal stack until after it has none: in
// between the collector's handler may run there, and the collector has to be told. Records are in a list that changes
// under a lock by single stores, so that it can be read while everybody who could change it is stopped.
//
// A thread that sleeps in rest() is not stopped, and its record says so: it stands on its own stack, where it left off.
// The mark is set before the collector knows, and cleared with the collector's lock held. So who has that lock, and
// finds a mark on a thread that was not stopped, knows that it cannot get as far as running a fiber.
//
// Where hosts stand is told by the hot_calls on their stacks (hot_start.hpp), beginning with the thread's current
// fiber. Which stack an address is on is told by the arenas, and of a segment by its header, if the fiber that it
// names has it among its segments.
//
// Not seen: what begins on a thread in destructors of its thread_local variables, which is after the record's end.
#pragma once

#include "platform/thread_state.hpp"

#include <atomic>

namespace tendril::detail {

struct worker_thread;

struct stopped_thread {
  std::atomic<stopped_thread*> next{nullptr};
  void* handle = nullptr;        ///< the collector's
  bool entered = false;          ///< to be left at the end
  const void* bottom = nullptr;  ///< of the thread's own stack
  const void* lowest = nullptr;
  worker_thread* own = nullptr;        ///< null: a thread that no runtime made
  std::atomic<unsigned> hot_calls{0};  ///< of such a thread
  std::atomic<bool> rests{false};      ///< a runtime's thread is in rest()
  // While it is stopped.
  std::atomic<const void*> sp{nullptr};
  const void* saved_end = nullptr;  ///< and afterwards
  worker_thread* runs = nullptr;    ///< own, or a guest
};

/// A runtime's thread: first thing and last thing on it.
class collected_thread {
 public:
  explicit collected_thread(worker_thread& t) noexcept;
  ~collected_thread();
  collected_thread(const collected_thread&) = delete;
  collected_thread& operator=(const collected_thread&) = delete;
};

/// Another thread, before a fiber runs there; until it ends. Null: no collector observes threads.
stopped_thread* collect_guest() noexcept;

/// Whether a collector observes threads.
extern constinit std::atomic<bool> threads_observed;
void rest_observed(void (*wait)(void*) noexcept, void* argument) noexcept;

/// Calls wait(), in which the calling thread sleeps on its own stack, running nobody's fiber and none of the program's
/// code. It does not throw where a collector observes threads. No collector stops it meanwhile; who is back while the
/// others are stopped waits until they go on.
template <class Wait>
void rest(Wait wait) {
  if (!threads_observed.load(std::memory_order_acquire)) [[likely]]
    wait();
  else rest_observed([](void* w) noexcept { (*static_cast<Wait*>(w))(); }, &wait);
}

/// Whether a runtime's thread is stopped by a collector just now: for the monitor, which is not.
bool collector_stops(platform::thread_number thread) noexcept;

/// A scope in which such a thread runs a fiber.
class collected_hot_call {
 public:
  explicit collected_hot_call(stopped_thread* t) noexcept : thread_(t) { add(1); }
  ~collected_hot_call() { add(-1U); }
  collected_hot_call(const collected_hot_call&) = delete;
  collected_hot_call& operator=(const collected_hot_call&) = delete;

 private:
  /// Its own thread writes, and others read when that is stopped: one instruction would not be needed.
  void add(unsigned n) noexcept {
    if (thread_ == nullptr) return;
    const unsigned now = thread_->hot_calls.load(std::memory_order_relaxed) + n;
    thread_->hot_calls.store(now, std::memory_order_relaxed);
  }
  stopped_thread* thread_;
};

}  // namespace tendril::detail
