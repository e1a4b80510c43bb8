// SPDX-License-Identifier: Apache-2.0
//
// Child processes that run a role of this program, and CPU pinning. A child dies with its parent
// (PR_SET_PDEATHSIG), is stopped by its own pid and always reaped: an interrupted benchmark leaves
// nothing behind.
#pragma once

#include "bench/support/memory.hpp"
#include "bench/support/role.hpp"
#include "bench/support/unique_fd.hpp"

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <ctime>
#include <map>
#include <string>
#include <vector>

namespace bench {

inline constexpr int any_core = -1;

/// The cores this process may run on, ascending, as they were at the first call.
const std::vector<int>& usable_cores();

/// Confines the calling thread (and threads it creates later) to one core; any_core allows all.
void pin_to_core(int core);

/// How long the calling thread was runnable but not running.
std::chrono::nanoseconds own_run_queue_wait();

class child_process {
 public:
  /// Starts `role_name` with `args` on `core`, in this program or, if `args` has "program", in the one of
  /// that name beside it; with the library "preload", a path, before all others, if `args` has that. Throws
  /// std::system_error naming a program that is not there.
  static child_process start(const std::string& role_name, const arguments& args, int core);

  child_process(child_process&& other) noexcept;
  child_process& operator=(child_process&& other) noexcept;
  ~child_process() { stop(); }

  /// The value of the next line that the child reports, which must be for `key`. Throws when the child
  /// ends or stays silent beyond the timeout; the message says how it ended.
  std::string expect(const std::string& key,
                     std::chrono::seconds timeout = std::chrono::seconds(30));

  /// All lines until the child ends. Throws unless it ends with status 0.
  std::map<std::string, double> collect(std::chrono::seconds timeout);

  /// User + system CPU time of all its threads so far, in nanosecond resolution.
  std::chrono::nanoseconds cpu_time() const;

  /// How long its threads were runnable but not running, in all: on a core of its own, the time that
  /// others took from it. Zero where the kernel does not tell.
  std::chrono::nanoseconds run_queue_wait() const;

  /// Its resident memory now, from /proc.
  std::uint64_t resident_bytes() const;
  memory_use memory() const { return read_memory_use_of(pid_); }

  /// Ends the child and waits for it. Idempotent.
  void stop() noexcept;

 private:
  child_process() = default;
  bool read_line(std::string& line, std::chrono::steady_clock::time_point deadline);
  std::string ending();

  pid_t pid_ = -1;
  std::string name_;
  unique_fd reports_;
  std::string unread_;
  clockid_t cpu_clock_{};
};

/// Runs a role to its end and returns what it reported.
std::map<std::string, double> run_role(const std::string& role_name, const arguments& args,
                                       int core = any_core,
                                       std::chrono::seconds timeout = std::chrono::seconds(120));

/// Runs a role that reports medians in several processes, one after the other, and returns the medians
/// over them. Loops of a few cycles run at another speed in another process, by the addresses that the loader
/// gives; one process would be one throw of that die. What is named "x_q1:..." or "x_q3:..." becomes the
/// quartile over the processes of "x:...". The argument "seed", a number, is raised by one for each.
std::map<std::string, double> run_role_in_processes(
    const std::string& role_name, arguments args, unsigned processes, int core = any_core,
    std::chrono::seconds timeout = std::chrono::seconds(120));

/// Runs a program found on PATH on `core`, returns its standard output; empty when it is missing or fails.
std::string output_of(const std::vector<std::string>& command, int core = any_core);

}  // namespace bench
