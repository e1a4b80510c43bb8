// SPDX-License-Identifier: Apache-2.0
//
// The program's own thread-locals for each fiber, without touching the thread pointer: the program's part of the
// thread's block (not the libraries', not libc's) is copied out when another fiber of the same thread comes, and in
// again. Possible because the fibers stay on their threads, so that addresses keep their meaning for the fiber itself.
//
// Invariant: while a fiber runs code of the program, the thread's part is its own copy. The runtime's code does not
// read it. So it is enough to look when a call from the program into the runtime returns (hooks.cpp), and nothing
// is copied where the same fiber goes on.
//
// What it cannot do: an address of a thread-local that another thread or fiber was given leads to whatever fiber
// runs on that thread.
#pragma once

#include <cstddef>

namespace bench::tendril_run {

/// Before the program's main(). False: the program has no thread-locals, nothing is to be copied.
bool find_program_locals() noexcept;

/// A fiber's: as they are at a thread's beginning. Throws std::bad_alloc.
void* make_program_locals();
/// From now on the calling thread's block holds these.
void enter_program_locals(void* locals) noexcept;
/// At the end of the fiber they belong to, on its thread.
void free_program_locals(void* locals) noexcept;

std::size_t program_locals_bytes() noexcept;

}  // namespace bench::tendril_run
