// SPDX-License-Identifier: Apache-2.0
//
// Wrappers of what releases locks. Whoever does so, thread or fiber, finds out by one counter whether any fiber is
// in line for anything; see src/intercept/parking_lot.hpp.
#include "platform/linux/intercept/front.hpp"

using namespace tendril::platform;
using namespace tendril::platform::front;

namespace {

/// What libc did is before the look at the counter. On x86 the release was a locked instruction, which orders loads
/// after it as a fence does.
inline void after_release() noexcept {
#if defined(__x86_64__)
  asm volatile("" : : : "memory");
#else
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

inline bool anybody(const intercept_hooks& h) noexcept {
  return __atomic_load_n(h.locks_in_use, __ATOMIC_RELAXED) != 0;
}

inline void tell(const void* lock, release_kind kind) noexcept {
  const intercept_hooks* const h = hooks_here();
  if (h == nullptr) return;
  after_release();
  if (anybody(*h)) h->lock_released(lock, kind);
}

}  // namespace

extern "C" int front_pthread_mutex_unlock(pthread_mutex_t* m) {
  const intercept_hooks* const h = hooks_here();
  // A fiber that is recorded as owner has counted itself.
  if (h != nullptr && anybody(*h)) return h->pthread_mutex_unlock(m);
  const int result = real.pthread_mutex_unlock(m);
  if (h != nullptr && result == 0) {
    after_release();
    if (anybody(*h)) h->lock_released(m, release_kind::first);
  }
  return result;
}

extern "C" int front_pthread_cond_signal(pthread_cond_t* c) {
  const int result = real.pthread_cond_signal(c);
  tell(c, release_kind::first);
  return result;
}

extern "C" int front_pthread_cond_broadcast(pthread_cond_t* c) {
  const int result = real.pthread_cond_broadcast(c);
  tell(c, release_kind::all);
  return result;
}

extern "C" int front_pthread_rwlock_unlock(pthread_rwlock_t* l) {
  const intercept_hooks* const h = hooks_here();
  if (h != nullptr && anybody(*h)) return h->pthread_rwlock_unlock(l);
  const int result = real.pthread_rwlock_unlock(l);
  if (result == 0) tell(l, release_kind::sharers);
  return result;
}

// The one of them that handlers of signals may call. They may have interrupted what tell() would lead to.
extern "C" int front_sem_post(sem_t* s) {
  const int result = real.sem_post(s);
  if (result != 0) return result;
  const intercept_hooks* const h = hooks_here();
  if (h == nullptr) return 0;
  after_release();
  if (!anybody(*h)) return 0;
  if (handlers_running == 0) h->lock_released(s, release_kind::first);
  else h->posted_in_handler(s);
  return 0;
}

// What the core tries by. Here for the table of libc's functions; nothing to be done.
extern "C" int front_pthread_rwlock_tryrdlock(pthread_rwlock_t* l) {
  return real.pthread_rwlock_tryrdlock(l);
}
extern "C" int front_sem_trywait(sem_t* s) { return real.sem_trywait(s); }

// A thread that waits releases the mutex inside of libc, so those in line for it are told before.
extern "C" int front_pthread_cond_wait(pthread_cond_t* c, pthread_mutex_t* m) {
  if (const intercept_hooks* const h = hooks_here()) {
    if (h->parks()) return h->pthread_cond_wait(c, m);
    h->lock_waited_with(m);
  }
  return real.pthread_cond_wait(c, m);
}
extern "C" int front_pthread_cond_timedwait(pthread_cond_t* c, pthread_mutex_t* m,
                                            const timespec* at) {
  if (const intercept_hooks* const h = hooks_here()) {
    if (h->parks()) return h->pthread_cond_timedwait(c, m, at);
    h->lock_waited_with(m);
  }
  return real.pthread_cond_timedwait(c, m, at);
}
extern "C" int front_pthread_cond_clockwait(pthread_cond_t* c, pthread_mutex_t* m, clockid_t which,
                                            const timespec* at) {
  if (const intercept_hooks* const h = hooks_here()) {
    if (h->parks()) return h->pthread_cond_clockwait(c, m, which, at);
    h->lock_waited_with(m);
  }
  return real.pthread_cond_clockwait(c, m, which, at);
}
extern "C" int front_pthread_tryjoin_np(pthread_t thread, void** result) {
  return real.pthread_tryjoin_np(thread, result);
}

// ---- C11's. libc has them as these, with other codes for errors.

namespace {

static_assert(sizeof(mtx_t) == sizeof(pthread_mutex_t) && sizeof(cnd_t) == sizeof(pthread_cond_t) &&
              sizeof(once_flag) == sizeof(pthread_once_t) && sizeof(thrd_t) == sizeof(pthread_t));
pthread_mutex_t* lock_of(mtx_t* m) noexcept { return reinterpret_cast<pthread_mutex_t*>(m); }
pthread_cond_t* condition_of(cnd_t* c) noexcept { return reinterpret_cast<pthread_cond_t*>(c); }

int c11_code(int error) noexcept {
  switch (error) {
    case 0:
      return thrd_success;
    case EBUSY:
      return thrd_busy;
    case ENOMEM:
      return thrd_nomem;
    case ETIMEDOUT:
      return thrd_timedout;
    default:
      return thrd_error;
  }
}

}  // namespace

extern "C" {
int front_mtx_lock(mtx_t* m) { return c11_code(front_pthread_mutex_lock(lock_of(m))); }
int front_mtx_trylock(mtx_t* m) { return c11_code(front_pthread_mutex_trylock(lock_of(m))); }
int front_mtx_timedlock(mtx_t* m, const timespec* at) {
  return c11_code(front_pthread_mutex_timedlock(lock_of(m), at));
}
int front_mtx_unlock(mtx_t* m) { return c11_code(front_pthread_mutex_unlock(lock_of(m))); }
int front_cnd_wait(cnd_t* c, mtx_t* m) {
  return c11_code(front_pthread_cond_wait(condition_of(c), lock_of(m)));
}
int front_cnd_timedwait(cnd_t* c, mtx_t* m, const timespec* at) {
  return c11_code(front_pthread_cond_timedwait(condition_of(c), lock_of(m), at));
}
int front_cnd_signal(cnd_t* c) { return c11_code(front_pthread_cond_signal(condition_of(c))); }
int front_cnd_broadcast(cnd_t* c) {
  return c11_code(front_pthread_cond_broadcast(condition_of(c)));
}
void front_call_once(once_flag* once, void (*routine)()) {
  front_pthread_once(reinterpret_cast<pthread_once_t*>(once), routine);
}
int front_thrd_join(thrd_t thread, int* result) {
  void* value = nullptr;
  const int error = front_pthread_join(thread, &value);
  if (error == 0 && result != nullptr)
    *result = static_cast<int>(reinterpret_cast<std::intptr_t>(value));
  return c11_code(error);
}
int front_thrd_sleep(const timespec* time, timespec* left) {
  const int error = front_clock_nanosleep(CLOCK_REALTIME, 0, time, left);
  return error == 0 ? 0 : error == EINTR ? -1 : -2;
}
void front_thrd_yield() { front_sched_yield(); }
}
