// SPDX-License-Identifier: Apache-2.0
#include "intercept/interruptions.hpp"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <mutex>
#include <new>

#include "intercept/install.hpp"
#include "intercept/parking_lot.hpp"

namespace tendril::detail {

const std::uint64_t* handled_signals = nullptr;

namespace {

/// Wake-ups left by handlers: a place for each, so that as many are woken as were meant to be. When all are taken,
/// everybody in line is woken, and looks.
///
///   key: null -----> being_used -----> the line's -----> being_used -----> null
///             add()             add()              wake()            wake()
///
/// A place that is being used is passed over by both: who is in the middle of add() calls the attendant after it.
class left_wakes {
 public:
  /// Async-signal-safe.
  void add(const void* key, std::uint32_t bits, unsigned most) noexcept {
    const std::size_t first = next_.fetch_add(1, std::memory_order_relaxed);
    for (std::size_t i = 0; i != places_.size(); ++i) {
      place& p = places_[(first + i) % places_.size()];
      const void* none = nullptr;
      // Acquire: pairs with the release by which wake() gave it up, whose loads are before our stores.
      if (!p.key.compare_exchange_strong(none, being_used(), std::memory_order_acquire,
                                         std::memory_order_relaxed))
        continue;
      p.bits = bits;
      p.most = most;
      // Release: these, and what came before in the handler, are before what the woken do.
      p.key.store(key, std::memory_order_release);
      return;
    }
    too_many_.store(true, std::memory_order_release);
  }
  void wake() noexcept {
    if (too_many_.load(std::memory_order_relaxed) &&
        too_many_.exchange(false, std::memory_order_acquire))
      parking_lot::wake_everybody();
    for (place& p : places_) {
      const void* key = p.key.load(std::memory_order_relaxed);
      // Without an attendant several may be here: one of them takes it.
      if (key == nullptr || key == being_used() ||
          !p.key.compare_exchange_strong(key, being_used(), std::memory_order_acquire,
                                         std::memory_order_relaxed))
        continue;
      const std::uint32_t bits = p.bits;
      const unsigned most = p.most;
      p.key.store(nullptr, std::memory_order_release);
      parking_lot::wake_some(key, bits, most);
    }
  }

 private:
  struct place {
    std::atomic<const void*> key{nullptr};
    std::uint32_t bits = 0;
    unsigned most = 0;
  };
  const void* being_used() const noexcept { return this; }

  std::array<place, 128> places_{};
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> too_many_{false};
};
constinit left_wakes left;

/// The thread. Its semaphore is libc's alone: no fiber ever waits for it.
class attendant {
 public:
  bool is_there() const noexcept { return there_.load(std::memory_order_acquire); }

  void start() noexcept {
    const std::lock_guard hold(mutex_);
    if (is_there() || ended_) return;
    static const int forks = ::pthread_atfork(nullptr, nullptr, &in_child);
    if (forks != 0) return;
    ::sem_init(&work_, 0, 0);
    ending_.store(false, std::memory_order_relaxed);
    sigset_t every;
    sigset_t before;
    ::sigfillset(&every);
    ::pthread_sigmask(SIG_SETMASK, &every, &before);
    const int error = ::pthread_create(
        &thread_, nullptr,
        [](void* self) -> void* {
          static_cast<attendant*>(self)->main();
          return nullptr;
        },
        this);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    // Release: a handler that sees it finds the semaphore.
    if (error == 0) there_.store(true, std::memory_order_release);
  }

  /// Async-signal-safe. False: nobody is there.
  bool call() noexcept {
    if (!is_there()) return false;
    // One that has not been taken up yet will see what we have left: see main().
    if (!called_.exchange(true, std::memory_order_acq_rel)) real().sem_post(&work_);
    return true;
  }

  void end() noexcept {
    const std::lock_guard hold(mutex_);
    ended_ = true;
    if (!there_.exchange(false, std::memory_order_acq_rel)) return;
    ending_.store(true, std::memory_order_release);
    real().sem_post(&work_);
    ::pthread_join(thread_, nullptr);
  }

 private:
  void main() noexcept {
    for (;;) {
      while (real().sem_wait(&work_) != 0) {
      }
      if (ending_.load(std::memory_order_acquire)) return;
      // Before we look: who leaves something later calls again.
      called_.exchange(false, std::memory_order_acq_rel);
      left.wake();
      deliver_interruptions();
    }
  }
  static void in_child() noexcept;

  std::mutex mutex_;
  std::atomic<bool> there_{false};
  std::atomic<bool> called_{false};
  std::atomic<bool> ending_{false};
  bool ended_ = false;
  sem_t work_{};
  pthread_t thread_{};
};

constinit attendant the_attendant;

/// It has no attendant, and perhaps the lock of one.
void attendant::in_child() noexcept {
  new (&the_attendant) attendant;
  forget_interruptions();
}

[[gnu::noinline]] void leave_to_attendant(const void* key, std::uint32_t bits,
                                          unsigned most) noexcept {
  left.add(key, bits, most);
  if (!the_attendant.call()) left.wake();
}

}  // namespace

bool any_handlers() noexcept {
  return handled_signals != nullptr && __atomic_load_n(handled_signals, __ATOMIC_ACQUIRE) != 0;
}

void attend_handlers() noexcept {
  if (the_attendant.is_there()) return;
  if (any_handlers() && !in_other_process()) the_attendant.start();
}

void dismiss_attendant() noexcept {
  if (!in_other_process()) the_attendant.end();
}

void handler_returned(int code, bool restarts) noexcept {
  const int before = errno;
  if (!in_other_process() && note_handled(code == SI_TKILL, restarts)) the_attendant.call();
  errno = before;
}

void wake_later(const void* key, std::uint32_t bits, unsigned most) noexcept {
  const int before = errno;
  if (most != 0 && !in_other_process()) leave_to_attendant(key, bits, most);
  errno = before;
}

void posted_in_handler(const void* semaphore) noexcept { wake_later(semaphore, 0, 1); }

interruptible_call::interruptible_call(interruptible kind) noexcept : interruptible_scope(kind) {
  attend_handlers();
}

}  // namespace tendril::detail
