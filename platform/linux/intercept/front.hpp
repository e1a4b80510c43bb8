// SPDX-License-Identifier: Apache-2.0
//
// The front: libc's symbols, defined by an object that stands before libc.
//
//   program, libpq, ...  --read()-->  the front  --no fiber-->        libc's read()
//                                          '------on a fiber-->  hooks->read() in the runtime
//
// To add a symbol:
//   1. an entry in one of the lists that platform/intercept_symbols.def includes;
//   2. for kinds parks, disk, pool, aside, opens, always and creates nothing here: wrappers.cpp makes the wrapper. For own and
//      alone the wrapper: a definition of front_<name> in a file of this folder,
//          extern "C" int front_fcntl(int fd, int command, ...) { ... }
//      which asks for `hooks_here()` or `hooks_on_fiber()`, and calls real.<name> when that is null;
//   3. unless `alone`, `creates`, `disk`, `pool` or `aside`: a function tendril::detail::calls::<name> in src/intercept/, declared
//      already by calls.hpp there. It calls libc by the table that install.hpp there has, never by
//      name, and returns with errno set as libc would.
//
// Invariants
//  1. Everything here works at any time, before any constructor has run and after every destructor:
//     constant-initialized data, no allocation, nothing of the C++ library. libc's functions are looked
//     up at their first call: the members of `real` begin as functions that do so.
//  2. Without hooks a call costs a load and a jump. On a thread that is no fiber: a call of the runtime more.
//  3. After fork() the child has no hooks: there is no runtime in it. (A child of vfork() shares the
//     memory: see src/intercept/install.cpp.)
//  4. No exception passes, but a cancelled thread's unwinding does: nothing here has destructors.
//
// Compiled without sanitizers. Their own versions of these functions come first, unless this is preloaded, and call on
// into these. AddressSanitizer's may. ThreadSanitizer's poll() and its kin look away from whatever happens while
// they wait, so that what other fibers do meanwhile seems to be racy: there preload it.
// The functions have names of their own, with libc's as their symbols: so libc's headers, whose
// declarations differ in attributes and exception specifications, may be included.
#pragma once

#include "platform/intercept.hpp"

#include <sys/syscall.h>

#include <cerrno>

namespace tendril::platform::front {

extern real_calls real;
extern const intercept_hooks* installed;

/// How many handlers of signals the thread is in the middle of, of those that handlers.cpp has wrapped.
extern __thread unsigned handlers_running __attribute__((tls_model("initial-exec")));
/// Signals that have had such a handler: bit n - 1. Atomically.
extern std::uint64_t handled_signals;

/// The hooks; null while no runtime has been started.
inline const intercept_hooks* hooks_here() noexcept {
  // Acquire: pairs with install's release; the table is constant.
  return __atomic_load_n(&installed, __ATOMIC_ACQUIRE);
}
/// The hooks, if the caller is a fiber that can park.
inline const intercept_hooks* hooks_on_fiber() noexcept {
  const intercept_hooks* const h = hooks_here();
  return h != nullptr && h->parks() ? h : nullptr;
}
/// Passes on what a function that opens a descriptor returned.
inline int told(int fd) noexcept {
  if (fd >= 0)
    if (const intercept_hooks* const h = hooks_here()) h->opened(fd);
  return fd;
}

}  // namespace tendril::platform::front

#define TENDRIL_FRONT_EXPORT __attribute__((visibility("default")))

extern "C" {
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  TENDRIL_FRONT_EXPORT result front_##name parameters __asm__(#name);
#define TENDRIL_INTERCEPT_ALIAS(name, of)
#include "platform/intercept_symbols.def"
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS
}
