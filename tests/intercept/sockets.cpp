// SPDX-License-Identifier: Apache-2.0
//
// What sockets do, as the manual pages have it.
#include "intercept/intercepted.hpp"
#include "support/descriptor_message.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/uio.h>
#include <sys/un.h>

#include <chrono>
#include <csignal>
#include <vector>

using namespace tendril;
using test::intercepted;

namespace {

/// Runs each as a fiber, in this order, and waits for all.
template <class... F>
void together(F... f) {
  fiber all[] = {fiber(std::move(f))...};
  for (fiber& one : all) one.join();
}

sockaddr_in loopback(int listener = -1) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (listener >= 0) getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  return address;
}
const sockaddr* generic(const sockaddr_in& a) { return reinterpret_cast<const sockaddr*>(&a); }

int listening() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in any = loopback();
  if (bind(fd, generic(any), sizeof any) != 0 || listen(fd, 8) != 0) std::abort();
  return fd;
}

std::string outcome_of(ssize_t n) { return n < 0 ? std::strerror(errno) : std::to_string(n); }

void set_timeout(int fd, int option, int milliseconds) {
  const timeval limit{milliseconds / 1000, milliseconds % 1000 * 1000};
  setsockopt(fd, SOL_SOCKET, option, &limit, sizeof limit);
}

}  // namespace

