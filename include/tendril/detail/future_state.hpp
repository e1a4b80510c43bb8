// SPDX-License-Identifier: Apache-2.0
//
// What a producer (promise, fiber, continuation) and the future share: one heap block.
//
//   ready    set once, by the producer, when the result is written; runs or wakes who waits
//   life     references, and the way of a stop request to the producer
//   result   the producer's until ready, the reader's after it
//
// Who derives from future_state<T> puts what the producer needs into the same block, and may let a stop
// request through: a fiber by stop_producer(), who waits for other futures by source().
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/result_slot.hpp>
#include <tendril/detail/state_life.hpp>
#include <tendril/detail/waiting.hpp>

#include <cstddef>
#include <utility>

namespace tendril::detail {

struct fiber_core;

enum class source_use {
  look,
  stop,  ///< not what others share
};

class future_state_base {
 public:
  future_state_base(const future_state_base&) = delete;
  future_state_base& operator=(const future_state_base&) = delete;

  /// The result is written. After this, the producer may only go.
  void publish() noexcept { ready.complete(); }
  void release_producer() noexcept {
    if (life.release_producer()) destroy();
  }
  /// The last reader of a promise with a hook runs it: nobody wants the result any more.
  void release_reader() noexcept {
    switch (life.release_reader()) {
      case state_life::last_reader::no:
        return;
      case state_life::last_reader::destroy:
        return destroy();
      case state_life::last_reader::has_hook:
        return release_hooked();
    }
  }

  /// Tells the producer to stop. The lock is held; it unlocks, and may then run users' code.
  virtual void stop_producer() noexcept { life.unlock(); }
  /// The index-th future that the result is made of, its state borrowed (release_reader() gives it back).
  /// Null: there are no more that may be used so.
  virtual future_state_base* source(std::size_t index, source_use use) noexcept {
    static_cast<void>(index);
    static_cast<void>(use);
    return nullptr;
  }
  /// No result before all the sources have theirs.
  virtual bool needs_every_source() const noexcept { return true; }
  /// The fiber that will write the result, if it is known.
  virtual const fiber_core* runner() const noexcept { return nullptr; }

  completion ready;
  state_life life;

 protected:
  future_state_base() noexcept = default;
  ~future_state_base() = default;
  virtual void destroy() noexcept = 0;

 private:
  TENDRIL_API void release_hooked() noexcept;
};

/// Asks the producer of s, and of what s is made of, to stop. True: it was the first to ask.
TENDRIL_API bool request_stop(future_state_base& s) noexcept;

/// Parks until s is ready or the wait is given up.
///
/// \throws std::system_error  errc::would_deadlock: the result would have to come from the caller
/// \throws std::future_error  future_already_retrieved: another waits already
TENDRIL_API outcome wait_for_result(future_state_base& s, const wait_options& options);

/// The check alone, for any waiter.
///
/// \throws std::system_error  errc::would_deadlock: self is a fiber, and has to end or go on before s is ready
TENDRIL_API void throw_if_own_result(future_state_base& s, const waiter* self, const char* what);

template <class T>
class future_state : public future_state_base {
 public:
  result_slot<T> result;

 protected:
  ~future_state() = default;
};

/// The state of what a fiber computes: a stop request stops the fiber, and the fiber does not wait for itself.
template <class T>
class fiber_future_state : public future_state<T> {
 public:
  const fiber_core* runner() const noexcept override { return fiber; }
  void stop_producer() noexcept override;

  /// Set before the state is known to anybody who reads. Its fiber does not end before release_producer().
  fiber_core* fiber = nullptr;

 protected:
  ~fiber_future_state() = default;
};

/// stop_producer() of a state whose producer is this fiber.
TENDRIL_API void stop_fiber_and_unlock(fiber_core* fiber, state_life& life) noexcept;

template <class T>
void fiber_future_state<T>::stop_producer() noexcept {
  stop_fiber_and_unlock(fiber, this->life);
}

/// Called when a promise's future is cancelled or dropped. A list; belongs to the state.
struct cancel_hook {
  cancel_hook* next = nullptr;
  void (*end)(cancel_hook* self, bool run) noexcept = nullptr;  ///< runs it or not, and destroys it
};
TENDRIL_API void end_hooks(cancel_hook* first, bool run) noexcept;

/// The state of a promise.
template <class T>
class promise_state final : public future_state<T> {
 public:
  void add_hook(cancel_hook* h) noexcept {
    this->life.lock();
    if (this->life.is_requested() || !this->life.has_readers()) {
      this->life.unlock();
      end_hooks(h, true);
      return;
    }
    h->next = this->life.is_hooked() ? static_cast<cancel_hook*>(this->result.lent()) : nullptr;
    this->result.lend_room(h);
    if (!this->life.unlock_hooked())
      end_hooks(take_hooks(), true);  // the last reader went just then
  }
  /// The result's room is the result's again. Null: a request was faster, or there are none.
  cancel_hook* take_hooks() noexcept {
    this->life.lock();
    return take_and_unlock();
  }
  void stop_producer() noexcept override { end_hooks(take_and_unlock(), true); }

 private:
  cancel_hook* take_and_unlock() noexcept {
    if (!this->life.is_hooked()) {
      this->life.unlock();
      return nullptr;
    }
    auto* const first = static_cast<cancel_hook*>(this->result.lent());
    this->life.unlock_unhooked();
    return first;
  }
  void destroy() noexcept override { delete this; }
};

/// A continuation that may complete the next future. It gives back what is attached to that one instead
/// of running it, so that a chain of any length runs in a loop and not in a recursion.
struct chain_link : continuation {
  /// Does the work; returns what is to run next, or null. May destroy the link.
  continuation* (*step)(chain_link* self) noexcept = nullptr;

  chain_link() noexcept { run = &run_chain; }
  TENDRIL_API static void run_chain(continuation* first) noexcept;
};

}  // namespace tendril::detail
