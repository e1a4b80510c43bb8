// SPDX-License-Identifier: Apache-2.0
//
// An example as its user runs it: a child process, its output, its end. What it prints, to either
// stream, comes through one pipe. A child never outlives the test: it is killed and reaped by the
// destructor, and by the kernel should the test die.
//
// Waiting has a limit, so that a hang becomes a failure that shows the output; the limit decides
// nothing else.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace examples {

struct launch_options {
  unsigned descriptors = 0;  ///< RLIMIT_NOFILE of the child; 0: as it is
};

class program {
 public:
  explicit program(std::vector<std::string> command, launch_options = {});
  ~program();
  program(const program&) = delete;
  program& operator=(const program&) = delete;

  /// The next line that contains the text; throws with all the output when none comes.
  std::string wait_for_line(std::string_view text);
  /// The port of "listening on ADDRESS:PORT".
  std::uint16_t port();

  void signal(int number);
  /// Waits for the end: the exit status, or 1000 + the signal that ended it.
  int wait();
  /// Everything printed so far and read by the functions above.
  const std::string& output() const noexcept { return output_; }

 private:
  bool read_more(std::chrono::steady_clock::time_point limit);

  pid_t pid_ = -1;
  int pipe_ = -1;
  std::size_t seen_ = 0;
  std::string output_;
};

}  // namespace examples