TEST_SUITE("sockets") {
  TEST_CASE("accept and connect") {
    intercepted(
        [] {
          const int listener = listening();
          std::string seen;
          together(
              [&] {
                sockaddr_in peer{};
                socklen_t size = sizeof peer;
                const int fd = accept(listener, reinterpret_cast<sockaddr*>(&peer), &size);
                seen += peer.sin_family == AF_INET && size == sizeof peer ? "peer " : "nobody ";
                seen += (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0 ? "blocking " : "non-blocking ";
                test::write_text(fd, "hello");
                close(fd);
              },
              [&] {
                const int fd = socket(AF_INET, SOCK_STREAM, 0);
                const sockaddr_in to = loopback(listener);
                this_fiber::yield();
                seen += outcome_of(connect(fd, generic(to), sizeof to)) + " ";
                seen += (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0 ? "blocking " : "non-blocking ";
                seen += test::read_text(fd) + test::read_text(fd) + ".";
                close(fd);
              });
          close(listener);
          return seen;
        },
        "0 blocking peer blocking hello.");
  }

  TEST_CASE("connect tells that nobody listens") {
    intercepted(
        [] {
          const int listener = listening();
          const sockaddr_in to = loopback(listener);
          close(listener);
          const int fd = socket(AF_INET, SOCK_STREAM, 0);
          const std::string seen = outcome_of(connect(fd, generic(to), sizeof to));
          close(fd);
          return seen;
        },
        "Connection refused");
  }

  TEST_CASE("connect waits for room in the queue of a Unix socket's listener") {
    intercepted(
        [] {
          const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
          sockaddr_un name{};
          name.sun_family = AF_UNIX;
          const std::string text = "tendril-intercept-" + std::to_string(getpid());
          text.copy(name.sun_path + 1, sizeof name.sun_path - 1);
          const auto size =
              static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
          const auto* const to = reinterpret_cast<const sockaddr*>(&name);
          if (bind(listener, to, size) != 0 || listen(listener, 0) != 0) return std::string("bind");
          constexpr int count = 5;
          int connected = 0;
          together(
              [&] {
                std::vector<fiber> clients;
                for (int i = 0; i != count; ++i)
                  clients.emplace_back([&] {
                    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
                    if (connect(fd, to, size) == 0) ++connected;
                    close(fd);
                  });
                for (fiber& c : clients) c.join();
              },
              [&] {
                for (int i = 0; i != count; ++i) close(accept4(listener, nullptr, nullptr, 0));
              });
          close(listener);
          return std::to_string(connected);
        },
        "5");
  }

  TEST_CASE("a non-blocking socket says EAGAIN, by each way of making it one") {
    intercepted(
        [] {
          std::string seen;
          for (int way = 0; way != 3; ++way) {
            test::socket_pair ends(way == 0 ? SOCK_STREAM | SOCK_NONBLOCK : SOCK_STREAM);
            // Known to be blocking, before it is made non-blocking.
            if (way != 0) test::write_text(ends.there(), "x"), test::read_text(ends.here());
            int on = 1;
            if (way == 1) fcntl(ends.here(), F_SETFL, fcntl(ends.here(), F_GETFL) | O_NONBLOCK);
            if (way == 2) ioctl(ends.here(), FIONBIO, &on);
            char byte;
            seen += outcome_of(recv(ends.here(), &byte, 1, 0)) + ", ";
            const std::string much(std::size_t{1} << 20, 'y');
            const ssize_t n = write(ends.here(), much.data(), much.size());
            seen += n > 0 && n < static_cast<ssize_t>(much.size()) ? "part" : outcome_of(n);
            seen += "; ";
            // What it has just been sent it finds at once.
            test::write_text(ends.there(), "z");
            seen += test::read_text(ends.here()) + "\n";
          }
          return seen;
        },
        "Resource temporarily unavailable, part; z\n"
        "Resource temporarily unavailable, part; z\n"
        "Resource temporarily unavailable, part; z\n");
  }

  TEST_CASE("flags are the file's, whichever of its numbers they are set by") {
    intercepted(
        [] {
          test::socket_pair ends;
          const int other = dup(ends.here());
          test::write_text(ends.there(), "x");
          std::string seen = test::read_text(other);
          fcntl(ends.here(), F_SETFL, O_RDWR | O_NONBLOCK);
          seen.append(" ").append(test::read_text(other));
          fcntl(ends.here(), F_SETFL, O_RDWR);
          together([&] { seen.append(" ").append(test::read_text(other)); },
                   [&] { test::write_text(ends.there(), "blocks"); });
          close(other);
          return seen;
        },
        "x Resource temporarily unavailable blocks");
  }

  TEST_CASE("SO_RCVTIMEO and SO_SNDTIMEO") {
    intercepted(
        [] {
          test::socket_pair ends;
          std::string seen;
          const auto timed = [&](auto call) {
            const auto begin = std::chrono::steady_clock::now();
            seen += call();
            seen += std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(20)
                        ? " in time, "
                        : " too early, ";
          };
          set_timeout(ends.here(), SO_RCVTIMEO, 20);
          timed([&] { return test::read_text(ends.here()); });
          char bytes[8];
          timed([&] { return outcome_of(recvfrom(ends.here(), bytes, 8, 0, nullptr, nullptr)); });
          set_timeout(ends.here(), SO_SNDTIMEO, 20);
          const std::string much(std::size_t{1} << 20, 'y');
          timed([&]() -> std::string {
            const ssize_t n = send(ends.here(), much.data(), much.size(), 0);
            return n > 0 && n < static_cast<ssize_t>(much.size()) ? "part" : outcome_of(n);
          });
          timed([&] { return outcome_of(send(ends.here(), "z", 1, 0)); });
          // Taken back: waits again.
          set_timeout(ends.here(), SO_RCVTIMEO, 0);
          together([&] { seen += test::read_text(ends.here()); },
                   [&] {
                     // For longer than it was limited to.
                     this_fiber::sleep_for(std::chrono::milliseconds(30));
                     test::write_text(ends.there(), "late");
                   });
          return seen;
        },
        "Resource temporarily unavailable in time, Resource temporarily unavailable in time, "
        "part in time, Resource temporarily unavailable in time, late");
  }

  TEST_CASE("MSG_WAITALL waits for all, or the end") {
    intercepted(
        [] {
          test::socket_pair ends;
          std::string seen;
          const auto receive = [&](int flags) {
            char text[8] = {};
            const ssize_t n = recv(ends.here(), text, 6, flags);
            seen += std::to_string(n) + std::string(text, n > 0 ? static_cast<std::size_t>(n) : 0);
            seen += " ";
          };
          together(
              [&] {
                receive(MSG_WAITALL | MSG_PEEK);
                receive(MSG_WAITALL);
                receive(MSG_WAITALL);
                receive(MSG_WAITALL);
              },
              [&] {
                for (const char* part : {"ab", "cd", "ef", "gh"}) {
                  test::until_waited_for(ends.here(), detail::direction::read);
                  test::write_text(ends.there(), part);
                }
                shutdown(ends.there(), SHUT_WR);
              });
          return seen;
        },
        "6abcdef 6abcdef 2gh 0 ");
  }

  TEST_CASE("MSG_PEEK leaves what it shows") {
    intercepted(
        [] {
          const int listener = listening();
          std::string seen;
          together(
              [&] {
                const int fd = accept(listener, nullptr, nullptr);
                char text[8];
                for (const int flags : {int{MSG_PEEK}, int{MSG_PEEK}, 0})
                  seen += outcome_of(recv(fd, text, sizeof text, flags)) + " ";
                close(fd);
              },
              [&] {
                const int fd = socket(AF_INET, SOCK_STREAM, 0);
                const sockaddr_in to = loopback(listener);
                if (connect(fd, generic(to), sizeof to) != 0) seen += "connect";
                test::write_text(fd, "abc");
                seen += test::read_text(fd);
                close(fd);
              });
          close(listener);
          return seen;
        },
        "3 3 3 ");
  }

  TEST_CASE("messages in parts, with ancillary data") {
    intercepted(
        [] {
          test::socket_pair ends;
          test::pipe_pair sent;
          std::string seen, sending;
          const std::string first(300'000, 'a'), second(300'000, 'b');
          together(
              [&] {
                iovec parts[] = {{const_cast<char*>(first.data()), first.size()},
                                 {nullptr, 0},
                                 {const_cast<char*>(second.data()), second.size()}};
                const test::descriptor_message message(sent.in(), parts, 3);
                sending = outcome_of(sendmsg(ends.here(), message.get(), 0));
                if (parts[0].iov_len != first.size()) sending += " changed";
                shutdown(ends.here(), SHUT_WR);
              },
              [&] {
                std::string all;
                int got = -1;
                for (;;) {
                  char one[700], two[500];
                  iovec parts[] = {{one, sizeof one}, {two, sizeof two}};
                  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
                  msghdr message{};
                  message.msg_iov = parts;
                  message.msg_iovlen = 2;
                  message.msg_control = control;
                  message.msg_controllen = sizeof control;
                  const ssize_t n = recvmsg(ends.there(), &message, 0);
                  if (n <= 0) break;
                  all.append(one, std::min<std::size_t>(sizeof one, static_cast<std::size_t>(n)));
                  if (n > static_cast<ssize_t>(sizeof one))
                    all.append(two, static_cast<std::size_t>(n) - sizeof one);
                  if (const cmsghdr* const c = CMSG_FIRSTHDR(&message); c != nullptr)
                    std::memcpy(&got, CMSG_DATA(c), sizeof got);
                }
                seen += all == first + second ? "same " : "different ";
                test::write_text(got, "through");
                close(got);
              });
          return seen.append(sending).append(" ").append(test::read_text(sent.out()));
        },
        "same 600000 through");
  }

  TEST_CASE("recvmmsg and sendmmsg") {
    intercepted(
        [] {
          test::socket_pair ends(SOCK_DGRAM);
          std::string seen;
          const auto receive = [&](int flags, timespec* timeout) {
            char texts[3][8];
            iovec parts[3];
            mmsghdr messages[3] = {};
            for (int i = 0; i != 3; ++i) {
              parts[i] = {texts[i], sizeof texts[i]};
              messages[i].msg_hdr.msg_iov = &parts[i];
              messages[i].msg_hdr.msg_iovlen = 1;
            }
            const int n = recvmmsg(ends.here(), messages, 3, flags, timeout);
            seen += std::to_string(n) + ":";
            for (int i = 0; i < n; ++i) seen += std::string(texts[i], messages[i].msg_len) + ",";
            seen += " ";
          };
          timespec limit{0, 1'000'000};
          together(
              [&] {
                receive(0, nullptr);
                receive(MSG_WAITFORONE, nullptr);
                receive(0, &limit);
              },
              [&] {
                const auto send_two = [&] {
                  iovec parts[] = {{const_cast<char*>("one"), 3}, {const_cast<char*>("two"), 3}};
                  mmsghdr messages[2] = {};
                  for (int i = 0; i != 2; ++i) {
                    messages[i].msg_hdr.msg_iov = &parts[i];
                    messages[i].msg_hdr.msg_iovlen = 1;
                  }
                  if (sendmmsg(ends.there(), messages, 2, 0) != 2 || messages[1].msg_len != 3)
                    seen += "?";
                };
                send_two();
                test::until_waited_for(ends.here(), detail::direction::read);
                send(ends.there(), "three", 5, 0);
                while (seen.empty()) this_fiber::yield();
                test::until_waited_for(ends.here(), detail::direction::read);
                send(ends.there(), "four", 4, 0);
                this_fiber::sleep_for(std::chrono::milliseconds(5));  // its time is over
                send(ends.there(), "five", 4, 0);
              });
          return seen;
        },
        "3:one,two,three, 1:four, 1:five, ");
  }

  TEST_CASE("writing where nobody reads: EPIPE, and SIGPIPE unless it is not wanted") {
    static volatile std::sig_atomic_t signals;
    signals = 0;
    struct sigaction counting {};
    counting.sa_handler = [](int) { signals = signals + 1; };
    struct sigaction before;
    sigaction(SIGPIPE, &counting, &before);
    intercepted(
        [] {
          std::string seen;
          const auto check = [&](const char* name, auto call) {
            const auto already = signals;
            seen.append(name).append(": ").append(outcome_of(call()));
            seen.append(signals != already ? " signalled\n" : "\n");
          };
          test::socket_pair ends;
          close(ends.release_in());
          check("write", [&] { return write(ends.here(), "x", 1); });
          check("send", [&] { return send(ends.here(), "x", 1, 0); });
          check("quiet", [&] { return send(ends.here(), "x", 1, MSG_NOSIGNAL); });
          iovec part{const_cast<char*>("x"), 1};
          check("writev", [&] { return writev(ends.here(), &part, 1); });
          test::pipe_pair through;
          close(through.release_out());
          check("pipe", [&] { return write(through.in(), "x", 1); });
          return seen;
        },
        "write: Broken pipe signalled\nsend: Broken pipe signalled\nquiet: Broken pipe\n"
        "writev: Broken pipe signalled\npipe: Broken pipe signalled\n");
    sigaction(SIGPIPE, &before, nullptr);
  }
}
