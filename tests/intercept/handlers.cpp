// SPDX-License-Identifier: Apache-2.0
//
// Calls in handlers of signals that interrupt a fiber. On the thread's stack for signals they are libc's: the thread
// waits, and no other fiber runs on it, since the next signal would be handled at the same place. On the fiber's own
// stack they are the fiber's calls.
#include "intercept/intercepted.hpp"

#include <tendril/detail/sanitizers.hpp>

#include <signal.h>
#include <sys/syscall.h>

#include <atomic>
#include <cstdio>
#include <thread>

using namespace tendril;
using test::intercepted;

#if !TENDRIL_TSAN  // which calls handlers when it likes, on another stack

namespace {

std::atomic<int> wanted{-1};     // what the handler reads from
std::atomic<char> got{0};        // and what it has read
std::atomic<pid_t> handling{0};  // the thread it runs on
std::atomic<bool> overtaken{false};

void read_one(int) {
  const int before = errno;
  handling = static_cast<pid_t>(syscall(SYS_gettid));
  char byte = 0;
  got = read(wanted, &byte, 1) == 1 ? byte : '?';
  errno = before;
}

class handler_of_usr1 {
 public:
  explicit handler_of_usr1(int flags) {
    struct sigaction action {};
    action.sa_handler = &read_one;
    action.sa_flags = flags;
    sigaction(SIGUSR1, &action, &before_);
  }
  ~handler_of_usr1() { sigaction(SIGUSR1, &before_, nullptr); }
  handler_of_usr1(const handler_of_usr1&) = delete;
  handler_of_usr1& operator=(const handler_of_usr1&) = delete;

 private:
  struct sigaction before_ {};
};

/// Whether the thread sleeps in the kernel.
bool sleeps(pid_t thread) {
  char name[64];
  std::snprintf(name, sizeof name, "/proc/self/task/%d/stat", thread);
  char text[128] = {};
  const int fd = open(name, O_RDONLY);
  if (fd >= 0 && read(fd, text, sizeof text - 1) < 0) text[0] = 0;
  close(fd);
  const char* const end = std::strrchr(text, ')');
  return end != nullptr && end[1] == ' ' && end[2] == 'S';
}

/// A fiber is interrupted by the handler, which has nothing to read until it, or the scheduler, sleeps. Another
/// fiber is ready to run meanwhile.
std::string interrupted() {
  test::pipe_pair through;
  wanted = through.out();
  handling = 0;
  got = 0;
  overtaken = false;
  std::thread writer([&] {
    while (handling == 0 || !sleeps(handling)) std::this_thread::yield();
    test::write_text(through.in(), "x");
  });
  fiber other([] { overtaken = got == 0; });
  pthread_kill(pthread_self(), SIGUSR1);
  const std::string seen =
      std::string(got == 'x' ? "read" : "?") + (overtaken ? ", overtaken" : "");
  other.join();
  writer.join();
  return seen;
}

}  // namespace

TEST_SUITE("handlers") {
  TEST_CASE("on the stack for signals the thread waits") {
    const handler_of_usr1 installed(SA_ONSTACK);
    intercepted([] { return interrupted(); }, "read");
  }

  TEST_CASE("on its own stack the fiber parks") {
    const handler_of_usr1 installed(0);
    intercepted([] { return interrupted(); }, "read, overtaken");
  }
}

#endif
