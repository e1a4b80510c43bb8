// SPDX-License-Identifier: Apache-2.0
//
// Waiting for several descriptors at once.
#include "intercept/intercepted.hpp"

#include "intercept/install.hpp"
#include "intercept/polling.hpp"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <mutex>
#include <vector>

using namespace tendril;
using test::intercepted;

namespace {

std::string events_of(const pollfd& p) {
  std::string text;
  const auto add = [&](short bit, const char* name) {
    if ((p.revents & bit) != 0) text += name;
  };
  add(POLLIN, "I");
  add(POLLOUT, "O");
  add(POLLPRI, "P");
  add(POLLHUP, "H");
  add(POLLRDHUP, "R");
  add(POLLERR, "E");
  add(POLLNVAL, "N");
  return text.empty() ? "-" : text;
}

/// Calls wait() on a fiber, and cause() when that is parked.
template <class Wait, class Cause>
void in_turn(Wait wait, Cause cause) {
  fiber waiting(wait);
  fiber causing([&] {
    this_fiber::yield();
    cause();
  });
  waiting.join();
  causing.join();
}

}  // namespace

TEST_SUITE("polling") {
  TEST_CASE("poll tells which are ready, and how") {
    intercepted(
        [] {
          test::pipe_pair a, b;
          test::socket_pair c;
          std::string seen;
          pollfd set[] = {{a.out(), POLLIN, 0},  {-1, POLLIN, 9},          {b.out(), POLLIN, 0},
                          {c.here(), POLLIN, 0}, {c.here(), POLLRDHUP, 0}, {c.here(), 0, 0}};
          const auto wait = [&] {
            seen += std::to_string(poll(set, 6, -1));
            for (const pollfd& p : set) seen.append(" ").append(events_of(p));
            seen += "\n";
          };
          in_turn(wait, [&] { test::write_text(b.in(), "x"); });
          test::read_text(b.out());
          in_turn(wait, [&] { close(a.release_in()); });
          set[0].fd = -1;
          in_turn(wait, [&] { shutdown(c.there(), SHUT_WR); });
          return seen;
        },
        "1 - - I - - -\n"
        "1 H - - - - -\n"
        "2 - - - I R -\n");
  }

  TEST_CASE("poll waits for hangups alone, and for room") {
    intercepted(
        [] {
          test::socket_pair ends;
          std::string seen;
          pollfd one{ends.here(), 0, 0};
          test::write_text(ends.there(), "data that nobody asked about");
          in_turn(
              [&] {
                seen.append(std::to_string(poll(&one, 1, -1))).append(events_of(one)).append(" ");
              },
              [&] {
                this_fiber::sleep_for(std::chrono::milliseconds(2));
                close(ends.release_in());
              });
          test::socket_pair full;
          fcntl(full.here(), F_SETFL, O_RDWR | O_NONBLOCK);
          const std::string much(std::size_t{1} << 20, 'x');
          while (write(full.here(), much.data(), much.size()) > 0) {
          }
          pollfd both{full.here(), POLLIN | POLLOUT, 0};
          in_turn([&] { seen.append(std::to_string(poll(&both, 1, -1))).append(events_of(both)); },
                  [&] {
                    char room[4096];
                    while (recv(full.there(), room, sizeof room, MSG_DONTWAIT) > 0) {
                    }
                  });
          return seen;
        },
        "1H 1O");
  }

  TEST_CASE("many wait for the same: each is told") {
    intercepted(
        [] {
          test::pipe_pair through;
          int told = 0;
          std::vector<fiber> all;
          for (int i = 0; i != 20; ++i)
            all.emplace_back([&] {
              pollfd one{through.out(), POLLIN, 0};
              if (poll(&one, 1, -1) == 1 && one.revents == POLLIN) ++told;
            });
          this_fiber::yield();
          test::write_text(through.in(), "x");
          for (fiber& f : all) f.join();
          return std::to_string(told);
        },
        "20");
  }

  TEST_CASE("who polls does not take what a reader waits for") {
    intercepted(
        [] {
          test::pipe_pair through, other;
          std::string seen;
          bool polls = false;  // to another fiber: is parked there
          fiber poller([&] {
            pollfd set[] = {{through.out(), POLLIN, 0}, {other.out(), POLLIN, 0}};
            const auto told = [&] {
              polls = true;
              const int n = poll(set, 2, -1);
              polls = false;
              return n;
            };
            while (told() >= 1 && (set[1].revents & POLLIN) == 0) this_fiber::yield();
          });
          fiber reader([&] {
            for (std::string got; (got = test::read_text(through.out(), 1)) != "."; seen += got) {
            }
          });
          std::string sent;
          for (const char* text : {"a", "b", "c", "d", "."}) {
            while (seen != sent || !polls) this_fiber::yield();
            test::write_text(through.in(), text);
            sent += text;
          }
          reader.join();
          test::write_text(other.in(), "x");
          poller.join();
          return seen;
        },
        "abcd");
  }

  // The event comes when the kernel has been asked and has said no, and before the answer is looked at.
  TEST_CASE("what comes right after a look is not taken for what the look was about") {
    class late_look final : public detail::looker {
     public:
      late_look(pollfd& one, int writer) : looker(nullptr), one_(one), writer_(writer) {}

     private:
      long once(int) noexcept override {
        const int n = detail::real().poll(&one_, 1, 0);
        if (++looks_ != 2) return n;  // the second: in the list
        if (n != 0 || ::write(writer_, "x", 1) != 1) std::abort();
        detail::descriptor& entry = *detail::find_descriptor(one_.fd);
        for (bool waits = true; waits;) {  // until the other worker has delivered the event
          const std::lock_guard hold(entry.lock());
          waits = entry.has_waiters(detail::direction::read);
        }
        return 0;
      }
      pollfd& one_;
      const int writer_;
      int looks_ = 0;
    };

    runtime rt({.workers = 2});
    const test::watchdog dog("a poll", &rt);
    const auto on_worker = [&rt](int worker, auto f) {
      rt.run([&] { fiber(test::stack_of_its_own({.affinity = worker}), f).join(); });
    };
    const test::socket_pair s;
    on_worker(1, [&] {  // its loop watches the socket from now on
      pollfd one{s.here(), POLLIN, 0};
      ::poll(&one, 1, 1);
    });
    long found = -1;
    on_worker(0, [&] {
      pollfd one{s.here(), POLLIN, 0};
      late_look look(one, s.there());
      // One too many, as after a read that another was quicker with: so it looks again once it is in the list.
      detail::find_descriptor(s.here())->give_token(detail::direction::read);
      found = detail::wait_for_any(&one, 1, detail::no_deadline, "a test", look);
    });
    CHECK(found == 1);
  }

  TEST_CASE("what comes after the last look of a poll is left for others") {
    intercepted(
        [] {
          class last_look final : public detail::looker {
           public:
            last_look(pollfd (&set)[2]) : looker(nullptr), set_(set) {}

           private:
            long once(int) noexcept override {
              const int n = detail::real().poll(set_, 2, 0);
              if (n == 0) return 0;
              // One is ready, and then the other one's event comes: it is given to who is in the list.
              detail::descriptor& entry = *detail::find_descriptor(set_[1].fd);
              entry.deliver(entry.generation(), true, false, false);
              return n;
            }
            pollfd (&set_)[2];
          };
          const test::pipe_pair one, other;
          std::string seen;
          in_turn(
              [&] {
                pollfd set[] = {{one.out(), POLLIN, 0}, {other.out(), POLLIN, 0}};
                last_look look(set);
                seen = std::to_string(
                    detail::wait_for_any(set, 2, detail::no_deadline, "a test", look));
                detail::descriptor& entry = *detail::find_descriptor(other.out());
                seen += entry.take_token(detail::direction::read) ? ", left" : ", lost";
              },
              [&] { test::write_text(one.in(), "x"); });
          return seen;
        },
        "1, left");
  }

  TEST_CASE("ten thousand") {
    rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < 9'000) {
      MESSAGE("not enough descriptors: " << limit.rlim_cur);
      return;
    }
    intercepted(
        [] {
          // Not one each: the portable poller needs a duplicate of each.
          constexpr std::size_t files = 2'500, count = 10'000;
          std::vector<std::unique_ptr<test::pipe_pair>> pipes;
          for (std::size_t i = 0; i != files; ++i)
            pipes.push_back(std::make_unique<test::pipe_pair>());
          std::vector<pollfd> set(count);
          for (std::size_t i = 0; i != count; ++i) set[i] = {pipes[i % files]->out(), POLLIN, 0};
          std::string seen;
          for (int turn = 0; turn != 3; ++turn) {
            const std::size_t chosen = static_cast<std::size_t>(turn) * 1'000 + 7;
            in_turn([&] { seen += std::to_string(poll(set.data(), count, -1)); },
                    [&] { test::write_text(pipes[chosen]->in(), "x"); });
            for (std::size_t i = 0; i != count; ++i)
              if ((set[i].revents != 0) != (i % files == chosen)) seen += "?";
            test::read_text(pipes[chosen]->out());
            seen += " ";
          }
          return seen;
        },
        "4 4 4 ");
  }

  TEST_CASE("times: negative ones, and those that pass") {
    intercepted(
        [] {
          test::pipe_pair through;
          std::string seen;
          pollfd one{through.out(), POLLIN, 0};
          in_turn([&] { seen += std::to_string(poll(&one, 1, -5)); },
                  [&] { test::write_text(through.in(), "x"); });
          test::read_text(through.out());
          const auto timed = [&](auto call) {
            const auto begin = std::chrono::steady_clock::now();
            seen += std::to_string(call());
            if (std::chrono::steady_clock::now() - begin < std::chrono::milliseconds(5))
              seen += " too early";
          };
          const timespec limit{0, 5'000'000};
          timeval left{0, 5'000};
          fd_set set;
          FD_ZERO(&set);
          FD_SET(through.out(), &set);
          timed([&] { return poll(&one, 1, 5); });
          timed([&] { return ppoll(&one, 1, &limit, nullptr); });
          timed([&] { return select(through.out() + 1, &set, nullptr, nullptr, &left); });
          seen += FD_ISSET(through.out(), &set) || left.tv_usec != 0 ? "?" : "";
          timed([&] { return pselect(0, nullptr, nullptr, nullptr, &limit, nullptr); });
          const int events = epoll_create1(0);
          epoll_event e;
          timed([&] { return epoll_wait(events, &e, 1, 5); });
          timed([&] { return epoll_pwait2(events, &e, 1, &limit, nullptr); });
          close(events);
          return seen;
        },
        "1000000");
  }

  TEST_CASE("select") {
    intercepted(
        [] {
          test::pipe_pair through;
          test::socket_pair ends;
          std::string seen;
          const int most = std::max(through.out(), ends.here()) + 1;
          timeval limit{100, 0};
          const auto wait = [&] {
            fd_set in, except;
            FD_ZERO(&in);
            FD_ZERO(&except);
            FD_SET(through.out(), &in);
            FD_SET(ends.here(), &in);
            FD_SET(ends.here(), &except);
            seen += std::to_string(select(most, &in, nullptr, &except, &limit));
            seen += FD_ISSET(through.out(), &in) ? " pipe" : "";
            seen += FD_ISSET(ends.here(), &in) ? " socket" : "";
            seen += FD_ISSET(ends.here(), &except) ? " except" : "";
            seen += "\n";
          };
          in_turn(wait, [&] { test::write_text(through.in(), "x"); });
          test::read_text(through.out());
          in_turn(wait, [&] { test::write_text(ends.there(), "x"); });
          in_turn(wait, [&] { test::write_text(through.in(), "x"); });
          if (limit.tv_sec > 99) seen += "no time has passed";
          return seen;
        },
        "1 pipe\n1 socket\n1 socket\n");
  }

  TEST_CASE("an epoll set of the program's own") {
    intercepted(
        [] {
          test::pipe_pair a, b;
          const int events = epoll_create1(0);
          epoll_event e{};
          e.events = EPOLLIN;
          e.data.fd = a.out();
          epoll_ctl(events, EPOLL_CTL_ADD, a.out(), &e);
          std::string seen;
          const auto wait = [&] {
            epoll_event got[4];
            const int n = epoll_wait(events, got, 4, -1);
            seen += std::to_string(n);
            for (int i = 0; i < n; ++i) seen += got[i].data.fd == a.out() ? "a" : "b";
            seen += " ";
          };
          in_turn(wait, [&] { test::write_text(a.in(), "x"); });
          wait();  // still
          test::read_text(a.out());
          in_turn(wait, [&] {
            // Added while it is waited for.
            e.data.fd = b.out();
            epoll_ctl(events, EPOLL_CTL_ADD, b.out(), &e);
            test::write_text(b.in(), "x");
          });
          test::read_text(b.out());
          in_turn(wait, [&] { test::write_text(a.in(), "x"); });
          close(events);
          return seen;
        },
        "1a 1a 1b 1a ");
  }

  TEST_CASE("with a mask, a signal that it lets in ends the wait") {
    static volatile std::sig_atomic_t signals;
    signals = 0;
    struct sigaction counting {};
    counting.sa_handler = [](int) { signals = signals + 1; };
    struct sigaction before;
    sigaction(SIGUSR1, &counting, &before);
    intercepted(
        [] {
          test::pipe_pair through;
          sigset_t one, none;
          sigemptyset(&none);
          sigemptyset(&one);
          sigaddset(&one, SIGUSR1);
          pthread_sigmask(SIG_BLOCK, &one, nullptr);
          std::string seen;
          const auto already = signals;
          pollfd set{through.out(), POLLIN, 0};
          in_turn(
              [&] {
                const int n = ppoll(&set, 1, nullptr, &none);
                seen = n < 0 ? std::strerror(errno) : "no error";
              },
              [] { pthread_kill(pthread_self(), SIGUSR1); });
          pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
          return seen.append(signals == already + 1 ? ", handled" : ", not handled");
        },
        "Interrupted system call, handled");
    sigaction(SIGUSR1, &before, nullptr);
  }
}
