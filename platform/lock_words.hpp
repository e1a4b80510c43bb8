// SPDX-License-Identifier: Apache-2.0
//
// Contract: what the system's locks tell of themselves, beyond what POSIX lets one ask.
#pragma once

#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#include <cstdint>

namespace tendril::platform {

enum class mutex_kind : std::uint8_t {
  plain,      ///< any thread may unlock it
  recursive,  ///< its owner is a thread, which may lock it again
  checking,   ///< its owner is a thread, which is told when it locks it again
  foreign,  ///< robust, with a priority protocol, or shared between processes: the kernel knows of it
};
mutex_kind kind_of(const pthread_mutex_t& m) noexcept;

/// Whether processes share it.
bool is_shared(const pthread_cond_t& c) noexcept;
bool is_shared(const pthread_rwlock_t& l) noexcept;
bool is_shared(const sem_t& s) noexcept;

/// Whether its routine has returned.
bool is_done(const pthread_once_t& once) noexcept;

/// Whose deadlines are for pthread_cond_timedwait.
clockid_t clock_of(const pthread_cond_t& c) noexcept;

}  // namespace tendril::platform
