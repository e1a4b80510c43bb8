// SPDX-License-Identifier: Apache-2.0
//
// Waiting for what other processes do: the end of one child, locks on parts of files, signals; and for the two ends of
// what moves bytes within the kernel. What is parked for takes
// no thread, which the counts tell.
#include "intercept/intercepted.hpp"

#include <tendril/cancelable_calls.hpp>
#include <tendril/intercept.hpp>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

using namespace tendril;
using test::intercepted;

namespace {

std::string said(long result) {
  return result >= 0 ? std::to_string(result) : std::strerror(errno);
}

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

/// Two fibers, the second of which runs when the first has begun to wait, or is done.
std::string both(const std::function<std::string()>& waits, const std::function<void()>& ends) {
  std::string first;
  fiber one([&] { first = waits(); });
  fiber two([&] {
    this_fiber::yield();
    ends();
  });
  one.join();
  two.join();
  return first;
}

/// How many calls of the symbol were made on another thread meanwhile.
std::string elsewhere(const char* symbol, const std::function<void()>& f) {
  const auto now = [&] {
    for (const auto& one : interception::counts())
      if (std::strcmp(one.symbol, symbol) == 0) return one.elsewhere;
    return std::uint64_t{0};
  };
  const auto before = now();
  f();
  return ", elsewhere " + std::to_string(now() - before);
}

/// Nobody gets a new descriptor.
class no_descriptors {
 public:
  no_descriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    const rlimit none{0, before_.rlim_max};
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~no_descriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  no_descriptors(const no_descriptors&) = delete;
  no_descriptors& operator=(const no_descriptors&) = delete;

