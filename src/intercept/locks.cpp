// SPDX-License-Identifier: Apache-2.0
//
// libc's locks on fibers: see parking_lot.hpp. Each is tried by libc's own function, and what it answers is the
// answer, but where a fiber would have to wait. What the kernel knows of (robust mutexes, priority protocols,
// locks that processes share) blocks the thread, whose worker is given to another one before.
//
// A condition variable's signal goes to libc and to the line of fibers: if both have waiters, one of each wakes up,
// which POSIX allows. A fiber is in line before it unlocks the mutex, so no signal passes it by.
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <optional>

#include "base/check.hpp"
#include "base/yield.hpp"
#include "intercept/calls.hpp"
#include "intercept/clocks.hpp"
#include "intercept/in_place.hpp"
#include "intercept/install.hpp"
#include "intercept/interruptions.hpp"
#include "intercept/parking_lot.hpp"
#include "platform/lock_words.hpp"
#include "sched/thread_stay.hpp"

namespace tendril::detail {
namespace {

using platform::mutex_kind;

/// When who is in line looks again, see invariant 2 of the parking lot. In the bucket's lock, in line.
class second_look {
 public:
  time_point limit(const lot_bucket& b, const wait_node& n, time_point deadline) noexcept {
    if (!parking_lot::is_silent(n.cell) || !b.is_first(n)) return deadline;
    const time_point then = clock::now() + patience_;
    patience_ = std::min(2 * patience_, most);
    return std::min(then, deadline);
  }

