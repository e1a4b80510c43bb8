// SPDX-License-Identifier: Apache-2.0
//
// What the coroutines of one task have in common. A *chain* is a task that somebody outside coroutines has
// started (its root) with all that it awaits, task upon task: one flow of control, of which one coroutine runs
// or waits at a time. It has an arena for its frames, the place where it waits, the request to stop, and the
// ambient values while it waits.
//
//     start ----> running ----> ended
//                  |   ^
//            leaf  v   |  completed, or canceled and withdrawn
//                 suspended
//
// Invariants
//  1. While a chain's coroutine runs, the flow it runs in says so: flow_locals::chain. It is entered by whoever
//     resumes it and left before anybody else can know of its suspension, since the next one may resume it
//     before the code that suspends has returned. Hence enter and leave stand at the suspensions, not around
//     the calls of resume(), and code that resumes a bare coroutine_handle need not know of chains.
//  2. A wait has a *leaf*, part of the awaiter and so of the frame. Exactly one of three resumes: who completes
//     what is waited for, who cancels (and has withdrawn the leaf from it), and the suspending code itself when
//     one of the others was faster than it. state_ decides:
//        running     -> suspended      the suspending code, having installed the leaf; touches nothing after it
//        running     -> +done          the completer was faster; the suspending code goes on
//        suspended   -> running        the completer; it resumes
//        suspended   -> +busy          a canceler is withdrawing; a completer that comes sets done and goes, and
//                                      the canceler resumes if it finds done or has withdrawn
//     The bits canceled and expired stay: every wait from then on ends with that outcome.
//  3. A *turn* is what a chain runs between two waits, on one stack and in one flow. A call may note the turn in
//     which it was made; at its end the same number tells that whoever called still stands below it on the
//     same stack (task_call_here in task.hpp). leave() ends a turn; a wait that turns out not to be necessary
//     goes on in it.
//  4. Resuming nests: who completes a future runs what follows. At most max_nested deep in one flow; deeper ones
//     go to a fiber of the runtime, or, without one, wait until the outermost returns.
//
// Rejected: a thread-local "current chain" (a coroutine on a fiber may block, and another fiber then runs on the
// thread: it would allocate from the first one's arena); a wrapper around each resume() (foreign awaitables
// call resume() themselves); one std::stop_source a chain (an allocation and two locks a wait).
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/flow.hpp>
#include <tendril/detail/waiting.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <utility>

namespace tendril::detail {

class coroutine_chain;
class promise_core;
struct frame_block;

/// Below each frame.
struct alignas(16) frame_head {
  static constexpr std::uint32_t local = 1;  ///< freed by the chain whose arena it lies in
  static constexpr std::uint32_t freed = 2;

  frame_block* block;   ///< null: alone, with room for a chain in front of the head
  std::uint32_t below;  ///< bytes to the head of the frame before it in its block; 0: the first
  std::atomic<std::uint32_t> flags;
};

/// From the arena of the chain that runs here, else alone. Aligned to 16.
TENDRIL_API void* allocate_frame(std::size_t bytes);
TENDRIL_API void free_frame(void* frame) noexcept;
inline frame_head& head_of(void* frame) noexcept { return static_cast<frame_head*>(frame)[-1]; }

/// The stack of blocks that a chain's frames lie on. Used by the flow that runs the chain alone.
struct frame_block {
  frame_block* below;
  std::byte* top;
  std::byte* end;
  frame_head* last;   ///< the topmost frame
  std::int64_t live;  ///< frames but those freed by the chain itself
  std::atomic<coroutine_chain*> owner;
  /// Frames that others have freed; once the chain has gone, minus those it left. 0 then: nobody's.
  std::atomic<std::int64_t> balance;
};

/// What a chain waits for; the base of awaiters. Completed by running it as a continuation.
struct chain_leaf : continuation {
  coroutine_chain* chain = nullptr;
  std::coroutine_handle<> who;
  /// True: the leaf will not be run.
  bool (*withdraw)(chain_leaf*) noexcept = nullptr;
  outcome result = outcome::signalled;
};

class coroutine_chain {
 public:
  /// root: its first coroutine, suspended at its start. at_end runs when it has ended, on whatever flow that
  /// happens; it may free the root's frame and with it the chain, and returns whom to resume.
  using end_function = std::coroutine_handle<> (*)(coroutine_chain*) noexcept;

  /// In front of the root's frame if there is room, else on the heap.
  TENDRIL_API static coroutine_chain& create(promise_core& root, end_function at_end);
  /// After its end, or before its start.
  TENDRIL_API void destroy() noexcept;

