// SPDX-License-Identifier: Apache-2.0
//
// Installing handlers: what a program sees of it is what libc would show; and a server that such a handler ends.
#include "intercept/handling.hpp"
#include "intercept/intercepted.hpp"

#include <tendril/detail/sanitizers.hpp>

#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

using namespace tendril;
using test::full;
using test::had_context;
using test::handled;
using test::handler_of;
using test::last_code;
using test::plain;

// What is tested is old.
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

namespace {

#if !TENDRIL_TSAN
/// What a server says and sends that is stopped after two connections, and how it ends.
std::string serve_and_stop(const char* program, const char* how, const char* workers) {
  test::pipe_pair output(O_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output.in(), STDOUT_FILENO);
  std::string words[] = {program, how, workers};
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::vector<char*> environment;
  for (char** one = environ; *one != nullptr; ++one)
    if (std::strncmp(*one, "LD_PRELOAD=", 11) != 0 && std::strncmp(*one, "ASAN_OPTIONS=", 13) != 0)
      environment.push_back(*one);
  std::string front("LD_PRELOAD=" INTERCEPT_FRONT);
  std::string asan("ASAN_OPTIONS=verify_asan_link_order=0");
  if (std::strcmp(program, INTERCEPT_SERVER_PLAIN) == 0) environment.push_back(front.data());
  if (TENDRIL_ASAN) environment.push_back(asan.data());
  environment.push_back(nullptr);
  pid_t server = -1;
  const int error = posix_spawn(&server, words[0].c_str(), &actions, nullptr, arguments.data(),
                                environment.data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return std::strerror(error);
  close(output.release_in());
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port =
      htons(static_cast<std::uint16_t>(std::atoi(test::read_text(output.out()).c_str())));
  const auto connected = [&] {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    std::string letter =
        connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0
            ? test::read_text(fd)
            : std::strerror(errno);
    close(fd);
    return letter;
  };
  std::string seen = connected();
  seen += connected();
  // It may have been about to call accept(), and been on its way with the flag looked at: as any server, it is
  // told until it listens.
  int status = 0;
  pid_t ended = 0;
  if (how[0] == 's') {
    while (ended == 0) {
      kill(server, SIGTERM);
      const timespec some{0, 2'000'000};
      nanosleep(&some, nullptr);
      ended = waitpid(server, &status, WNOHANG);
    }
  } else {
    kill(server, SIGTERM);
    seen.append(" ").append(test::read_text(output.out(), 1));  // its handler has run
    const timespec some{0, 20'000'000};                         // and has not ended the call
    nanosleep(&some, nullptr);
    ended = waitpid(server, &status, WNOHANG);
    if (ended == 0) connected();  // it had gone on, and looks at the flag now
    if (ended == 0) ended = waitpid(server, &status, 0);
  }
  seen.append(" ").append(test::read_text(output.out()));
  seen.append(WIFEXITED(status) ? ", " : ", signal ");
  return seen.append(std::to_string(WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status)));
}
#endif

}  // namespace

