// SPDX-License-Identifier: Apache-2.0
//
// Descriptors that end, or become others, while fibers are parked on them; and who else uses them.
#include "intercept/intercepted.hpp"

#include <poll.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <thread>

#include <tendril/detail/sanitizers.hpp>

using namespace tendril;
using test::intercepted;

namespace {

/// What a read says that is parked when `end` is called with its descriptor.
std::string read_during(const std::function<void(test::ends&)>& end) {
  test::pipe_pair through;
  std::string seen;
  fiber reader([&] { seen = test::read_text(through.out()); });
  fiber ender([&] {
    this_fiber::yield();
    end(through);
  });
  ender.join();
  reader.join();
  return seen;
}

char cat[] = "/bin/cat";
char* const cat_alone[] = {cat, nullptr};

[[maybe_unused]] pid_t cat_by_vfork(int in, int out) {
  const pid_t child = vfork();
  if (child == 0) {
    dup2(in, 0);
    dup2(out, 1);
    execv(cat, cat_alone);
    _exit(127);
  }
  return child;
}

[[maybe_unused]] pid_t cat_by_spawn(int in, int out) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, 0);
  posix_spawn_file_actions_adddup2(&actions, out, 1);
  pid_t child = -1;
  if (posix_spawn(&child, cat, &actions, nullptr, cat_alone, environ) != 0) child = -1;
  posix_spawn_file_actions_destroy(&actions);
  return child;
}

}  // namespace

