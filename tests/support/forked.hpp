// SPDX-License-Identifier: Apache-2.0
//
// Runs a body in a forked child and tells how it ended and what it wrote to standard error: for what
// must end the process. The child has the calling thread only; it leaves by _exit, so that neither
// doctest's nor a sanitizer's end-of-process work runs twice, and starts with the default action for
// the signals that both of them handle. Assert on the result, not in the body.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace tendril::test {

struct child_result {
  int signal = 0;      ///< that killed it; 0: none
  int exit_code = -1;  ///< 0: the body returned
  std::string error_output;

  bool says(const char* text) const { return error_output.find(text) != std::string::npos; }
};

template <class Body>
child_result run_forked(Body&& body) {
  int pipe_ends[2];
  std::fflush(nullptr);
  if (::pipe(pipe_ends) != 0) std::abort();
  const pid_t child = ::fork();
  if (child < 0) std::abort();
  if (child == 0) {
    ::dup2(pipe_ends[1], STDERR_FILENO);
    ::close(pipe_ends[0]);
    ::close(pipe_ends[1]);
    for (const int signal : {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGINT, SIGSEGV, SIGTERM}) {
      std::signal(signal, SIG_DFL);
    }
    body();
    std::fflush(stderr);
    ::_exit(0);
  }
  ::close(pipe_ends[1]);
  child_result result;
  char text[1024];
  for (;;) {
    const ssize_t n = ::read(pipe_ends[0], text, sizeof text);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    result.error_output.append(text, static_cast<std::size_t>(n));
  }
  ::close(pipe_ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  return result;
}

/// In such a child: what it has written to standard error so far; all of it is passed on in the end.
class overheard_stderr {
 public:
  overheard_stderr() : outside_(::dup(STDERR_FILENO)) {
    int ends[2];
    if (outside_ < 0 || ::pipe(ends) != 0) std::abort();
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[1]);
    inside_ = ends[0];
  }
  ~overheard_stderr() {
    std::fflush(stderr);
    ::dup2(outside_, STDERR_FILENO);  // closes the pipe's last writing end
    while (read_more()) {
    }
    ::close(inside_);
    ::close(outside_);
  }
  overheard_stderr(const overheard_stderr&) = delete;
  overheard_stderr& operator=(const overheard_stderr&) = delete;

  /// Blocks the thread until somebody has said it.
  void wait_for(const char* text) {
    while (heard_.find(text) == std::string::npos && read_more()) {
    }
  }

 private:
  bool read_more() {
    char text[1024];
    ssize_t n;
    do n = ::read(inside_, text, sizeof text);
    while (n < 0 && errno == EINTR);
    if (n <= 0) return false;
    heard_.append(text, static_cast<std::size_t>(n));
    return ::write(outside_, text, static_cast<std::size_t>(n)) == n;
  }

  int outside_;
  int inside_ = -1;
  std::string heard_;
};

}  // namespace tendril::test