 private:
  static constexpr std::chrono::microseconds most{3200};
  std::chrono::microseconds patience_{100};
};

/// Tries for a moment, on the thread, before anybody parks: see the end of parking_lot.hpp's head. `busy`: still
/// taken, by somebody who keeps it.
template <class Try>
int wait_on_thread(const void* key, int busy, const clock_deadline& deadline, Try&& try_it,
                   std::chrono::microseconds patience = parking_lot::patience) {
  if (parking_lot::is_kept(key)) return busy;
  const time_point begun = clock::now();
  const time_point end = std::min<time_point>(begun + patience, deadline.for_wait());
  constexpr timespec pause{0, 50'000};
  for (unsigned round = 0;; ++round) {
    // Mostly it is a matter of some instructions; if not, the holder may be waiting for this core.
    if (round < 50) yield_thread();
    else real().clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
    if (const int result = try_it(); result != busy) return result;
    const time_point now = clock::now();
    if (now < end) continue;
    if (now - begun >= patience) parking_lot::mark_kept(key);
    return busy;
  }
}

/// Until `try_it` says something else than `busy`, or the deadline has passed: ETIMEDOUT. Returns errnos. `breaks`: by
/// which handlers it is interrupted, EINTR.
template <class Try>
int wait_in_line(const void* key, int busy, bool shared, const clock_deadline& deadline,
                 const char* reason, Try&& try_it,
                 std::optional<interruptible> breaks = std::nullopt) {
  const thread_stay here;
  std::optional<interruptible_call> call;
  if (breaks) call.emplace(*breaks);
  second_look looks;
  for (bool again = false;; again = true) {
    lot_bucket& b = parking_lot::bucket_of(key);
    b.lock.lock();
    wait_node& n = b.enlist(key, again, shared);
    if (const int result = try_it(); result != busy) {
      b.delist(n);
      b.lock.unlock();
      return result;
    }
    const outcome how = b.park(n, {.deadline = looks.limit(b, n, deadline.for_wait()),
                                   .cancelable = false,
                                   .reason = reason,
                                   .on_context = false,
                                   .interruption = call ? call->call() : nullptr});
    const bool broken = how == outcome::interrupted;
    if (broken || (how != outcome::signalled && deadline.over())) {
      if (parking_lot::is_silent(key)) parking_lot::wake_first(key);  // to look in our place
      return broken ? EINTR : ETIMEDOUT;
    }
  }
}

// ---- Mutexes -----------------------------------------------------------------------------------

/// What a fiber that owns r's mutex already gets for locking it once more. In the bucket's lock.
int lock_again(pthread_mutex_t* m, owner_record& r, bool tries) noexcept {
  if (platform::kind_of(*m) == mutex_kind::checking) return tries ? EBUSY : EDEADLK;
  const int result = real().pthread_mutex_trylock(m);
  if (result == 0) ++r.depth;
  return result;
}

/// A mutex whose owner is a thread. deadline null: does not wait, EBUSY.
int lock_owned(pthread_mutex_t* m, const clock_deadline* deadline) {
  const fiber_core* const self = current_fiber();
  lot_bucket& b = parking_lot::bucket_of(m);
  auto* fresh = new (std::nothrow) owner_record;
  if (fresh == nullptr) return EAGAIN;
  enter_stay();  // for as long as it holds the mutex
  int result = EBUSY;
  const auto free_of_others = [&] {
    b.lock.lock();
    const owner_record* const r = b.owner_of(m);
    const bool taken = r != nullptr && r->owner != self;
    b.lock.unlock();
    return taken ? EBUSY : 0;
  };
  if (deadline != nullptr && free_of_others() == EBUSY)
    wait_on_thread(m, EBUSY, *deadline, free_of_others);
  second_look looks;
  for (bool again = false;; again = true) {
    b.lock.lock();
    if (owner_record* const r = b.owner_of(m); r != nullptr && r->owner == self) {
      result = lock_again(m, *r, deadline == nullptr);
      break;
    }
    wait_node* const n = deadline != nullptr ? &b.enlist(m, again) : nullptr;
    // For libc another fiber of this thread would be the owner once more.
    result = b.owner_of(m) == nullptr ? real().pthread_mutex_trylock(m) : EBUSY;
    if (result == 0) {
      b.own(*fresh, m, self);
      fresh = nullptr;
    }
    if (result != EBUSY || n == nullptr) {
      if (n != nullptr) b.delist(*n);
      break;
    }
    const time_point until = looks.limit(b, *n, deadline->for_wait());
    if (!b.park(*n, until, "pthread_mutex_lock") && deadline->over()) {
      if (parking_lot::is_silent(m)) parking_lot::wake_first(m);
      b.lock.lock();
      result = ETIMEDOUT;
      break;
    }
  }
  b.lock.unlock();
  if (fresh != nullptr) {
    leave_stay();
    delete fresh;
  }
  return result;
}

int lock(pthread_mutex_t* m, const clock_deadline& deadline) {
  switch (platform::kind_of(*m)) {
    case mutex_kind::plain:
      break;
    case mutex_kind::recursive:
    case mutex_kind::checking:
      return lock_owned(m, &deadline);
    case mutex_kind::foreign:
      if (const int result = real().pthread_mutex_trylock(m); result != EBUSY) return result;
      return block_in_place([&] {
        return deadline.never ? real().pthread_mutex_lock(m)
                              : real().pthread_mutex_clocklock(m, deadline.which, &deadline.at);
      });
  }
  const auto try_it = [m] { return real().pthread_mutex_trylock(m); };
  if (const int result = try_it(); result != EBUSY) return result;
  if (const int result = wait_on_thread(m, EBUSY, deadline, try_it); result != EBUSY) return result;
  return wait_in_line(m, EBUSY, false, deadline, "pthread_mutex_lock", try_it);
}

/// Any thread. Has its record and no other.
int unlock_owned(pthread_mutex_t* m, bool& recorded) noexcept {
  lot_bucket& b = parking_lot::bucket_of(m);
  b.lock.lock();
  owner_record* const r = b.owner_of(m);
  recorded = r != nullptr;
  if (r == nullptr || r->owner != current_fiber()) {
    b.lock.unlock();
    return EPERM;
  }
  const int result = real().pthread_mutex_unlock(m);
  if (result != 0 || --r->depth != 0) {
    b.lock.unlock();
    return result;
  }
  b.disown(*r);
  waiter* const who = b.take_first(m);
  b.lock.unlock();
  leave_stay();
  delete r;
  if (who != nullptr) unpark(who);
  return 0;
}

int unlock(pthread_mutex_t* m) noexcept {
  const mutex_kind kind = platform::kind_of(*m);
  if (kind == mutex_kind::recursive || kind == mutex_kind::checking) {
    bool recorded = false;
    const int result = unlock_owned(m, recorded);
    if (recorded) return result;
  }
  const int result = real().pthread_mutex_unlock(m);
  if (result == 0) parking_lot::wake_first(m);
  return result;
}

// ---- Condition variables -----------------------------------------------------------------------

int wait_for_signal(pthread_cond_t* c, pthread_mutex_t* m, const clock_deadline& deadline) {
  const thread_stay here;
  if (platform::is_shared(*c)) {
    parking_lot::mark_silent(m);
    return block_in_place([&] {
      return deadline.never ? real().pthread_cond_wait(c, m)
                            : real().pthread_cond_clockwait(c, m, deadline.which, &deadline.at);
    });
  }
  lot_bucket& b = parking_lot::bucket_of(c);
  b.lock.lock();
  wait_node& n = b.enlist(c, false);
  b.lock.unlock();
  const int unlocked = unlock(m);
  b.lock.lock();
  if (unlocked != 0) {
    b.delist(n);
    b.lock.unlock();
    return unlocked;
  }
  // Early wake-ups are allowed, so a clock that was set back is its caller's to look at.
  const bool signalled = b.park(n, deadline.for_wait(), "pthread_cond_wait");
  const int locked = lock(m, clock_deadline::none());
  if (locked != 0) return locked;
  return !signalled && deadline.over() ? ETIMEDOUT : 0;
}

int checked_wait(pthread_cond_t* c, pthread_mutex_t* m, clockid_t which, const timespec* at) {
  if (!is_valid(*at)) return EINVAL;
  return wait_for_signal(c, m, clock_deadline::of(which, *at));
}

// ---- Read-write locks, semaphores --------------------------------------------------------------

bool is_clock(clockid_t which) noexcept {
  return which == CLOCK_REALTIME || which == CLOCK_MONOTONIC;
}

int lock_for_thread(pthread_rwlock_t* l, bool shared, const clock_deadline& deadline) {
  const auto try_it = [l, shared] {
    return shared ? real().pthread_rwlock_tryrdlock(l) : real().pthread_rwlock_trywrlock(l);
  };
  if (const int result = try_it(); result != EBUSY) return result;
  if (!deadline.never && !is_valid(deadline.at)) return EINVAL;
  if (platform::is_shared(*l))
    return block_in_place([&] {
      if (deadline.never)
        return shared ? real().pthread_rwlock_rdlock(l) : real().pthread_rwlock_wrlock(l);
      return shared ? real().pthread_rwlock_clockrdlock(l, deadline.which, &deadline.at)
                    : real().pthread_rwlock_clockwrlock(l, deadline.which, &deadline.at);
    });
  if (const int result = wait_on_thread(l, EBUSY, deadline, try_it); result != EBUSY) return result;
  return wait_in_line(l, EBUSY, shared, deadline, "pthread_rwlock", try_it);
}

/// libc knows the writer's thread, and takes an unlock by another one for a reader's: a fiber that writes
/// stays on its thread. deadline null: does not wait.
int lock(pthread_rwlock_t* l, bool shared, const clock_deadline* deadline) {
  auto* const record = shared ? nullptr : new (std::nothrow) owner_record;
  if (!shared && record == nullptr) return EAGAIN;
  const int result = deadline != nullptr ? lock_for_thread(l, shared, *deadline)
                                         : real().pthread_rwlock_trywrlock(l);
  if (result != 0) {
    delete record;
  } else if (!shared) {
    enter_stay();
    lot_bucket& b = parking_lot::bucket_of(l);
    b.lock.lock();
    b.own(*record, l, current_fiber());
    b.lock.unlock();
  }
  return result;
}
int lock(pthread_rwlock_t* l, bool shared, const clock_deadline& deadline) {
  return lock(l, shared, &deadline);
}

/// Any thread.
int unlock(pthread_rwlock_t* l) noexcept {
  lot_bucket& b = parking_lot::bucket_of(l);
  b.lock.lock();
  owner_record* const r = b.owner_of(l);
  if (r != nullptr && r->owner != current_fiber()) {
    b.lock.unlock();
    return EPERM;
  }
  const int result = real().pthread_rwlock_unlock(l);
  if (r != nullptr && result == 0) b.disown(*r);
  b.lock.unlock();
  if (result != 0) return result;
  if (r != nullptr) {
    leave_stay();
    delete r;
  }
  parking_lot::wake_sharers(l);
  return 0;
}

// errno belongs to the thread: out of line, both.
[[gnu::noinline]] int error_of(int result) noexcept { return result == 0 ? 0 : errno; }
[[gnu::noinline]] int fail(int error) noexcept {
  if (error == 0) return 0;
  errno = error;
  return -1;
}

int wait_for(sem_t* s, const clock_deadline& deadline) {
  const auto try_it = [s] { return error_of(real().sem_trywait(s)); };
  if (const int result = try_it(); result != EAGAIN) return result;
  if (!deadline.never && !is_valid(deadline.at)) return EINVAL;
  if (platform::is_shared(*s))
    return block_in_place([&] {
      return error_of(deadline.never ? real().sem_wait(s)
                                     : real().sem_clockwait(s, deadline.which, &deadline.at));
    });
  return wait_in_line(s, EAGAIN, false, deadline, "sem_wait", try_it,
                      interruptible::unless_restarted);
}

}  // namespace

void lock_waited_with(const void* mutex) noexcept { parking_lot::mark_silent(mutex); }

void lock_released(const void* lock, platform::release_kind kind) noexcept {
  switch (kind) {
    case platform::release_kind::first:
      parking_lot::wake_first(lock);
      break;
    case platform::release_kind::sharers:
      parking_lot::wake_sharers(lock);
      break;
    case platform::release_kind::all:
      parking_lot::wake_all(lock);
      break;
  }
}

namespace calls {

int pthread_mutex_lock(pthread_mutex_t* m) { return lock(m, clock_deadline::none()); }

int pthread_mutex_trylock(pthread_mutex_t* m) {
  const mutex_kind kind = platform::kind_of(*m);
  if (kind == mutex_kind::recursive || kind == mutex_kind::checking) return lock_owned(m, nullptr);
  return real().pthread_mutex_trylock(m);
}

int pthread_mutex_timedlock(pthread_mutex_t* m, const timespec* at) {
  return calls::pthread_mutex_clocklock(m, CLOCK_REALTIME, at);
}

int pthread_mutex_clocklock(pthread_mutex_t* m, clockid_t which, const timespec* at) {
  if (!is_clock(which)) return EINVAL;
  if (!is_valid(*at)) {
    const int result = calls::pthread_mutex_trylock(m);
    return result == EBUSY ? EINVAL : result;
  }
  return lock(m, clock_deadline::of(which, *at));
}

int pthread_mutex_unlock(pthread_mutex_t* m) { return unlock(m); }

int pthread_cond_wait(pthread_cond_t* c, pthread_mutex_t* m) {
  return wait_for_signal(c, m, clock_deadline::none());
}
int pthread_cond_timedwait(pthread_cond_t* c, pthread_mutex_t* m, const timespec* at) {
  return checked_wait(c, m, platform::clock_of(*c), at);
}
int pthread_cond_clockwait(pthread_cond_t* c, pthread_mutex_t* m, clockid_t which,
                           const timespec* at) {
  return is_clock(which) ? checked_wait(c, m, which, at) : EINVAL;
}

int pthread_rwlock_trywrlock(pthread_rwlock_t* l) { return lock(l, false, nullptr); }
int pthread_rwlock_unlock(pthread_rwlock_t* l) { return unlock(l); }
int pthread_rwlock_rdlock(pthread_rwlock_t* l) { return lock(l, true, clock_deadline::none()); }
int pthread_rwlock_wrlock(pthread_rwlock_t* l) { return lock(l, false, clock_deadline::none()); }
int pthread_rwlock_timedrdlock(pthread_rwlock_t* l, const timespec* at) {
  return lock(l, true, clock_deadline::of(CLOCK_REALTIME, *at));
}
int pthread_rwlock_timedwrlock(pthread_rwlock_t* l, const timespec* at) {
  return lock(l, false, clock_deadline::of(CLOCK_REALTIME, *at));
}
int pthread_rwlock_clockrdlock(pthread_rwlock_t* l, clockid_t which, const timespec* at) {
  return is_clock(which) ? lock(l, true, clock_deadline::of(which, *at)) : EINVAL;
}
int pthread_rwlock_clockwrlock(pthread_rwlock_t* l, clockid_t which, const timespec* at) {
  return is_clock(which) ? lock(l, false, clock_deadline::of(which, *at)) : EINVAL;
}

int sem_wait(sem_t* s) { return fail(wait_for(s, clock_deadline::none())); }
int sem_timedwait(sem_t* s, const timespec* at) {
  return fail(wait_for(s, clock_deadline::of(CLOCK_REALTIME, *at)));
}
int sem_clockwait(sem_t* s, clockid_t which, const timespec* at) {
  return fail(is_clock(which) ? wait_for(s, clock_deadline::of(which, *at)) : EINVAL);
}

int pthread_once(pthread_once_t* once, void (*routine)()) {
  // For libc a fiber that runs the routine is a thread that does: others would block their threads. So fibers pass
  // one by one, by the record that mutexes have.
  if (platform::is_done(*once)) return 0;
  const fiber_core* const self = current_fiber();
  lot_bucket& b = parking_lot::bucket_of(once);
  const thread_stay here;
  const auto free_or_done = [&] {
    b.lock.lock();
    const bool taken = b.owner_of(once) != nullptr;
    b.lock.unlock();
    return taken && !platform::is_done(*once) ? EBUSY : 0;
  };
  for (bool again = false;; again = true) {
    // Setting up takes longer than what locks are held for: files are read.
    constexpr auto patience = 100 * parking_lot::patience;
    while (free_or_done() == EBUSY &&
           wait_on_thread(once, EBUSY, clock_deadline::none(), free_or_done, patience) == 0) {
    }
    if (platform::is_done(*once)) return 0;
    b.lock.lock();
    if (b.owner_of(once) == nullptr) break;
    if (!parking_lot::is_kept(once)) {  // somebody was quicker
      b.lock.unlock();
      continue;
    }
    wait_node& n = b.enlist(once, again);
    b.park(n, no_deadline, "pthread_once");
  }
  auto* const record = new (std::nothrow) owner_record;
  if (record != nullptr) b.own(*record, once, self);
  b.lock.unlock();
  struct passed {
    lot_bucket& b;
    pthread_once_t* once;
    owner_record* record;
    ~passed() {
      if (record == nullptr) return;
      b.lock.lock();
      b.disown(*record);
      b.lock.unlock();
      delete record;
      parking_lot::wake_all(once);
    }
  } const at_the_end{b, once, record};
  return real().pthread_once(once, routine);
}

}  // namespace calls
}  // namespace tendril::detail
