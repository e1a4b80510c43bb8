// SPDX-License-Identifier: Apache-2.0
//
// Signals whose handlers interrupt calls that are parked on fibers: as those of the thread that the fiber stays on, or,
// for signals to the process, as those of the main thread, whose place the fiber has that runtime::run() runs.
#include "intercept/interrupting.hpp"

#include "sched/thread_stay.hpp"

#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

using namespace tendril;
using test::check_always;
using test::check_interrupted;
using test::check_restarted;
using test::count;
using test::handled;
using test::handler_of;
using test::intercepted;
using test::said;
using test::signalled;

namespace {

std::atomic<pid_t> child{0};

int listener(sockaddr_in& address) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(fd, 8) != 0)
    std::abort();
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return fd;
}

/// A call on the fiber that runtime::run() runs, and signals to the process.
std::string on_first_fiber(const std::function<std::string()>& call) {
  handled = 0;
  // No thread takes the worker over: the sender runs when the first fiber has parked.
  runtime rt({.workers = 1, .max_spare_threads = 0});
  const test::watchdog dog("a call of the first fiber", &rt);
  return rt.run([&call] { return test::signalled_till_it_returns(call); });
}

bool about(double seconds, double wanted) {
  return seconds <= wanted && seconds > wanted - 60;  // on a machine as slow as that
}
double seconds_of(const timespec& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

}  // namespace

