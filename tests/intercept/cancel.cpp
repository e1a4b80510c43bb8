// SPDX-License-Identifier: Apache-2.0
//
// What ends parked calls besides what they wait for: nothing, unless the program asks for it.
#include "intercept/intercepted.hpp"

#include <tendril/cancelable_calls.hpp>
#include <tendril/scope.hpp>

#include <poll.h>
#include <sys/epoll.h>

using namespace tendril;
using test::intercepted;

namespace {

/// What each kind of call says that is parked when its fiber is requested to stop.
template <class Scope>
std::string stopped() {
  std::string seen;
  const auto check = [&](const char* name, auto call) {
    test::pipe_pair through;
    long n = 0;
    int error = 0;
    fiber caller([&] {
      [[maybe_unused]] const Scope scope;
      n = call(through.out());
      error = errno;
    });
    this_fiber::yield();
    caller.request_stop();
    this_fiber::yield();
    test::write_text(through.in(), "x");
    caller.join();
    seen.append(name).append(n < 0 ? std::strerror(error) : "done").append("\n");
  };
  check("read: ", [](int fd) {
    char byte;
    return read(fd, &byte, 1);
  });
  check("poll: ", [](int fd) {
    pollfd one{fd, POLLIN, 0};
    return poll(&one, 1, -1);
  });
  check("epoll_wait: ", [](int fd) {
    const int set = epoll_create1(0);
    epoll_event e{};
    e.events = EPOLLIN;
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &e);
    const int n = epoll_wait(set, &e, 1, -1);
    const int error = errno;
    close(set);
    errno = error;
    return n;
  });
  return seen;
}

struct nothing {
  nothing() {}
};

}  // namespace

TEST_SUITE("cancel") {
  TEST_CASE("a request to stop does not end calls") {
    intercepted([] { return stopped<nothing>(); }, "read: done\npoll: done\nepoll_wait: done\n");
  }

  TEST_CASE("but where it is asked for") {
    intercepted([] { return stopped<cancelable_calls>(); },
                "read: Operation canceled\npoll: Operation canceled\n"
                "epoll_wait: Operation canceled\n");
  }

  TEST_CASE("deadlines likewise") {
    intercepted(
        [] {
          test::pipe_pair through;
          std::string seen;
          bool over = false;
          fiber caller([&] {
            const deadline_scope limit(std::chrono::milliseconds(5));
            {
              const cancelable_calls here;
              seen += test::read_text(through.out());
              pollfd one{through.out(), POLLIN, 0};
              if (poll(&one, 1, 1000) == -1) seen.append(", ").append(std::strerror(errno));
            }
            over = true;  // and no matter here
            seen.append(", ").append(test::read_text(through.out()));
          });
          while (!over) this_fiber::yield();
          test::until_waited_for(through.out(), detail::direction::read);
          test::write_text(through.in(), "read");
          caller.join();
          return seen;
        },
        "Connection timed out, Connection timed out, read");
  }

  TEST_CASE("what was written before is told") {
    intercepted(
        [] {
          test::pipe_pair through;
          const std::string much(std::size_t{1} << 20, 'x');
          ssize_t n = 0;
          fiber caller([&] {
            const cancelable_calls here;
            n = write(through.in(), much.data(), much.size());
          });
          this_fiber::yield();
          caller.request_stop();
          caller.join();
          return std::string(n > 0 && n < static_cast<ssize_t>(much.size()) ? "part" : "?");
        },
        "part");
  }
}
