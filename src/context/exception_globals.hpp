// SPDX-License-Identifier: Apache-2.0
//
// What belongs to a flow of control but is kept per thread by the C and C++ runtimes, and therefore
// must travel with a fiber: the stack of caught exceptions, the count of uncaught ones, and errno.
//
// Without the first two, a fiber that parks inside a catch block and another one that throws rethrow
// each other's exceptions. Neither libstdc++ nor fcontext saves them.
#pragma once

#include <cxxabi.h>
#include <cerrno>

namespace tendril::detail {

/// The Itanium C++ ABI's __cxa_eh_globals (section 2.2.2): not declared by any installed header.
struct exception_state {
  void* caught = nullptr;
  unsigned int uncaught = 0;
};

/// Where the present thread keeps them. Taken once per worker thread, from that thread: the
/// addresses must never be computed on a fiber, where a compiler may keep them across a migration.
struct thread_slots {
  exception_state* exceptions = nullptr;
  int* error_number = nullptr;

  static thread_slots of_this_thread() noexcept {
    return {reinterpret_cast<exception_state*>(abi::__cxa_get_globals()), &errno};
  }
};

/// Lives on the stack of the fiber that is switched away from.
struct flow_state {
  exception_state exceptions;
  int error_number;

  /// Member by member: compilers read a struct by one wide load, which waits for the narrower stores of the
  /// fiber that has just been switched to (2 ns of a yield).
  explicit flow_state(const thread_slots& from) noexcept
      : exceptions{from.exceptions->caught, from.exceptions->uncaught},
        error_number(*from.error_number) {}
  void restore(const thread_slots& to) const noexcept {
    *to.exceptions = exceptions;
    *to.error_number = error_number;
  }
  static void clear(const thread_slots& slots) noexcept {
    *slots.exceptions = {};
    *slots.error_number = 0;
  }
};

}  // namespace tendril::detail