TEST_SUITE("interrupted") {
  TEST_CASE("reading and accepting, unless restarted") {
    test::pipe_pair through;
    test::socket_pair pair;
    check_restarted([&] { return test::read_text(through.out()); },
                    [&] { test::write_text(through.in(), "x"); }, "x");
    char byte = 0;
    check_restarted([&] { return said(recv(pair.here(), &byte, 1, 0)); },
                    [&] { test::write_text(pair.there(), "x"); }, "1");
    sockaddr_in address;
    const int fd = listener(address);
    check_restarted(
        [&] {
          const int accepted = accept(fd, nullptr, nullptr);
          if (accepted < 0) return said(accepted);
          close(accepted);
          return std::string("accepted");
        },
        [&] {
          const int peer = socket(AF_INET, SOCK_STREAM, 0);
          if (connect(peer, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
            std::abort();
          close(peer);
        },
        "accepted");
    close(fd);
  }

  TEST_CASE("a socket's timeout: never restarted") {
    test::socket_pair pair;
    const timeval limit{1000, 0};
    setsockopt(pair.here(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(pair.here(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    char byte = 0;
    check_always([&] { return said(recv(pair.here(), &byte, 1, 0)); });
    // Full, first.
    const std::string much(1 << 20, 'x');
    while (send(pair.here(), much.data(), much.size(), MSG_DONTWAIT) > 0) {
    }
    check_always([&] { return said(send(pair.here(), much.data(), much.size(), 0)); });
  }

  TEST_CASE("waiting for descriptors") {
    test::pipe_pair through;
    check_always([&] {
      pollfd one{through.out(), POLLIN, 0};
      return said(poll(&one, 1, 1'000'000));
    });
    check_always([&] {
      pollfd one{through.out(), POLLIN, 0};
      const timespec limit{1000, 0};
      return said(ppoll(&one, 1, &limit, nullptr));
    });
    check_always([&] {
      fd_set set;
      FD_ZERO(&set);
      FD_SET(through.out(), &set);
      timeval limit{1000, 0};
      std::string seen = said(select(through.out() + 1, &set, nullptr, nullptr, &limit));
      if (limit.tv_sec >= 1000 || limit.tv_sec < 900) seen += " rest?";
      return seen;
    });
    const int events = epoll_create1(EPOLL_CLOEXEC);
    epoll_event one{};
    check_always([&] { return said(epoll_wait(events, &one, 1, 1'000'000)); });
    close(events);
  }

  TEST_CASE("sleeping; what is left") {
    check_always([&] {
      const unsigned left = sleep(1000);
      const int error = errno;
      return std::string(about(left, 1000) && left < 1000 ? std::strerror(error) : "?");
    });
    check_always([] { return said(usleep(100'000'000)); });
    check_always([] {
      const timespec long_time{1000, 500};
      timespec left{0, 0};
      std::string seen = said(nanosleep(&long_time, &left));
      return about(seconds_of(left), 1000.0000005) ? seen : "?";
    });
    check_always([] {
      const timespec long_time{1000, 0};
      timespec left{0, 0};
      const int error = clock_nanosleep(CLOCK_MONOTONIC, 0, &long_time, &left);
      return std::string(about(seconds_of(left), 1000) ? std::strerror(error) : "?");
    });
    check_always([] {
      timespec then{};
      clock_gettime(CLOCK_REALTIME, &then);
      then.tv_sec += 1000;
      timespec left{7, 7};
      const int error = clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &then, &left);
      return std::string(left.tv_sec == 7 && left.tv_nsec == 7 ? std::strerror(error) : "?");
    });
  }

  TEST_CASE("semaphores, unless restarted; mutexes and conditions never") {
    sem_t empty;
    sem_init(&empty, 0, 0);
    check_restarted([&] { return said(sem_wait(&empty)); }, [&] { sem_post(&empty); }, "0");
    sem_destroy(&empty);
    const handler_of usr1(SIGUSR1, 0);
    intercepted(
        [] {
          handled = 0;
          pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
          pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
          std::string seen;
          fiber holder([&] {
            pthread_mutex_lock(&lock);
            fiber waiter([&] {
              pthread_mutex_lock(&lock);
              timespec then{};
              clock_gettime(CLOCK_REALTIME, &then);
              then.tv_nsec = 0;
              then.tv_sec += 2;  // whatever is told by then
              seen = std::strerror(pthread_cond_timedwait(&changed, &lock, &then));
              pthread_mutex_unlock(&lock);
            });
            this_fiber::yield();
            pthread_kill(pthread_self(), SIGUSR1);
            this_fiber::yield();
            pthread_mutex_unlock(&lock);
            this_fiber::yield();
            pthread_kill(pthread_self(), SIGUSR1);
            pthread_cond_signal(&changed);
            waiter.join();
          });
          holder.join();
          return seen + count();
        },
        "Success, handled 2");
  }

  TEST_CASE("futexes, unless restarted; never with a time") {
    static std::atomic<std::uint32_t> word;
    const auto wait = [](int operation, const timespec* time) {
      word = 0;
      return said(syscall(SYS_futex, &word, operation | FUTEX_PRIVATE_FLAG, 0, time, nullptr, ~0U));
    };
    const auto wake = [] {
      word = 1;
      syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1);
    };
    check_restarted([&] { return wait(FUTEX_WAIT, nullptr); }, wake, "0");
    check_restarted([&] { return wait(FUTEX_WAIT_BITSET, nullptr); }, wake, "0");
    const timespec long_time{1000, 0};
    check_always([&] { return wait(FUTEX_WAIT, &long_time); });
    check_always([&] {
      timespec then{};
      clock_gettime(CLOCK_MONOTONIC, &then);
      then.tv_sec += 1000;
      return wait(FUTEX_WAIT_BITSET, &then);
    });
  }

  TEST_CASE("a part that has been written counts") {
    test::pipe_pair through;
    const handler_of usr1(SIGUSR1, 0);
    intercepted(
        [&] {
          handled = 0;
          const std::string much(1 << 20, 'x');
          const std::string seen =
              signalled([&] { return said(write(through.in(), much.data(), much.size())); });
          for (int there = 1; there > 0; ioctl(through.out(), FIONREAD, &there))
            test::read_text(through.out(), 1 << 16);
          return seen;
        },
        "65536, handled 1");
  }

  TEST_CASE("waiting for signals and for a child") {
    check_always([] {
      sigset_t set;
      sigemptyset(&set);
      sigaddset(&set, SIGRTMIN + 7);
      return said(sigwaitinfo(&set, nullptr));
    });
    check_restarted(
        [] {
          const pid_t pid = fork();
          if (pid == 0) {
            for (;;) pause();
          }
          child = pid;
          const pid_t ended = waitpid(pid, nullptr, 0);
          std::string seen = ended == pid ? "ended" : std::strerror(errno);
          if (ended != pid) {
            kill(pid, SIGKILL);
            waitpid(pid, nullptr, 0);
          }
          return seen;
        },
        [] { kill(child, SIGKILL); }, "ended");
  }

  TEST_CASE("connecting goes on after it") {
    sockaddr_in address;
    const int fd = listener(address);
    // Nobody accepts, and the queue is full: what comes then waits.
    std::vector<int> waiting;
    for (int i = 0; i != 12; ++i) {
      waiting.push_back(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
      (void)connect(waiting.back(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    }
    const handler_of usr1(SIGUSR1, 0);
    intercepted(
        [&] {
          handled = 0;
          const int late = socket(AF_INET, SOCK_STREAM, 0);
          std::string seen = signalled([&] {
            return said(connect(late, reinterpret_cast<const sockaddr*>(&address), sizeof address));
          });
          // In progress, says the kernel.
          pollfd one{late, POLLOUT, 0};
          seen += poll(&one, 1, 0) == 0 ? ", in progress" : ", done";
          close(late);
          return seen;
        },
        "Interrupted system call, handled 1, in progress");
    for (const int one : waiting) close(one);
    close(fd);
  }

  TEST_CASE("calls of other threads and fibers go on") {
    const handler_of usr1(SIGUSR1, 0);
    // A signal to the process stands for one to the main thread, which runs the first fiber: not this one.
    test::pipe_pair through;
    intercepted(
        [&] {
          handled = 0;
          std::string seen;
          fiber reader([&] { seen = test::read_text(through.out()); });
          test::until_waited_for(through.out(), detail::direction::read);
          kill(getpid(), SIGUSR1);
          while (handled == 0) this_fiber::yield();
          const timespec some{0, 5'000'000};
          nanosleep(&some, nullptr);
          test::write_text(through.in(), "x");
          reader.join();
          return seen + count();
        },
        "x, handled 1");
  }

  TEST_CASE("a signal to the process: the first fiber's call") {
    const handler_of usr1(SIGUSR1, 0);
    static test::pipe_pair through;
    static const int fd = [] {
      sockaddr_in address;
      return listener(address);
    }();
    CHECK(on_first_fiber([] { return said(accept(fd, nullptr, nullptr)); }) ==
          "Interrupted system call");
    CHECK(on_first_fiber([] { return test::read_text(through.out()); }) ==
          "Interrupted system call");
    CHECK(on_first_fiber([] { return said(static_cast<long>(sleep(1000)) > 900 ? -1 : 0); }) ==
          "Interrupted system call");
    CHECK(on_first_fiber([] {
            pthread_kill(pthread_self(), SIGUSR1);  // running, not waiting: nothing is interrupted
            return test::read_text(through.out());
          }) == "Interrupted system call");
  }

  TEST_CASE("an alarm during a read") {
    const handler_of alarms(SIGALRM, 0);
    static test::pipe_pair through;
    runtime rt({.workers = 1});
    const test::watchdog dog("a read until an alarm", &rt);
    const std::string seen = rt.run([] {
      // As often as it takes: the first may come before the fiber has parked.
      const itimerval each{{0, 3000}, {0, 3000}};
      const itimerval none{};
      setitimer(ITIMER_REAL, &each, nullptr);
      std::string text = test::read_text(through.out());
      setitimer(ITIMER_REAL, &none, nullptr);
      return text;
    });
    CHECK(seen == "Interrupted system call");
    CHECK(handled > 0);
  }

  TEST_CASE("the main thread's signals: the fiber that it runs") {
    const handler_of usr1(SIGUSR1, 0);
    static test::pipe_pair through;
    static pthread_t main_thread;
    main_thread = pthread_self();
    runtime rt({.workers = 2});
    const test::watchdog dog("a read of the main thread's", &rt);
    const std::string seen = rt.run([] {
      static std::atomic<bool> over;
      over = false;
      std::thread sender([] {
        while (!over) {
          pthread_kill(main_thread, SIGUSR1);
          std::this_thread::yield();
        }
      });
      std::string text = test::read_text(through.out());
      over = true;
      sender.join();
      return text;
    });
    CHECK(seen == "Interrupted system call");
  }

  // Each wait is ended by a signal or by a byte, and nobody waits for ever.
  TEST_CASE("signals against waits and wake-ups") {
    const handler_of usr1(SIGUSR1, 0);
    constexpr int bytes = 2000;
    constexpr int readers = 8;
    runtime rt({.workers = 2});
    const test::watchdog dog("signals against waits", &rt);
    std::atomic<int> got{0};
    std::atomic<int> broken{0};
    std::atomic<int> others{0};
    std::atomic<pthread_t> threads[readers]{};
    std::atomic<int> known{0};
    std::atomic<bool> over{false};
    test::socket_pair pairs[readers];
    std::thread sender([&] {
      while (known != readers) std::this_thread::yield();
      for (unsigned turn = 0; !over; ++turn) {
        const int before = handled;
        pthread_kill(threads[turn % readers], SIGUSR1);
        while (handled == before && !over) std::this_thread::yield();
      }
    });
    test::run_on_own_stack(rt, [&] {
      std::vector<fiber> all;
      for (int i = 0; i != readers; ++i) {
        all.emplace_back(test::stack_of_its_own(), [&, i] {
          const detail::thread_stay here;  // whose number it says
          threads[i] = pthread_self();
          ++known;
          for (int n = 0; n != bytes;) {
            char byte = 0;
            const ssize_t r = read(pairs[i].here(), &byte, 1);
            if (r == 1) ++n, ++got;
            else if (r < 0 && errno == EINTR) ++broken;
            else ++others;
          }
        });
        all.emplace_back(test::stack_of_its_own(), [&, i] {
          for (int n = 0; n != bytes; ++n) {
            while (write(pairs[i].there(), "x", 1) != 1) {
            }
            this_fiber::yield();
          }
        });
      }
      for (fiber& one : all) one.join();
    });
    over = true;
    sender.join();
    CHECK(got == bytes * readers);
    CHECK(others == 0);
  }
}
