// SPDX-License-Identifier: Apache-2.0
//
// Waiting for what other processes do: the end of one child, locks on parts of files. What is parked for takes no
// thread, which the counts tell.
#include "intercept/waiting.hpp"

#include <tendril/cancelable_calls.hpp>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

using namespace tendril;
using test::both;
using test::elsewhere;
using test::intercepted;
using test::nameless;
using test::no_descriptors;
using test::said;
using test::wait_for_something;

namespace {

/// A child that ends when it is told to.
class child {
 public:
  explicit child(int status) : number_(fork()) {
    if (number_ != 0) return;
    char c = 0;
    _exit(read(told_.out(), &c, 1) == 1 ? status : 99);
  }
  pid_t number() const noexcept { return number_; }
  void end() { test::write_text(told_.in(), "e"); }

 private:
  test::pipe_pair told_;
  pid_t number_;
};

std::string ended(long found, const child& one, int status) {
  if (found != one.number()) return said(found);
  return WIFEXITED(status)      ? "exit " + std::to_string(WEXITSTATUS(status))
         : WIFSTOPPED(status)   ? "stopped"
         : WIFCONTINUED(status) ? "goes on"
                                : "?";
}

struct flock whole_file(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

std::string name_of(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

}  // namespace

TEST_SUITE("one_child") {
  TEST_CASE("whichever way it is waited for, the fiber parks") {
    intercepted(
        [] {
          std::string seen;
          seen += elsewhere("waitpid", [&] {
            child one(3);
            seen += both(
                [&] {
                  errno = EXDEV;
                  int status = 0;
                  const pid_t found = waitpid(one.number(), &status, 0);
                  return (errno == EXDEV ? "" : "errno changed, ") + ended(found, one, status);
                },
                [&] { one.end(); });
          });
          seen += elsewhere("wait4", [&] {
            child one(4);
            seen.append("; ").append(both(
                [&] {
                  int status = 0;
                  rusage usage{};
                  usage.ru_maxrss = -1;
                  const pid_t found = wait4(one.number(), &status, 0, &usage);
                  return ended(found, one, status) + (usage.ru_maxrss >= 0 ? "" : " used nothing");
                },
                [&] { one.end(); }));
          });
          seen += elsewhere("waitid", [&] {
            child one(5);
            seen.append("; ").append(both(
                [&] {
                  siginfo_t about{};
                  std::string result = said(
                      waitid(P_PID, static_cast<id_t>(one.number()), &about, WEXITED | WNOWAIT));
                  result += about.si_pid == one.number() ? " it " : " another ";
                  return result + std::to_string(about.si_status);
                },
                [&] { one.end(); }));
            int status = 0;
            const pid_t found = waitpid(one.number(), &status, 0);
            seen.append(" ").append(ended(found, one, status));
          });
          seen += elsewhere("waitid", [&] {
            child one(6);
            const int process = static_cast<int>(syscall(SYS_pidfd_open, one.number(), 0));
            seen.append("; ").append(both(
                [&] {
                  siginfo_t about{};
                  constexpr auto by_descriptor = static_cast<idtype_t>(3);
                  std::string result =
                      said(waitid(by_descriptor, static_cast<id_t>(process), &about, WEXITED));
                  return result + " " + std::to_string(about.si_status);
                },
                [&] { one.end(); }));
            close(process);
          });
          return seen;
        },
        "exit 3, elsewhere 0; exit 4, elsewhere 0; 0 it 5 exit 5, elsewhere 0; 0 6, elsewhere 0");
  }

  TEST_CASE("one each, ended in another order") {
    intercepted(
        [] {
          constexpr int count = 12;
          std::string seen;
          std::vector<std::unique_ptr<child>> children;
          for (int i = 0; i != count; ++i) children.push_back(std::make_unique<child>(i));
          std::string order;
          const std::string aside = elsewhere("waitpid", [&] {
            std::vector<fiber> waiters;
            for (int i = 0; i != count; ++i)
              waiters.emplace_back([&, i] {
                int status = 0;
                const pid_t found =
                    waitpid(children[static_cast<std::size_t>(i)]->number(), &status, 0);
                order += ended(found, *children[static_cast<std::size_t>(i)], status) + " ";
              });
            this_fiber::yield();
            for (int i = count - 1; i >= 0; --i) {
              children[static_cast<std::size_t>(i)]->end();
              waiters[static_cast<std::size_t>(i)].join();
            }
          });
          return order + aside;
        },
        "exit 11 exit 10 exit 9 exit 8 exit 7 exit 6 exit 5 exit 4 exit 3 exit 2 exit 1 exit 0 "
        ", elsewhere 0");
  }

  TEST_CASE("two who wait for the same: one has it, the other has no child") {
    intercepted(
        [] {
          child one(3);
          std::string got, none;
          const auto wait_for_it = [&] {
            int status = 0;
            const pid_t found = waitpid(one.number(), &status, 0);
            (found == one.number() ? got : none) += ended(found, one, status);
          };
          fiber first(wait_for_it);
          fiber second(wait_for_it);
          this_fiber::yield();
          one.end();
          first.join();
          second.join();
          return got + ", " + none;
        },
        "exit 3, No child processes");
  }

  TEST_CASE("that does not end, and those who are no children") {
    intercepted(
        [] {
          child one(3);
          int status = 0;
          std::string seen = said(waitpid(one.number(), &status, WNOHANG));
          seen.append(" ").append(said(waitpid(getpid(), &status, 0)));
          seen.append(" ").append(said(waitpid(one.number(), &status, 0x4000)));
          one.end();
          const pid_t found = waitpid(one.number(), &status, 0);
          return seen + " " + ended(found, one, status);
        },
        "0 No child processes Invalid argument exit 3");
  }

  TEST_CASE("that stops and goes on") {
    intercepted(
        [] {
          child one(3);
          std::string seen;
          const auto next = [&](int options, const std::function<void()>& cause) {
            seen += both(
                [&] {
                  int status = 0;
                  const pid_t found = waitpid(one.number(), &status, options);
                  return ended(found, one, status);
                },
                cause);
          };
          seen += elsewhere("waitpid", [&] {
            next(WUNTRACED, [&] { kill(one.number(), SIGSTOP); });
            seen += " ";
            next(WCONTINUED, [&] { kill(one.number(), SIGCONT); });
          });
          seen += "; ";
          next(0, [&] { one.end(); });
          return seen;
        },
        "stopped goes on, elsewhere 2; exit 3");
  }

  TEST_CASE("without descriptors it is another thread that waits") {
    intercepted(
        [] {
          wait_for_something();
          child one(3);
          std::string seen;
          seen += elsewhere("waitpid", [&] {
            const no_descriptors left;
            seen += both(
                [&] {
                  int status = 0;
                  const pid_t found = waitpid(one.number(), &status, 0);
                  return ended(found, one, status);
                },
                [&] { one.end(); });
          });
          return seen;
        },
        "exit 3, elsewhere 1");
  }

  TEST_CASE("a request to stop ends it where it is asked for") {
    intercepted(
        [] {
          child one(3);
          std::string seen;
          int status = 0;
          fiber waiter([&] {
            const cancelable_calls scope;
            const pid_t found = waitpid(one.number(), &status, 0);
            seen = ended(found, one, status);
          });
          this_fiber::yield();
          waiter.request_stop();
          waiter.join();
          one.end();
          const pid_t found = waitpid(one.number(), &status, 0);
          return seen + ", " + ended(found, one, status);
        },
        "Operation canceled, exit 3");
  }
}

TEST_SUITE("record_locks") {
  TEST_CASE("another process has it") {
    intercepted(
        [] {
          const int fd = nameless();
          test::pipe_pair taken;
          test::pipe_pair over;
          const pid_t other = fork();
          if (other == 0) {
            char c = 0;
            struct flock lock = whole_file(F_WRLCK);
            if (fcntl(fd, F_SETLKW, &lock) != 0 || write(taken.in(), "t", 1) != 1 ||
                read(over.out(), &c, 1) != 1)
              _exit(1);
            _exit(0);
          }
          test::read_text(taken.out(), 1);
          struct flock lock = whole_file(F_WRLCK);
          std::string seen = said(fcntl(fd, F_SETLK, &lock)) + ", ";
          seen += elsewhere("fcntl", [&] {
            seen += both(
                [&] {
                  errno = EXDEV;
                  struct flock wanted = whole_file(F_WRLCK);
                  const int result = fcntl(fd, F_SETLKW, &wanted);
                  return said(result) + (errno == EXDEV ? "" : " errno changed");
                },
                [&] { test::write_text(over.in(), "o"); });
          });
          int status = -1;
          waitpid(other, &status, 0);
          seen.append(" ").append(std::to_string(status));
          close(fd);
          return seen;
        },
        "Resource temporarily unavailable, 0, elsewhere 1 0");
  }

  TEST_CASE("another fiber has it, through a file opened anew") {
    intercepted(
        [] {
          const int mine = nameless();
          const int other = open(name_of(mine).c_str(), O_RDWR);
          struct flock lock = whole_file(F_WRLCK);
          std::string seen = said(fcntl(mine, F_OFD_SETLKW, &lock)) + " ";
          bool released = false;
          seen += elsewhere("fcntl", [&] {
            seen += both(
                [&] {
                  struct flock wanted = whole_file(F_WRLCK);
                  const int result = fcntl(other, F_OFD_SETLKW, &wanted);
                  return (released ? "released " : "too early ") + said(result);
                },
                [&] {
                  released = true;
                  struct flock none = whole_file(F_UNLCK);
                  fcntl(mine, F_OFD_SETLK, &none);
                });
          });
          close(mine);
          close(other);
          return seen;
        },
        "0 released 0, elsewhere 1");
  }
}