TEST_SUITE("installing") {
  TEST_CASE("the former handler is the program's") {
    const handler_of before(SIGUSR2, SA_SIGINFO | SA_RESTART | SA_NODEFER);
    struct sigaction old {};
    struct sigaction action {};
    action.sa_handler = &plain;
    sigaddset(&action.sa_mask, SIGUSR1);
    REQUIRE(sigaction(SIGUSR2, &action, &old) == 0);
    CHECK((old.sa_sigaction == &full));
    CHECK((old.sa_flags & (SA_SIGINFO | SA_RESTART | SA_NODEFER)) ==
          (SA_SIGINFO | SA_RESTART | SA_NODEFER));
    REQUIRE(sigaction(SIGUSR2, nullptr, &old) == 0);
    CHECK((old.sa_handler == &plain));
    CHECK((old.sa_flags & (SA_SIGINFO | SA_RESTART)) == 0);
    CHECK(sigismember(&old.sa_mask, SIGUSR1) == 1);
    CHECK((signal(SIGUSR2, SIG_DFL) == &plain));
    CHECK((signal(SIGUSR2, &plain) == SIG_DFL));
    REQUIRE(sigaction(SIGUSR2, nullptr, &old) == 0);
    CHECK((old.sa_flags & SA_RESTART) != 0);
    CHECK(siginterrupt(SIGUSR2, 1) == 0);
    REQUIRE(sigaction(SIGUSR2, nullptr, &old) == 0);
    CHECK((old.sa_flags & SA_RESTART) == 0);
    CHECK((signal(SIGUSR2, &plain) == &plain));
    REQUIRE(sigaction(SIGUSR2, nullptr, &old) == 0);
    CHECK((old.sa_flags & SA_RESTART) == 0);
    CHECK(siginterrupt(SIGUSR2, 0) == 0);
    CHECK((sigset(SIGUSR2, SIG_HOLD) == &plain));
    CHECK((sigset(SIGUSR2, &plain) == SIG_HOLD));
    CHECK((sysv_signal(SIGUSR2, &plain) == &plain));
    REQUIRE(sigaction(SIGUSR2, nullptr, &old) == 0);
    CHECK((static_cast<unsigned>(old.sa_flags) & (SA_RESETHAND | SA_NODEFER)) ==
          (SA_RESETHAND | SA_NODEFER));
  }

  TEST_CASE("wrong arguments") {
    struct sigaction action {};
    action.sa_handler = &plain;
    const auto result = [](bool failed) { return failed ? std::strerror(errno) : "succeeded"; };
    for (const int bad : {0, -1, 65, SIGKILL, SIGSTOP}) {
      CAPTURE(bad);
      CHECK(std::string(result(sigaction(bad, &action, nullptr) != 0)) == "Invalid argument");
      CHECK(std::string(result(signal(bad, &plain) == SIG_ERR)) == "Invalid argument");
      CHECK(std::string(result(sigset(bad, &plain) == SIG_ERR)) == "Invalid argument");
    }
    CHECK(std::string(result(signal(SIGUSR1, SIG_ERR) == SIG_ERR)) == "Invalid argument");
    CHECK(std::string(result(siginterrupt(-1, 1) != 0)) == "Invalid argument");
  }

  TEST_CASE("both forms of handlers, and what they are told") {
    handled = 0;
    {
      const handler_of usr1(SIGUSR1, SA_SIGINFO);
      last_code = 0;
      raise(SIGUSR1);
      CHECK(handled == 1);
      CHECK(last_code == SI_TKILL);
      CHECK(had_context);
      sigqueue(getpid(), SIGUSR1, {.sival_int = 1});
      while (handled == 1) std::this_thread::yield();
      CHECK(last_code == SI_QUEUE);
    }
    const handler_of usr1(SIGUSR1, 0);
    raise(SIGUSR1);
    CHECK(handled == 1);
  }

  TEST_CASE("SA_RESETHAND") {
    const handler_of usr1(SIGUSR1, static_cast<int>(SA_RESETHAND));
    raise(SIGUSR1);
    CHECK(handled == 1);
    struct sigaction now {};
    REQUIRE(sigaction(SIGUSR1, nullptr, &now) == 0);
    CHECK((now.sa_handler == SIG_DFL));
  }

#if !TENDRIL_TSAN  // whose children start no threads, and which calls handlers when it likes
  TEST_CASE("in a child of fork, with a runtime of its own") {
    const handler_of usr1(SIGUSR1, 0);
    static test::pipe_pair through;
    runtime before({.workers = 1});
    before.run([] { return 0; });
    const pid_t pid = fork();
    if (pid == 0) {
      raise(SIGUSR1);
      if (handled != 1) _exit(1);
      runtime* const mine =
          new runtime({.workers = 1, .max_spare_threads = 0});  // its parent's is not to be touched
      const std::string seen = mine->run([] {
        return test::signalled_till_it_returns([] { return test::read_text(through.out()); });
      });
      _exit(seen == "Interrupted system call" ? 7 : 2);
    }
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 7);
  }

  TEST_CASE("a server ends by SIGTERM") {
    for (const char* const program : {INTERCEPT_SERVER_SUBJECT, INTERCEPT_SERVER_PLAIN})
      for (const char* const how : {"stop", "restart"})
        for (const char* const workers : {"1", "2"}) {
          CAPTURE(program);
          CAPTURE(how);
          CAPTURE(workers);
          const bool stops = how[0] == 's';
          CHECK(serve_and_stop(program, how, workers) ==
                (stops ? "xx served 2\n, 7" : "xx ! served 3\n, 7"));
        }
  }
#endif
}
