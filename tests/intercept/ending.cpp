// SPDX-License-Identifier: Apache-2.0
//
// A program ends while fibers are in the middle of calls of each kind: as with threads in them, it ends.
#include "intercept/intercepted.hpp"

#include <spawn.h>
#include <sys/wait.h>
#include <csignal>

#include <string>
#include <vector>

using namespace tendril;
using test::intercepted;

namespace {

/// What intercept_ending_subject says and how it ends. Called on a fiber.
std::string ending(const char* who, const char* how, const char* poller, const char* workers) {
  test::pipe_pair output(O_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output.in(), STDOUT_FILENO);
  std::string words[] = {INTERCEPT_ENDING_SUBJECT, who, how, poller, workers};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  // A sanitizer would miss what only parked stacks point to.
  setenv("LSAN_OPTIONS", "detect_leaks=0", 1);
  pid_t child = -1;
  const int error =
      posix_spawn(&child, words[0].c_str(), &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return std::strerror(error);
  close(output.release_in());
  std::string said;
  for (std::string more; !(more = test::read_text(output.out())).empty();) said += more;
  int status = 0;
  if (waitpid(child, &status, 0) != child) return "no child";
  return said + (WIFEXITED(status) ? ", " + std::to_string(WEXITSTATUS(status))
                                   : ", signal " + std::to_string(WTERMSIG(status)));
}

struct end_of_program {
  const char* who;
  const char* how;
  const char* expected;
};
constexpr const char* in_order = "parked atexit destructor stream, 7";
constexpr end_of_program ends[] = {
    {"main", "return", in_order},
    {"main", "exit", in_order},
    {"thread", "exit", in_order},
    {"fiber", "exit", in_order},
    {"fiber", "pthread_exit", in_order},  // of the main thread; then as before
    {"main", "quick_exit", "parked at_quick_exit, 7"},
    {"thread", "quick_exit", "parked at_quick_exit, 7"},
    {"fiber", "quick_exit", "parked at_quick_exit, 7"},
    {"main", "_exit", "parked, 7"},
    {"thread", "_exit", "parked, 7"},
    {"fiber", "_exit", "parked, 7"},
    {"main", "exec", "parked executed, 7"},
    {"fiber", "exec", "parked executed, 7"},
    {"fiber", "abort", "parked, signal 6"},
};

}  // namespace

TEST_SUITE("ending") {
  TEST_CASE("whoever ends the program, however") {
    for (const end_of_program& e : ends) {
      CAPTURE(e.who);
      CAPTURE(e.how);
      for (const char* const workers : {"1", "2"})
        for (const char* const poller : {"native", "portable"})
          CHECK(test::run_on_own_stack(runtime_options{.workers = 1}, [&] {
                  return ending(e.who, e.how, poller, workers);
                }) == e.expected);
    }
  }
}
