// SPDX-License-Identifier: Apache-2.0
//
// Calls by their number that have a function in libc, and numbers that are nothing to us.
#include "intercept/waiting.hpp"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <thread>

using namespace tendril;
using test::both;
using test::intercepted;
using test::pipe_pair;
using test::said;
using test::socket_pair;

namespace {

/// One fiber makes a call that waits for the first end, another one writes to the second.
template <class Ends>
std::string waits_for(const std::function<long(int)>& call) {
  Ends two;
  return both([&] { return said(call(two.out())); }, [&] { test::write_text(two.in(), "abc"); });
}

}  // namespace

TEST_SUITE("numbers") {
  TEST_CASE("what has no function here is passed on as it is") {
    intercepted(
        [] {
          std::string seen(syscall(SYS_getpid) == getpid() ? "same " : "another ");
          // Six arguments, the last of which is on the stack.
          void* const page = reinterpret_cast<void*>(
              syscall(SYS_mmap, nullptr, 4096L, static_cast<long>(PROT_READ),
                      static_cast<long>(MAP_PRIVATE | MAP_ANONYMOUS), -1L, 0L));
          seen += page != MAP_FAILED && *static_cast<char*>(page) == 0 ? "mapped " : "failed ";
          seen += std::to_string(syscall(SYS_munmap, page, 4096L)) + ' ';
          seen += said(syscall(SYS_munmap, 1L, 4096L)) + ' ';
          return seen + said(syscall(100'000L)) + ' ' + said(syscall(-1L));
        },
        "same mapped 0 Invalid argument Function not implemented Function not implemented");
  }

  TEST_CASE("reading and writing by number parks") {
    char room[16];
    msghdr message{};
    iovec part{room, sizeof room};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const std::function<long(int)> calls[] = {
        [&](int fd) { return syscall(SYS_read, fd, room, sizeof room); },
        [&](int fd) { return syscall(SYS_readv, fd, &part, 1); },
        [&](int fd) { return syscall(SYS_preadv2, fd, &part, 1, -1L, -1L, 0L); },
        [&](int fd) { return syscall(SYS_recvfrom, fd, room, sizeof room, 0, nullptr, nullptr); },
        [&](int fd) { return syscall(SYS_recvmsg, fd, &message, 0); },
    };
    for (std::size_t i = 0; i != std::size(calls); ++i) {
      CAPTURE(i);
      intercepted([&] { return waits_for<socket_pair>(calls[i]); }, "3");
      if (i < 3) intercepted([&] { return waits_for<pipe_pair>(calls[i]); }, "3");
    }
    intercepted([] { return said(syscall(SYS_read, -1, nullptr, 1L)); }, "Bad file descriptor");
  }

  TEST_CASE("waiting for descriptors by number parks") {
    const std::function<long(int)> calls[] = {
#if defined(SYS_poll)
      [](int fd) {
        pollfd one{fd, POLLIN, 0};
        return syscall(SYS_poll, &one, 1, -1);
      },
      [](int fd) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(fd, &set);
        return syscall(SYS_select, fd + 1, &set, nullptr, nullptr, nullptr);
      },
#endif
      [](int fd) {
        pollfd one{fd, POLLIN, 0};
        return syscall(SYS_ppoll, &one, 1, nullptr, nullptr, 0);
      },
      [](int fd) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(fd, &set);
        return syscall(SYS_pselect6, fd + 1, &set, nullptr, nullptr, nullptr, nullptr);
      },
      [](int fd) {
        const int set = epoll_create1(0);
        epoll_event one{.events = EPOLLIN, .data = {}};
        epoll_ctl(set, EPOLL_CTL_ADD, fd, &one);
        const long n = syscall(SYS_epoll_pwait, set, &one, 1, -1, nullptr, 0L);
        close(set);
        return n;
      },
    };
    for (std::size_t i = 0; i != std::size(calls); ++i) {
      CAPTURE(i);
      intercepted([&] { return waits_for<socket_pair>(calls[i]); }, "1");
    }
  }

  TEST_CASE("sleeping by number parks, and fails as the kernel does") {
    intercepted(
        [] {
          const timespec short_time{0, 1'000'000}, bad{0, -1};
          std::string seen = both(
              [&] {
                const long first = syscall(SYS_nanosleep, &short_time, nullptr);
                return said(first) +
                       said(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &short_time, nullptr));
              },
              [] {});
          seen += ' ' + said(syscall(SYS_nanosleep, &bad, nullptr));
          return seen + ' ' + said(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &bad, nullptr));
        },
        "00 Invalid argument Invalid argument");
  }

  TEST_CASE("closing by number, by a thread, ends a call that is parked on the descriptor") {
    intercepted(
        [] {
          pipe_pair ends;
          return both([&] { return test::read_text(ends.out()); },
                      [&] { std::thread([&] { syscall(SYS_close, ends.release_out()); }).join(); });
        },
        "Bad file descriptor");
  }

  TEST_CASE("a child is waited for by number") {
    intercepted(
        [] {
          pipe_pair ends;
          const pid_t child = fork();
          if (child == 0) {
            char c = 0;
            ::close(ends.in());
            static_cast<void>(!::read(ends.out(), &c, 1));
            _exit(3);
          }
          return both(
              [&] {
                int status = 0;
                const long n = syscall(SYS_wait4, child, &status, 0, nullptr);
                return std::to_string(n == child) + ' ' + std::to_string(WEXITSTATUS(status));
              },
              [&] { ::close(ends.release_in()); });
        },
        "1 3");
  }
}