TEST_SUITE("lifetimes") {
  TEST_CASE("a parked call returns EBADF, whichever way its number is closed") {
    intercepted(
        [] {
          std::string seen;
          const auto add = [&](const char* name, const std::function<void(test::ends&)>& end) {
            seen.append(name).append(": ").append(read_during(end)).append("\n");
          };
          add("close", [](test::ends& e) { close(e.release_out()); });
          add("dup2", [](test::ends& e) { dup2(e.in(), e.out()); });
          add("dup3", [](test::ends& e) { dup3(e.in(), e.out(), O_CLOEXEC); });
          add("fclose", [](test::ends& e) { fclose(fdopen(e.release_out(), "r")); });
          add("close_range", [](test::ends& e) {
            const auto fd = static_cast<unsigned>(e.release_out());
            close_range(fd, fd, 0);
          });
          return seen;
        },
        "close: Bad file descriptor\ndup2: Bad file descriptor\ndup3: Bad file descriptor\n"
        "fclose: Bad file descriptor\nclose_range: Bad file descriptor\n");
  }

  TEST_CASE("the number means another file at once") {
    intercepted(
        [] {
          std::string seen;
          for (int i = 0; i != 20; ++i) {
            test::socket_pair old;
            const int number = old.here();
            fiber reader([&] { seen += test::read_text(number) == "x" ? "wrong" : ""; });
            fiber other(test::stack_of_its_own(), [&] {
              this_fiber::yield();
              close(old.release_out());
              test::socket_pair fresh;  // takes the number
              if (fresh.here() != number) seen += "no reuse";
              test::write_text(fresh.there(), "x");
              if (test::read_text(fresh.here()) != "x") seen += "stolen";
              // And waits anew.
              fiber again([&] { seen += test::read_text(fresh.here()) == "y" ? "" : "not woken"; });
              this_fiber::yield();
              test::write_text(fresh.there(), "y");
              again.join();
            });
            reader.join();
            other.join();
          }
          return seen;
        },
        "");
  }

  // Its token is about the file that the number meant when the event came.
  TEST_CASE("a file is replaced when its reader has been woken and has not run yet") {
    intercepted(
        [] {
          test::socket_pair old, next;
          const int number = old.here();
          std::string seen;
          fiber reader([&] { seen = test::read_text(number); });
          test::until_waited_for(number, detail::direction::read);
          detail::descriptor& entry = *detail::find_descriptor(number);
          entry.deliver(entry.generation(), true, false, false);  // the reader is runnable
          dup2(next.here(), number);
          test::write_text(next.there(), "of the next");
          reader.join();
          return seen.append(", ").append(test::read_text(number));
        },
        "Bad file descriptor, of the next");
  }

  TEST_CASE("closing behind libc's back is noticed when the number is opened again") {
    intercepted(
        [] {
          test::socket_pair old;
          const int number = old.release_out();
          test::write_text(old.in(), "x");
          std::string seen = test::read_text(number);
          fiber first([&] {
            pollfd one{number, POLLIN, 0};
            poll(&one, 1, 1);  // registers it
          });
          first.join();
          test::behind_the_front<int(int)>("close")(number);
          test::socket_pair fresh;
          if (fresh.here() != number) seen += " no reuse ";
          fiber reader([&] { seen += test::read_text(fresh.here()); });
          fiber writer([&] {
            this_fiber::yield();
            test::write_text(fresh.there(), "y");
          });
          reader.join();
          writer.join();
          return seen;
        },
        "xy");
  }

  TEST_CASE("closing ends a poll that waits for it") {
    intercepted(
        [] {
          test::pipe_pair one, two;
          std::string seen;
          fiber poller([&] {
            pollfd set[] = {{one.out(), POLLIN, 0}, {two.out(), POLLIN, 0}};
            const int n = poll(set, 2, -1);
            seen = std::to_string(n);
            seen += (set[0].revents & POLLNVAL) != 0 ? " invalid" : " something else";
          });
          fiber closer([&] {
            this_fiber::yield();
            close(one.release_out());
          });
          closer.join();
          poller.join();
          return seen;
        },
        "1 invalid");
  }

  TEST_CASE("a dup'ed number is the same file") {
    intercepted(
        [] {
          test::pipe_pair through;
          const int other = fcntl(through.out(), F_DUPFD_CLOEXEC, 0);
          std::string seen;
          fiber reader([&] { seen = test::read_text(other); });
          fiber writer([&] {
            this_fiber::yield();
            close(through.release_out());  // the file lives on
            test::write_text(through.in(), "through the other");
          });
          reader.join();
          writer.join();
          close(other);
          return seen;
        },
        "through the other");
  }

  TEST_CASE("the end of a stream, and the end of all writers") {
    intercepted(
        [] {
          std::string seen;
          test::socket_pair ends;
          test::pipe_pair through;
          fiber reader([&] {
            seen += test::read_text(ends.here()).empty() ? "end " : "something ";
            seen += test::read_text(through.out()).empty() ? "end" : "something";
          });
          fiber ender([&] {
            this_fiber::yield();
            shutdown(ends.there(), SHUT_WR);
            this_fiber::yield();
            close(through.release_in());
          });
          reader.join();
          ender.join();
          return seen;
        },
        "end end");
  }

  TEST_CASE("descriptors that are no pipes and no sockets") {
    intercepted(
        [] {
          std::string seen;
          const auto counted = [&](const char* name, int fd, std::size_t bytes, auto cause) {
            char room[512];
            ssize_t n = -1;
            fiber reader([&] { n = read(fd, room, bytes); });
            fiber writer([&] {
              this_fiber::yield();
              cause(fd);
            });
            reader.join();
            writer.join();
            seen.append(name).append(n > 0 ? ": some\n" : ": none\n");
            close(fd);
          };
          counted("eventfd", eventfd(0, 0), 8, [](int fd) {
            const std::uint64_t one = 1;
            if (write(fd, &one, sizeof one) != sizeof one) std::abort();
          });
          counted("timerfd", timerfd_create(CLOCK_MONOTONIC, 0), 8, [](int fd) {
            const itimerspec soon{{0, 0}, {0, 1'000'000}};
            timerfd_settime(fd, 0, &soon, nullptr);
          });
          counted("inotify", inotify_init1(0), 512, [](int fd) {
            char name[] = "/tmp/tendril-intercept-XXXXXX";
            const int file = mkstemp(name);
            inotify_add_watch(fd, name, IN_DELETE_SELF | IN_ATTRIB);
            close(file);
            unlink(name);
          });
          sigset_t one;
          sigemptyset(&one);
          sigaddset(&one, SIGUSR2);
          pthread_sigmask(SIG_BLOCK, &one, nullptr);
          counted("signalfd", signalfd(-1, &one, 0), sizeof(signalfd_siginfo),
                  [](int) { pthread_kill(pthread_self(), SIGUSR2); });
          pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
          return seen;
        },
        "eventfd: some\ntimerfd: some\ninotify: some\nsignalfd: some\n");
  }

  TEST_CASE("eventfd_read and eventfd_write") {
    intercepted(
        [] {
          const int counter = eventfd(0, 0);
          std::string seen;
          fiber reader([&] {
            eventfd_t value = 0;
            const int result = eventfd_read(counter, &value);
            seen.append(std::to_string(result)).append(" ").append(std::to_string(value));
          });
          fiber writer([&] {
            this_fiber::yield();
            seen += std::to_string(eventfd_write(counter, 5)) + " ";
          });
          writer.join();
          reader.join();
          close(counter);
          return seen;
        },
        "0 0 5");
  }

  TEST_CASE("a native thread and a fiber share a descriptor") {
    intercepted(
        [] {
          constexpr int count = 200;
          test::socket_pair ends(SOCK_DGRAM);
          std::atomic<int> got{0};
          const auto take = [&] {
            char byte;
            while (read(ends.here(), &byte, 1) == 1 && byte == 'x') ++got;
          };
          std::thread native(take);
          fiber mine(take);
          for (int i = 0; i != count; ++i) {
            test::write_text(ends.there(), "x");
            if (i % 8 == 0) this_fiber::yield();
          }
          // One for each; who comes second finds his.
          test::write_text(ends.there(), "e");
          test::write_text(ends.there(), "e");
          mine.join();
          native.join();
          return std::to_string(got.load());
        },
        "200");
  }

  TEST_CASE("a descriptor from before the runtime, used first by a thread") {
    test::pipe_pair through;
    test::write_text(through.in(), "before ");
    std::string seen = test::read_text(through.out());
    for (int i = 0; i != 2; ++i) {
      runtime rt({.workers = 1, .max_spare_threads = 0});
      const test::watchdog dog("a descriptor from before", &rt);
      test::run_on_own_stack(rt, [&] {
        fiber reader([&] { seen += test::read_text(through.out()); });
        fiber writer([&] {
          this_fiber::yield();
          test::write_text(through.in(), "during ");
        });
        reader.join();
        writer.join();
      });
    }
    CHECK(seen == "before during during ");
  }

#if !TENDRIL_TSAN  // which does not let a child of a process with threads go on
  TEST_CASE("the child of a fork is plain libc") {
    intercepted(
        [] {
          test::pipe_pair to_child, to_parent;
          const pid_t child = fork();
          if (child == 0) {
            // One thread, no runtime: a read that parked would never return.
            char byte = 0;
            const bool got = read(to_child.out(), &byte, 1) == 1;
            ++byte;
            if (write(to_parent.in(), &byte, 1) != 1) _exit(2);
            _exit(got ? 0 : 1);
          }
          std::string seen;
          fiber reader([&] { seen = test::read_text(to_parent.out()); });
          fiber writer([&] {
            this_fiber::yield();
            test::write_text(to_child.in(), "a");
          });
          reader.join();
          writer.join();
          int status = -1;
          while (waitpid(child, &status, WNOHANG) == 0) this_fiber::yield();
          return seen.append(" ").append(std::to_string(status));
        },
        "b 0");
  }

  TEST_CASE("a program that the child of a vfork executes, and one that is spawned") {
    intercepted(
        [] {
          test::pipe_pair text;
          std::string seen;
          fiber parked([&] { test::read_text(text.out()); });  // in the middle of a call meanwhile
          for (const bool forks : {true, false}) {
            test::pipe_pair to_child(O_CLOEXEC), to_parent(O_CLOEXEC);
            const pid_t child = forks ? cat_by_vfork(to_child.out(), to_parent.in())
                                      : cat_by_spawn(to_child.out(), to_parent.in());
            close(to_parent.release_in());
            fiber talker([&] {
              test::write_text(to_child.in(), "hello");
              close(to_child.release_in());
            });
            for (std::string part; !(part = test::read_text(to_parent.out())).empty();)
              seen += part;
            talker.join();
            int status = -1;
            const bool ended = waitpid(child, &status, 0) == child;
            seen.append(ended && status == 0 ? " ended " : " ? ");
          }
          test::write_text(text.in(), "x");
          parked.join();
          return seen;
        },
        "hello ended hello ended ");
  }

  TEST_CASE("what the child of a vfork closes is not closed here") {
    intercepted(
        [] {
          test::pipe_pair through;
          std::string seen;
          fiber reader([&] { seen = test::read_text(through.out()); });
          fiber forker([&] {
            this_fiber::yield();
            const int out = through.out(), in = through.in();
            const pid_t child = vfork();
            if (child == 0) {
              close(out);
              dup2(in, 1);
              _exit(0);
            }
            this_fiber::yield();
            if (!seen.empty()) seen += " already; ";
            test::write_text(through.in(), "still open");
            int status;
            while (waitpid(child, &status, WNOHANG) == 0) this_fiber::yield();
          });
          forker.join();
          reader.join();
          return seen;
        },
        "still open");
  }
#endif
}
