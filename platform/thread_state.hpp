// SPDX-License-Identifier: Apache-2.0
//
// Contract: what another thread of the process is doing, found out without disturbing it. A signal
// would tell more, but it ends some system calls early, and their callers may not expect that.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tendril::platform {

using thread_number = int;

/// The calling thread's number, as the system's tools show it.
thread_number this_thread_number() noexcept;

enum class thread_activity : std::uint8_t {
  unknown,  ///< the system does not tell
  running,  ///< computes, or would if it had a processor
  blocked,  ///< waits inside the kernel
  stopped,  ///< by a debugger or a job control signal
};

/// A snapshot. Some ten microseconds.
thread_activity activity_of(thread_number thread) noexcept;

struct blocked_call {
  long number = -1;                     ///< of the system call; -1: none is known
  const void* instruction = nullptr;    ///< where it was made; null: unknown
  const void* stack_pointer = nullptr;  ///< at that moment
};

/// Which system call the thread is in. Empty when it is in none, or the system does not tell.
blocked_call blocked_call_of(thread_number thread) noexcept;

/// The first thing on the stack [sp, high) that looks like a return address into another library or program
/// than the one the call was made from: where, mostly, the caller of that library is to be found. Null when
/// the stack pointer is not in [low, high). The stack may be in use meanwhile: what is read is a guess, but
/// it must stay mapped.
const void* likely_caller(const blocked_call& call, const void* low, const void* high) noexcept;

/// Up to `most` things on that stack that look like return addresses, into whatever code, innermost first; how many. Such as
/// are left over from calls that have returned are among them.
std::size_t likely_trace(const blocked_call& call, const void* low, const void* high,
                         const void** frames, std::size_t most) noexcept;

/// Writes "read+0x10 (libc.so.6)" or the bare address; always terminated. Not in a signal handler.
void describe_address(const void* address, char* text, std::size_t size) noexcept;

}  // namespace tendril::platform
