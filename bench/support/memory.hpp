// SPDX-License-Identifier: Apache-2.0
//
// What this process occupies. Resident pages alone would flatter anything that spreads its memory
// thinly: a million stacks of one page each also need page tables (128 bytes a stack), so both are
// read. Kernel stacks are in neither, and are a system-wide figure.
#pragma once

#include <cstdint>

namespace bench {

struct memory_use {
  std::uint64_t resident_bytes = 0;      ///< VmRSS
  std::uint64_t peak_bytes = 0;          ///< VmHWM
  std::uint64_t page_table_bytes = 0;    ///< VmPTE
  std::uint64_t kernel_stack_bytes = 0;  ///< KernelStack, of the whole machine
  std::uint64_t mappings = 0;            ///< lines of /proc/self/maps
};

/// Reads /proc. Opens files, so it allocates: take the first reading twice and keep the second.
memory_use read_memory_use();
/// The same of another process. Throws std::runtime_error when it has ended.
memory_use read_memory_use_of(int pid);

}  // namespace bench
