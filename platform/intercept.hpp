// SPDX-License-Identifier: Apache-2.0
//
// Contract between the two halves of interception.
//
//   the front   a small shared object that stands before libc in lookup order (linked or preloaded) and
//               defines libc's symbols; knows nothing of fibers (linux/intercept/)
//   the core    in the library: what each call does on a fiber (src/intercept/)
//
// A runtime that starts looks for the function named by `install_symbol`. Where there is a front, it hands
// over its hooks and receives libc's own functions. So a static and a shared library, a linked and
// a preloaded front all work alike, and a program without a front pays nothing.
//
// Both tables are made of intercept_symbols.def: one member a symbol. Members are added at any place;
// `version` changes with each such change, so that halves of different builds refuse each other.
#pragma once

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <wchar.h>

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include <tendril/config.hpp>

// Of headers that would bring macros.
struct __dirstream;
struct __res_state;
struct addrinfo;
struct aiocb;
struct dirent;
struct epoll_event;
struct gaicb;
struct group;
struct hostent;
struct mmsghdr;
struct passwd;
struct rusage;
struct sembuf;
struct spwd;
struct stat;
struct statfs;
struct statvfs;
struct statx;
struct termios;

namespace tendril::platform {

/// libc's own functions, whoever stands before them in lookup order.
struct real_calls {
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  result(*name) parameters;
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
};

/// Who wakes up when a lock has been released.
enum class release_kind : int {
  first,    ///< in line
  sharers,  ///< all that would share it; if there are none, the first in line
  all,
};

/// Among the flags of sigaction(2): the action is the runtime's own, its handler is not wrapped. The kernel ignores it
/// where there is no front.
inline constexpr int sa_of_the_runtime = 0x00100000;

/// What the core has for each symbol; null for kinds that need nothing of it.
struct intercept_hooks {
  /// Where the front puts its table before it calls any of these.
  const real_calls** real;
  /// Whether the caller is a fiber that can park here and now: it runs on its own stack, is not pinned, and
  /// is in no code of the runtime's.
  bool (*parks)() noexcept;
  /// A descriptor has been opened by libc: whatever is known of the number is about another file.
  void (*opened)(int fd) noexcept;
  /// Read atomically. 0: no fiber waits for a lock of libc's, and none is recorded as the owner of one.
  const std::uint32_t* locks_in_use;
  /// A lock was released by libc, while that was not 0.
  void (*lock_released)(const void* lock, release_kind kind) noexcept;
  /// Somebody is about to wait for a condition in libc with that mutex, which libc releases without telling.
  void (*lock_waited_with)(const void* mutex) noexcept;
  /// Where the front puts the address of the set of signals that have had a handler of the program's: bit n - 1. Read
  /// atomically.
  const std::uint64_t** handled_signals;
  /// Such a handler was installed, not in a handler.
  void (*handler_installed)() noexcept;
  /// One has returned, on this thread. In the handler still, so anything may have been interrupted. `code`: si_code;
  /// `restarts`: SA_RESTART.
  void (*handled)(int code, bool restarts) noexcept;
  /// sem_post() was called in a handler, while locks_in_use was not 0.
  void (*posted_in_handler)(const void* semaphore) noexcept;
  /// The same of syscall(SYS_futex) with an operation that wakes; the rest of its arguments.
  long (*futex_in_handler)(long word, long operation, long value, long timeout, long word2,
                           long value3) noexcept;

#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  result(*name) parameters;
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
};

/// A hash of the list: names, kinds and order; and of how many hooks there are besides.
constexpr std::uint64_t intercept_version() noexcept {
  std::uint64_t hash = 14695981039346656037U ^ sizeof(intercept_hooks);
  const char* const names[] = {
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
#kind, #result, #name, #parameters,
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
  };
  for (const char* name : names)
    for (; *name != 0; ++name) hash = (hash ^ static_cast<unsigned char>(*name)) * 1099511628211U;
  return hash;
}

/// What people are told of it: the version of Tendril and the hash.
constexpr auto intercept_version_text() noexcept {
  struct text {
    char chars[64] = {};
  } result;
  char* to = result.chars;
  for (const char* c = TENDRIL_VERSION_STRING " (symbols "; *c != 0; ++c) *to++ = *c;
  const std::uint64_t version = intercept_version();
  for (int shift = 60; shift >= 0; shift -= 4) *to++ = "0123456789abcdef"[version >> shift & 15];
  *to = ')';
  return result;
}

/// Why hooks were not installed.
enum class install_result : int {
  installed,
  other_version,  ///< front and core are of different builds
  hidden,         ///< libc comes before the front in lookup order
};

struct install_answer {
  /// For messages: where the front is, and for `hidden` the first symbol that was looked up and where it is.
  const char* front;
  const char* symbol;
  const char* found_in;
};

/// The front's one function of its own. Null hooks: none from now on. Any thread.
using install_function = install_result (*)(std::uint64_t version, const intercept_hooks* hooks,
                                            install_answer* answer);
inline constexpr const char* install_symbol = "tendril_intercept_install";
/// A text of the front's, as intercept_version_text(). A symbol of its own, because halves of any two versions must be
/// able to say what is wrong: neither the function's type nor install_answer ever changes.
inline constexpr const char* version_symbol = "tendril_intercept_version";

}  // namespace tendril::platform
