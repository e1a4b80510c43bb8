// SPDX-License-Identifier: Apache-2.0
//
// CPU time of the calling thread: for slices of pure computation on a machine that has other things to
// do. Page faults and system calls are in it, waiting for the processor is not. A
// fiber must not change threads between two readings.
#pragma once

namespace bench {

/// In nanoseconds.
double thread_cpu_ns() noexcept;
/// The same of all threads of the process: where what is measured may change threads, and the others sleep.
double process_cpu_ns() noexcept;

}  // namespace bench
