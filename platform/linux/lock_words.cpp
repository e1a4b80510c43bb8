// SPDX-License-Identifier: Apache-2.0
//
// glibc's layouts. Those of mutexes, condition variables and read-write locks are in its public headers (static
// initializers are made of them) and thus part of its binary interface. That of sem_t is not: the place
// of the mark is found out by making one of each sort.
#include "platform/lock_words.hpp"

#include <cstddef>
#include <cstring>

namespace tendril::platform {
namespace {

// Bits of __kind, beside the type in the lowest two.
constexpr int type_bits = 3;
constexpr int robust = 16;
constexpr int priority_inherit = 32;
constexpr int priority_protect = 64;
constexpr int process_shared = 128;

// Bits of __wrefs.
constexpr unsigned condition_shared = 1;
constexpr unsigned condition_monotonic = 2;

/// The first byte in which a semaphore of many processes differs from one of this.
std::size_t find_shared_mark() noexcept {
  sem_t mine, theirs;
  std::memset(&mine, 0, sizeof mine);
  std::memset(&theirs, 0, sizeof theirs);
  if (::sem_init(&mine, 0, 0) != 0 || ::sem_init(&theirs, 1, 0) != 0) return sizeof(sem_t);
  std::size_t i = 0;
  while (i != sizeof(sem_t) &&
         reinterpret_cast<const char*>(&mine)[i] == reinterpret_cast<const char*>(&theirs)[i])
    ++i;
  return i;
}

}  // namespace

mutex_kind kind_of(const pthread_mutex_t& m) noexcept {
  const int kind = __atomic_load_n(&m.__data.__kind, __ATOMIC_RELAXED);
  if ((kind & (robust | priority_inherit | priority_protect | process_shared)) != 0)
    return mutex_kind::foreign;
  switch (kind & type_bits) {
    case PTHREAD_MUTEX_RECURSIVE:
      return mutex_kind::recursive;
    case PTHREAD_MUTEX_ERRORCHECK:
      return mutex_kind::checking;
    default:
      return mutex_kind::plain;
  }
}

bool is_shared(const pthread_cond_t& c) noexcept {
  return (__atomic_load_n(&c.__data.__wrefs, __ATOMIC_RELAXED) & condition_shared) != 0;
}

bool is_shared(const pthread_rwlock_t& l) noexcept { return l.__data.__shared != 0; }

bool is_shared(const sem_t& s) noexcept {
  static const std::size_t mark = find_shared_mark();
  return mark != sizeof(sem_t) && reinterpret_cast<const char*>(&s)[mark] != 0;
}

// Bit 1; bit 0 while the routine runs.
bool is_done(const pthread_once_t& once) noexcept {
  return (__atomic_load_n(&once, __ATOMIC_ACQUIRE) & 2) != 0;
}

clockid_t clock_of(const pthread_cond_t& c) noexcept {
  return (__atomic_load_n(&c.__data.__wrefs, __ATOMIC_RELAXED) & condition_monotonic) != 0
             ? CLOCK_MONOTONIC
             : CLOCK_REALTIME;
}

}  // namespace tendril::platform
