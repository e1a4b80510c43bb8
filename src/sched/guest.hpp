// SPDX-License-Identifier: Apache-2.0
//
// Threads that a runtime did not make, while a hot fiber of its runs on them: plain threads, threads of another
// runtime, and a runtime's own in their scheduler context (a callback of an event).
//
// A *guest* is what such a thread has of one runtime: a worker_thread without a worker, which is the state of
// an orphaned thread (worker_thread.hpp): what runs there has its own name, deadlines and stop requests, its
// wakes go through the injection queue, and at its next call that may switch it leaves. tls_thread points to
// it only while the hot fiber runs. The thread keeps its guests, with their shells, for its next calls.
//
// Invariants
//  1. A guest is in its runtime's list from its first use until the runtime closes the list or the thread ends,
//     whichever comes first; the stacks of its shells are the runtime's and go back at that time.
//  2. `inside` is true while anything of the runtime's may be touched by the thread through the guest.
//     Entering stores it and then looks at `open`; closing stores `open` and then looks at `inside`: the
//     asymmetric protocol of worker_hold.hpp. So the runtime's end waits for hot fibers on other threads,
//     and a call that comes later fails.
//  3. What segmented stacks need of the thread is set up for the call that starts a fiber on one, and not for
//     others: it takes as long as the rest of the call. A fiber on another kind of stack that starts one on a
//     segmented stack has it set up in between, below where the guest was entered.
//  4. Lists and ends are guarded by one lock of the process. It is not taken by a call on a thread that is
//     a guest already.
#pragma once

#include "context/context.hpp"
#include "platform/barrier.hpp"
#include "platform/memory.hpp"
#include "platform/signal_stack.hpp"
#include "sched/hot_start.hpp"
#include "sched/stopped_threads.hpp"
#include "sched/worker_thread.hpp"

#include <atomic>
#include <cstdint>

namespace tendril::detail {

class guest {
 public:
  guest(scheduler& s, std::uint64_t runtime_serial, bool is_last);
  ~guest();
  guest(const guest&) = delete;
  guest& operator=(const guest&) = delete;

  /// False: the runtime is ending. `nested`: for leave().
  bool enter(bool& nested) noexcept {
    nested = inside_.load(std::memory_order_relaxed);
    inside_.store(true, std::memory_order_relaxed);
    fence();
    if (open_.load(std::memory_order_acquire)) [[likely]]
      return true;
    leave(nested);
    return false;
  }
  void leave(bool nested) noexcept {
    inside_.store(nested, std::memory_order_release);  // pairs with close()'s acquire
    fence();
    if (!open_.load(std::memory_order_relaxed)) [[unlikely]]
      tell_closer();
  }

  /// The two for who is not inside and has nothing to do but to call: false where that is not so.
  bool enter_quickly() noexcept {
    if (!quick_ || inside_.load(std::memory_order_relaxed)) [[unlikely]]
      return false;
    inside_.store(true, std::memory_order_relaxed);
    platform::light_barrier();
    if (open_.load(std::memory_order_acquire)) [[likely]]
      return true;
    leave(false);
    return false;
  }
  void leave_quickly() noexcept {
    inside_.store(false, std::memory_order_release);  // pairs with close()'s acquire
    platform::light_barrier();
    if (!open_.load(std::memory_order_relaxed)) [[unlikely]]
      tell_closer();
  }

  worker_thread thread;
  const std::uint64_t serial;
  context stack;                    ///< for the sanitizers
  platform::stack_bounds bounds;    ///< of the thread
  std::byte* entered_at = nullptr;  ///< while inside: below what is in use, if that is the thread's
  bool has_segments = false;        ///< while inside
  guest* next = nullptr;            ///< of the same thread
  stopped_thread* collected = nullptr;

 private:
  friend class guest_list;
  friend struct thread_guests;

  /// The light side of the protocol; a whole fence where the system has no heavy one.
  void fence() const noexcept {
    platform::light_barrier();
    if (fences_) [[unlikely]]
      std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  static void tell_closer() noexcept;

  std::atomic<bool> inside_{false};
  std::atomic<bool> open_{true};
  const bool fences_;
  bool quick_;       ///< no fences, and no collector that would have to be told
  const bool last_;  ///< its thread has ended, as far as thread-locals go: the runtime deletes it
  guest* before_ = nullptr;  ///< in the runtime's list, under the lock
  guest* after_ = nullptr;
  bool listed_ = false;
  platform::signal_stack overflow_stack_;
};

/// A runtime's guests.
class guest_list {
 public:
  guest_list() = default;
  guest_list(const guest_list&) = delete;
  guest_list& operator=(const guest_list&) = delete;
  ~guest_list() { close(); }

  /// False: closed.
  bool add(guest& g) noexcept;
  /// Lets no new hot fiber start on a guest, waits for those that have not suspended or ended, and takes back
  /// what the guests hold.
  void close() noexcept;

 private:
  friend struct thread_guests;
  void remove_locked(guest& g) noexcept;

  guest* first_ = nullptr;
  bool closed_ = false;
};

/// start_hot() where the caller is no fiber of the runtime that is wanted. t: this_worker_thread().
bool start_hot_as_guest(worker_thread* t, hot_body& body, const hot_options* options);
/// start_hot(), with options, where the caller is a hot fiber on the guest t.
bool start_hot_on_guest(worker_thread& t, hot_body& body, const hot_options* options);

}  // namespace tendril::detail