 private:
  rlimit before_{};
};

/// Makes the loop of the worker, which has descriptors of its own.
void wait_for_something() {
  test::pipe_pair through;
  both([&] { return test::read_text(through.out()); },
       [&] { test::write_text(through.in(), "x"); });
}

struct flock whole_file(short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}

/// A file without a name.
int nameless() {
  char name[] = "/tmp/tendril-XXXXXX";
  const int fd = mkstemp(name);
  unlink(name);
  return fd;
}
std::string name_of(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

int first_signal() noexcept { return SIGRTMIN + 5; }
int second_signal() noexcept { return SIGRTMIN + 6; }

sigset_t both_signals() noexcept {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, first_signal());
  sigaddset(&set, second_signal());
  return set;
}

/// As a program does that waits for them: in every thread, so before there is any other.
[[maybe_unused]] const bool blocked = [] {
  const sigset_t set = both_signals();
  return pthread_sigmask(SIG_BLOCK, &set, nullptr) == 0;
}();

std::string received(int n) {
  return n == first_signal() ? "first" : n == second_signal() ? "second" : said(n);
}

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
            seen += "; " + both(
                               [&] {
                                 int status = 0;
                                 rusage usage{};
                                 usage.ru_maxrss = -1;
                                 const pid_t found = wait4(one.number(), &status, 0, &usage);
                                 return ended(found, one, status) +
                                        (usage.ru_maxrss >= 0 ? "" : " used nothing");
                               },
                               [&] { one.end(); });
          });
          seen += elsewhere("waitid", [&] {
            child one(5);
            seen += "; " + both(
                               [&] {
                                 siginfo_t about{};
                                 std::string result =
                                     said(waitid(P_PID, static_cast<id_t>(one.number()), &about,
                                                 WEXITED | WNOWAIT));
                                 result += about.si_pid == one.number() ? " it " : " another ";
                                 return result + std::to_string(about.si_status);
                               },
                               [&] { one.end(); });
            int status = 0;
            const pid_t found = waitpid(one.number(), &status, 0);
            seen += " " + ended(found, one, status);
          });
          seen += elsewhere("waitid", [&] {
            child one(6);
            const int process = static_cast<int>(syscall(SYS_pidfd_open, one.number(), 0));
            seen += "; " + both(
                               [&] {
                                 siginfo_t about{};
                                 constexpr auto by_descriptor = static_cast<idtype_t>(3);
                                 std::string result = said(waitid(
                                     by_descriptor, static_cast<id_t>(process), &about, WEXITED));
                                 return result + " " + std::to_string(about.si_status);
                               },
                               [&] { one.end(); });
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
          seen += " " + said(waitpid(getpid(), &status, 0));
          seen += " " + said(waitpid(one.number(), &status, 0x4000));
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
          seen += " " + std::to_string(status);
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

TEST_SUITE("signals") {
  TEST_CASE("sent while a fiber waits, or before") {
    intercepted(
        [] {
          const sigset_t set = both_signals();
          std::string seen = both(
              [&] {
                errno = EXDEV;
                int got = 0;
                const int error = sigwait(&set, &got);
                return std::to_string(error) + received(got) + (errno == EXDEV ? "" : " errno");
              },
              [] { kill(getpid(), second_signal()); });
          seen += ", ";
          seen += both(
              [&] {
                siginfo_t about{};
                std::string result = received(sigwaitinfo(&set, &about));
                result += about.si_code == SI_QUEUE ? " queued " : " ? ";
                return result + std::to_string(about.si_value.sival_int);
              },
              [] { sigqueue(getpid(), first_signal(), {.sival_int = 7}); });
          kill(getpid(), first_signal());
          const timespec long_time{1'000'000, 0};
          seen += ", " + received(sigtimedwait(&set, nullptr, &long_time));
          return seen;
        },
        "0second, first queued 7, first");
  }

  TEST_CASE("sent to the thread alone") {
    intercepted(
        [] {
          const sigset_t set = both_signals();
          return both([&] { return received(sigwaitinfo(&set, nullptr)); },
                      [] { raise(first_signal()); });
        },
        "first");
  }

  TEST_CASE("that do not come in time") {
    intercepted(
        [] {
          const sigset_t set = both_signals();
          const timespec none{0, 0};
          const timespec some{0, 3'000'000};
          const timespec bad{0, -1};
          std::string seen = said(sigtimedwait(&set, nullptr, &none));
          seen += ", " + said(sigtimedwait(&set, nullptr, &some));
          return seen + ", " + said(sigtimedwait(&set, nullptr, &bad));
        },
        "Resource temporarily unavailable, Resource temporarily unavailable, Invalid argument");
  }

  TEST_CASE("each is received by one") {
    intercepted(
        [] {
          constexpr int count = 8;
          const sigset_t set = both_signals();
          int sum = 0;
          std::vector<fiber> waiters;
          for (int i = 0; i != count; ++i)
            waiters.emplace_back([&] {
              siginfo_t about{};
              if (sigwaitinfo(&set, &about) == first_signal()) sum += about.si_value.sival_int;
            });
          this_fiber::yield();
          for (int i = 0; i != count; ++i)
            sigqueue(getpid(), first_signal(), {.sival_int = 1 << i});
          for (fiber& one : waiters) one.join();
          const timespec none{0, 0};
          return std::to_string(sum) + " " + said(sigtimedwait(&set, nullptr, &none));
        },
        "255 Resource temporarily unavailable");
  }

  TEST_CASE("without descriptors") {
    intercepted(
        [] {
          wait_for_something();
          const sigset_t set = both_signals();
          const no_descriptors left;
          return both([&] { return received(sigwaitinfo(&set, nullptr)); },
                      [] { kill(getpid(), first_signal()); });
        },
        "first");
  }

  TEST_CASE("a request to stop ends the wait where it is asked for") {
    intercepted(
        [] {
          const sigset_t set = both_signals();
          std::string seen;
          fiber waiter([&] {
            const cancelable_calls scope;
            int got = 0;
            seen = std::strerror(sigwait(&set, &got));
          });
          this_fiber::yield();
          waiter.request_stop();
          waiter.join();
          return seen;
        },
        "Operation canceled");
  }
}

TEST_SUITE("splicing") {
  TEST_CASE("from a pipe that is empty into one that is full") {
    intercepted(
        [] {
          test::pipe_pair from;
          test::pipe_pair to;
          fcntl(to.in(), F_SETPIPE_SZ, 4096);
          const std::string full(4096, 'f');
          test::write_text(to.in(), full);
          std::string steps;
          std::string seen;
          fiber mover([&] {
            errno = EXDEV;
            const std::string moved = said(splice(from.out(), nullptr, to.in(), nullptr, 64, 0));
            seen = steps + moved + (errno == EXDEV ? "" : " errno changed");
          });
          this_fiber::yield();
          steps += "written ";
          test::write_text(from.in(), "hello");
          for (int i = 0; i != 5; ++i) this_fiber::yield();
          steps += "read ";
          test::read_text(to.out(), full.size());
          mover.join();
          return seen + " " + test::read_text(to.out());
        },
        "written read 5 hello");
  }

  TEST_CASE("between a pipe and a socket") {
    intercepted(
        [] {
          test::pipe_pair through;
          test::socket_pair ends;
          std::string seen;
          seen += elsewhere("splice", [&] {
            seen += both(
                [&] { return said(splice(ends.here(), nullptr, through.in(), nullptr, 64, 0)); },
                [&] { test::write_text(ends.there(), "from socket"); });
            seen += " " + test::read_text(through.out());
          });
          seen += "; " + both(
                             [&] {
                               return said(splice(through.out(), nullptr, ends.here(), nullptr, 64,
                                                  SPLICE_F_MORE));
                             },
                             [&] { test::write_text(through.in(), "from pipe"); });
          return seen + " " + test::read_text(ends.there());
        },
        "11 from socket, elsewhere 0; 9 from pipe");
  }

  TEST_CASE("a copy of what is in a pipe") {
    intercepted(
        [] {
          test::pipe_pair from;
          test::pipe_pair to;
          std::string seen = both([&] { return said(tee(from.out(), to.in(), 64, 0)); },
                                  [&] { test::write_text(from.in(), "twice"); });
          seen += " " + test::read_text(from.out()) + " " + test::read_text(to.out());
          seen += " " + said(tee(from.out(), to.in(), 64, SPLICE_F_NONBLOCK));
          close(from.release_in());
          return seen + " " + said(tee(from.out(), to.in(), 64, 0));
        },
        "5 twice twice Resource temporarily unavailable 0");
  }

  TEST_CASE("a file is sent to who reads slowly") {
    intercepted(
        [] {
          const int fd = nameless();
          std::string text(1'000'000, 0);
          for (std::size_t i = 0; i != text.size(); ++i)
            text[i] = static_cast<char>(i * 7 + i / 251);
          test::write_text(fd, text);
          std::string seen;
          for (const bool to_pipe : {false, true}) {
            test::socket_pair ends;
            test::pipe_pair through;
            const int out = to_pipe ? through.in() : ends.here();
            off_t at = 10;
            const std::string aside = elsewhere("sendfile", [&] {
              std::string sent;
              fiber sender([&] {
                // To a pipe a call moves what there is room for.
                std::size_t done = 0;
                while (done < 999'000) {
                  const ssize_t n = sendfile(out, fd, &at, 999'000 - done);
                  if (n <= 0) break;
                  done += static_cast<std::size_t>(n);
                  if (!to_pipe && done != 999'000) sent = "in parts ";
                }
                sent += std::to_string(done) + " to " + std::to_string(at);
              });
              std::string got;
              while (got.size() < 999'000) {
                const std::string more =
                    test::read_text(to_pipe ? through.out() : ends.there(), 5000);
                if (more.empty()) break;
                got += more;
              }
              sender.join();
              seen += sent + (got == text.substr(10, 999'000) ? " same" : " different");
            });
            lseek(fd, 999'990, SEEK_SET);
            seen += aside + ", " + said(sendfile(out, fd, nullptr, 100));
            seen +=
                " " + said(lseek(fd, 0, SEEK_CUR)) + " " + said(sendfile(out, fd, nullptr, 100));
            seen += "\n";
          }
          close(fd);
          return seen;
        },
        "999000 to 999010 same, elsewhere 0, 10 1000000 0\n"
        "999000 to 999010 same, elsewhere 0, 10 1000000 0\n");
  }
}
