// SPDX-License-Identifier: Apache-2.0
#include "examples/program.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>

namespace examples {
namespace {

constexpr auto patience = std::chrono::seconds(60);

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

}  // namespace

program::program(std::vector<std::string> command, launch_options options) {
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t parent = ::getpid();
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail("pipe2");
  pid_ = ::fork();
  if (pid_ < 0) fail("fork");
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    if (options.descriptors != 0) {
      const rlimit limit{options.descriptors, options.descriptors};
      ::setrlimit(RLIMIT_NOFILE, &limit);
    }
    ::dup2(ends[1], 1);
    ::dup2(ends[1], 2);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  pipe_ = ends[0];
}

program::~program() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  if (pipe_ >= 0) ::close(pipe_);
}

bool program::read_more(std::chrono::steady_clock::time_point limit) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
      limit - std::chrono::steady_clock::now());
  pollfd readable{pipe_, POLLIN, 0};
  if (left.count() <= 0 || ::poll(&readable, 1, static_cast<int>(left.count())) <= 0) {
    throw std::runtime_error("the program stays silent; so far it printed:\n" + output_);
  }
  char data[4096];
  const ssize_t n = ::read(pipe_, data, sizeof data);
  if (n > 0) output_.append(data, static_cast<std::size_t>(n));
  return n > 0;
}

std::string program::wait_for_line(std::string_view text) {
  const auto limit = std::chrono::steady_clock::now() + patience;
  for (;;) {
    for (std::size_t end; (end = output_.find('\n', seen_)) != output_.npos;) {
      std::string line = output_.substr(seen_, end - seen_);
      seen_ = end + 1;
      if (line.find(text) != line.npos) return line;
    }
    if (!read_more(limit)) {
      throw std::runtime_error("no line with '" + std::string(text) + "' in:\n" + output_);
    }
  }
}

std::uint16_t program::port() {
  const std::string line = wait_for_line("listening on ");
  return static_cast<std::uint16_t>(std::stoul(line.substr(line.rfind(':') + 1)));
}

void program::signal(int number) {
  if (::kill(pid_, number) != 0) fail("kill");
}

int program::wait() {
  // Its end closes the pipe: nobody else has the other side.
  const auto limit = std::chrono::steady_clock::now() + patience;
  while (read_more(limit)) {
  }
  int status = 0;
  if (::waitpid(pid_, &status, 0) != pid_) fail("waitpid");
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

}  // namespace examples
