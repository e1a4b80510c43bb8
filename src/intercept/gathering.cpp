// SPDX-License-Identifier: Apache-2.0
//
// Barriers, and the ends of threads. Nobody can look whether a barrier is about to open without being counted by it,
// and nothing tells of a thread's end but joining it. So both are waited for by a thread of the call's own, which is
// libc's thread at the barrier, or the one that joins.
//
// A tasklet that joins a thread keeps its slot meanwhile: who starts one and joins it mostly lets it use variables of
// his own. At a barrier it does not, for others who are to come may be bound to the same slot.
#include <pthread.h>
#include <cerrno>
#include <optional>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/symbols.hpp"

namespace tendril::detail {
namespace {

/// None: no limit.
std::optional<timespec> copy_of(const timespec* at) noexcept {
  return at != nullptr ? std::optional<timespec>(*at) : std::nullopt;
}

struct end_of_thread {
  int error;
  void* result;
};

/// `wait(&result)`: libc's function that waits for the end.
template <class Wait>
int join(symbol what, pthread_t thread, void** result, Wait wait) {
  end_of_thread end{EBUSY, nullptr};
  // Its own thread (EDEADLK) libc finds out by who calls; it does not wait then.
  if (::pthread_equal(thread, ::pthread_self()) != 0) end.error = wait(&end.result);
  else end.error = real().pthread_tryjoin_np(thread, &end.result);
  if (end.error == EBUSY)
    end = on_thread(what, keep_slot{}, [wait] {
      end_of_thread found{0, nullptr};
      found.error = wait(&found.result);
      return found;
    });
  if (end.error == 0 && result != nullptr) *result = end.result;
  return end.error;
}

}  // namespace

namespace calls {

int pthread_join(pthread_t thread, void** result) {
  return join(symbol::pthread_join, thread, result,
              [=](void** to) { return real().pthread_join(thread, to); });
}
int pthread_timedjoin_np(pthread_t thread, void** result, const timespec* at) {
  return join(symbol::pthread_timedjoin_np, thread, result,
              [thread, limit = copy_of(at)](void** to) {
                return real().pthread_timedjoin_np(thread, to, limit ? &*limit : nullptr);
              });
}
int pthread_clockjoin_np(pthread_t thread, void** result, clockid_t which, const timespec* at) {
  return join(symbol::pthread_clockjoin_np, thread, result,
              [thread, which, limit = copy_of(at)](void** to) {
                return real().pthread_clockjoin_np(thread, to, which, limit ? &*limit : nullptr);
              });
}

int pthread_barrier_wait(pthread_barrier_t* barrier) {
  return on_thread(symbol::pthread_barrier_wait,
                   [=] { return real().pthread_barrier_wait(barrier); });
}

}  // namespace calls
}  // namespace tendril::detail
