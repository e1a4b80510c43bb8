// SPDX-License-Identifier: Apache-2.0
//
// For garbage collectors that stop threads by a signal and look through [stack pointer, bottom) of each: on threads
// that run fibers, that is not one stack. What an adaptor of a collector needs besides <tendril/inspect.hpp>; users
// include that adaptor (<tendril/gc.hpp>).
//
// A thread that sleeps for want of work, or on its own stack for a fiber, holds nothing that it could lose: the collector
// is told, and does not wake it only to have it sleep in a signal handler.
//
// A stopped thread stands on its own stack or on a fiber's; below that may lie stacks of hosts (fibers that have made a
// call which began another fiber), and in the end the thread's own. The collector is told that the stack ends where
// its own frames begin, which hold the registers that were interrupted, and the rest is visited here.
#pragma once

#include <tendril/config.hpp>
#include <tendril/inspect.hpp>

namespace tendril::detail {

using rest_step = void (*)(void* argument) noexcept;

/// What the adaptor does on each thread that runs fibers, on the thread itself.
struct thread_hooks {
  /// The thread begins, or runs a fiber for the first time. Gives the collector's name for the thread, and the bottom
  /// of its stack; `entered`: the collector did not know the thread, and is to be told by leave() of its end. Null:
  /// it will not have it.
  void* (*enter)(const void*& bottom, bool& entered) noexcept;
  void (*leave)() noexcept;
  /// The thread is about to sleep. Calls wait(argument), in which it need not be stopped: what it stood on before stays
  /// as it is, and no code of the program's runs. If the collector has stopped the others when that returns, it waits
  /// until they go on. Then over(argument), unless null, with the collector's lock held.
  void (*rest)(rest_step wait, rest_step over, void* argument) noexcept;
};

using bottom_setter = void (*)(void* handle, const void* bottom);

/// Before the first runtime starts, once: by which signal threads are stopped.
/// \throws std::system_error  std::errc::operation_not_permitted: nobody handles the signal, or it was called before
TENDRIL_API void observe_threads(const thread_hooks& hooks, int suspend_signal);

/// The library's large tables in static memory, in which nothing is to be found.
TENDRIL_API void visit_static_tables(range_visitor visit);

/// With the collector's lock held: whether all others that run fibers are stopped, or cannot go on without that lock.
TENDRIL_API bool threads_are_stopped() noexcept;

/// If they are, on the thread that has stopped them: what is in use of the stacks on which they run. For each,
/// set(handle, low) says where the collector's part ends; after the collector has looked, restore_bottoms() puts back
/// what was.
TENDRIL_API void visit_stopped_threads(range_visitor visit, bottom_setter set);
TENDRIL_API void restore_bottoms(bottom_setter set);

}  // namespace tendril::detail
