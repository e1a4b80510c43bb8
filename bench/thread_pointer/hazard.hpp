// SPDX-License-Identifier: Apache-2.0
//
// One thing that a thread's program may do, done on a block of thread-locals that is no thread's.
#pragma once

#include "bench/thread_pointer/thread_block.hpp"

#include <string>
#include <vector>

namespace bench::thread_pointer {

struct hazard {
  const char* name;
  /// What a thread of its own would answer.
  const char* right;
  /// Runs in a process of its own. What it found; a crash is an answer, too.
  std::string (*find_out)(furnishing);
  /// On Debian 12: glibc 2.36, x86-64. Null: as `right`.
  const char* bare;
  const char* furnished;
  const char* numbered;
};

/// What libc keeps for a thread: guards, mutexes, signals, memory.
std::vector<hazard> hazards_of_threads();
/// What the kernel or the loader knows of threads: restartable sequences, robust mutexes, fork, user ids, libraries.
std::vector<hazard> hazards_of_the_system();

}  // namespace bench::thread_pointer
