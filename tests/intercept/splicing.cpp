// SPDX-License-Identifier: Apache-2.0
//
// Moving bytes within the kernel: waiting for the two ends.
#include "intercept/waiting.hpp"

#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

using namespace tendril;
using test::both;
using test::elsewhere;
using test::intercepted;
using test::nameless;
using test::said;

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
            seen.append(" ").append(test::read_text(through.out()));
          });
          seen.append("; ").append(both(
              [&] {
                return said(
                    splice(through.out(), nullptr, ends.here(), nullptr, 64, SPLICE_F_MORE));
              },
              [&] { test::write_text(through.in(), "from pipe"); }));
          return seen + " " + test::read_text(ends.there());
        },
        "11 from socket, elsewhere 0; 9 from pipe");
  }

  TEST_CASE("memory into a pipe that is full, and out of one that is empty") {
    intercepted(
        [] {
          test::pipe_pair full;
          fcntl(full.in(), F_SETPIPE_SZ, 4096);
          const std::string before(4096, 'f');
          test::write_text(full.in(), before);
          char text[] = "memory";
          char room[8] = {};
          std::string seen = both(
              [&] {
                const iovec part{text, 6};
                return said(vmsplice(full.in(), &part, 1, 0));
              },
              [&] { test::read_text(full.out(), before.size()); });
          seen.append(" ").append(test::read_text(full.out()));
          seen.append(" ").append(both(
              [&] {
                const iovec part{room, sizeof room};
                return said(vmsplice(full.out(), &part, 1, 0));
              },
              [&] { test::write_text(full.in(), "back"); }));
          return seen + " " + room;
        },
        "6 memory 4 back");
  }

  TEST_CASE("a copy of what is in a pipe") {
    intercepted(
        [] {
          test::pipe_pair from;
          test::pipe_pair to;
          std::string seen = both([&] { return said(tee(from.out(), to.in(), 64, 0)); },
                                  [&] { test::write_text(from.in(), "twice"); });
          seen.append(" ")
              .append(test::read_text(from.out()))
              .append(" ")
              .append(test::read_text(to.out()));
          seen.append(" ").append(said(tee(from.out(), to.in(), 64, SPLICE_F_NONBLOCK)));
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
            seen.append(" ")
                .append(said(lseek(fd, 0, SEEK_CUR)))
                .append(" ")
                .append(said(sendfile(out, fd, nullptr, 100)));
            seen += "\n";
          }
          close(fd);
          return seen;
        },
        "999000 to 999010 same, elsewhere 0, 10 1000000 0\n"
        "999000 to 999010 same, elsewhere 0, 10 1000000 0\n");
  }
}
