// SPDX-License-Identifier: Apache-2.0
//
// Interrupting waits: what a handler of a signal does to a thread that waits in the kernel, done to fibers that wait
// in calls which stand for the kernel's (src/intercept).
//
// Such a call stays on its thread (thread_stay.hpp), and its stay_record has a word, the *call*, that says whether the fiber
// waits in one that may be interrupted, since when, and by what:
//
//     0 ------ enters ------> since | kind ------ interrupted ------> 1 (the wait ends)
//     ^                            |                                  |
//     '----------- leaves ---------'----------------------------------'
//
// Time is counted in handlers that have returned (`moment`). The handler itself only notes which calls are to end, those of
// a thread or of a fiber, and the moment: by atomic words that nobody frees meanwhile. The rest is done in an ordinary context,
// by deliver_interruptions(), which ends calls that began before that moment. A call that began later is not meant, as a
// thread that enters the kernel after the handler is not.
//
// Whose calls:
//   - of the fibers that stay on a thread: that is where they were made, and where they go on;
//   - of the fiber that a thread runs by runtime::run(): what goes on there is that thread's work;
//   - of the *first* one that is being run so, the main thread's if there is one: for signals that are sent to the
//     process, of which Linux prefers to bother the main thread.
#pragma once

#include <atomic>
#include <cstdint>

namespace tendril::detail {

class fiber_core;
struct stay_record;
class stay_records;

/// What of a wait a handler ends.
enum class interruptible : std::uint64_t {
  unless_restarted = 2,  ///< only one without SA_RESTART
  always = 3,
};

/// The calling thread waits for a fiber that it runs, for a scope.
class run_call {
 public:
  explicit run_call(const fiber_core& fiber) noexcept;
  ~run_call();
  run_call(const run_call&) = delete;
  run_call& operator=(const run_call&) = delete;

 private:
  friend struct interruption_access;
  const fiber_core* fiber_;
  bool main_thread_;
  std::atomic<std::uint64_t> handled_[2]{};  ///< moments; by whether it restarts
  run_call* outer_ = nullptr;                ///< of this thread
  run_call* next_ = nullptr;                 ///< of the process
};

/// For a scope of the calling fiber, which stays on its thread.
class interruptible_scope {
 public:
  explicit interruptible_scope(interruptible kind) noexcept;
  ~interruptible_scope();
  interruptible_scope(const interruptible_scope&) = delete;
  interruptible_scope& operator=(const interruptible_scope&) = delete;

  /// For wait_options. Null: on no worker thread.
  const std::atomic<std::uint64_t>* call() const noexcept { return call_; }

 private:
  std::atomic<std::uint64_t>* call_ = nullptr;
  std::uint64_t before_ = 0;
};

/// Notes that a handler has returned on the calling thread. Async-signal-safe. True: somebody is to call
/// deliver_interruptions().
///
/// \param to_thread  the signal was sent to this thread, not to the process
bool note_handled(bool to_thread, bool restarts) noexcept;

/// The calling thread is one of a runtime's that runs no fibers.
void count_as_the_runtimes() noexcept;

/// Ends the waits that are to end. Any thread outside of the runtime's, one at a time.
void deliver_interruptions() noexcept;

/// In a forked child: forgets its parent's threads. Before any other is started.
void forget_interruptions() noexcept;

}  // namespace tendril::detail