  /// Runs the root in the calling flow until it suspends or ends: after this, others may have ended it.
  TENDRIL_API void start() noexcept;
  /// What start() does first, for who transfers control to the root.
  TENDRIL_API void enter_first() noexcept;
  /// The root has ended: by its final awaiter. Returns whom to resume.
  TENDRIL_API std::coroutine_handle<> end() noexcept;

  /// At a suspension, on the flow that the chain runs in.
  TENDRIL_API void enter() noexcept;
  TENDRIL_API flow_locals& leave() noexcept;
  /// Instead of enter(), by who has left and not been suspended.
  void go_on() noexcept {
    --turn_;
    enter();
  }
  std::uint32_t turn() const noexcept { return turn_; }

  /// Suspends the chain's running coroutine at leaf: install attaches the leaf to what is waited for, and says
  /// false when that is complete already. True: suspended, and nothing of the chain may be touched any more.
  /// False: go on; leaf.result tells how the wait has ended.
  template <class Install>
  bool suspend(chain_leaf& leaf, bool with_context, Install&& install) {
    leaf.run = &completed;
    leaf.chain = this;
    leaf_ = &leaf;
    const flow_locals& flow = leave();
    context_ = with_context && !flow.off_context ? flow.sync : nullptr;
    bool installed;
    try {
      installed = install();
    } catch (...) {
      go_on();
      throw;
    }
    if (!installed) {
      go_on();
      return false;
    }
    std::uint32_t expected = running;
    // Release: the leaf and what lies in the frame, for who resumes.
    if (state_.compare_exchange_strong(expected, suspended, std::memory_order_acq_rel)) [[likely]]
      return true;
    return suspend_slow(leaf, expected);
  }

  /// Ends the present wait and all later ones with `why`: canceled or expired. Any thread that knows the chain
  /// to be there.
  TENDRIL_API void request_stop(outcome why = outcome::canceled) noexcept;
  bool stop_requested() const noexcept {
    return (state_.load(std::memory_order_acquire) & (canceled | expired)) != 0;
  }
  /// Triggered by request_stop. By the chain's own coroutine.
  TENDRIL_API std::stop_token stop_token();
  /// request_stop() when token is triggered, until the chain's end.
  TENDRIL_API void stop_with(const std::stop_token& token);

  promise_core& root() const noexcept { return *root_; }
  completion& done() noexcept { return done_; }

  /// The fiber or thread in await(task), if that is what waits for the end: the chain may not wait for what that
  /// one has still to produce.
  const waiter* awaiting = nullptr;

  // For who started it; of no meaning to the chain.
  std::coroutine_handle<> follower;
  /// The state of the future that the result is for: the chain may not wait for it.
  std::atomic<const void*> produces{nullptr};
  std::atomic<void*> starter{nullptr};
  alignas(void*) std::byte starter_room[2 * sizeof(void*)];

 private:
  friend void* allocate_frame(std::size_t);
  friend void free_frame(void*) noexcept;

  static constexpr std::uint32_t running = 0, suspended = 1, done_early = 2, busy = 4, canceled = 8,
                                 expired = 16;
  static constexpr unsigned max_nested = 32;

  struct relay {
    coroutine_chain* chain;
    void operator()() const noexcept { chain->request_stop(); }
  };
  struct extras {
    std::stop_source source;
    std::optional<std::stop_callback<relay>> callback;
  };

  coroutine_chain(promise_core& root, end_function at_end, bool on_heap) noexcept
      : root_(&root), at_end_(at_end), on_heap_(on_heap) {}
  ~coroutine_chain() = default;

  static void completed(continuation* self) noexcept;
  TENDRIL_API bool suspend_slow(chain_leaf& leaf, std::uint32_t found);
  outcome why(std::uint32_t state) const noexcept {
    return (state & expired) != 0 ? outcome::expired : outcome::canceled;
  }
  void enter(flow_locals& flow) noexcept;
  void resume() noexcept;
  void resume_here() noexcept;
  void* allocate_in_new_block(std::size_t need);
  void let_go(frame_block* b) noexcept;
  void pop_freed() noexcept;
  void close_blocks() noexcept;

  frame_block* block_ = nullptr;  ///< the topmost
  frame_block* spare_ = nullptr;  ///< empty, larger than block_
  coroutine_chain* outer_ = nullptr;
  std::uintptr_t ambient_ =
      0;  ///< an ambient word: while it does not run, its own; else that of the flow it runs in
  std::atomic<std::uint32_t> state_{running};
  chain_leaf* leaf_ = nullptr;
  synchronization_context* context_ = nullptr;
  coroutine_chain* next_ = nullptr;  ///< in a flow's list of those to be resumed
  promise_core* root_;
  end_function at_end_;
  completion done_;
  std::atomic<extras*> extras_{nullptr};
  bool on_heap_;
  std::uint32_t turn_ = 0;  ///< the running coroutine's
};

}  // namespace tendril::detail
