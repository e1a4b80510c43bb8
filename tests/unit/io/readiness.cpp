// SPDX-License-Identifier: Apache-2.0
#include "platform/readiness.hpp"

#include <doctest/doctest.h>

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <thread>

using namespace tendril::platform;
using namespace std::chrono_literals;

namespace {

struct ends {
  int fd[2];
  ends() { REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0); }
  ~ends() {
    ::close(fd[0]);
    ::close(fd[1]);
  }
};

}  // namespace

TEST_SUITE("readiness_set") {
  TEST_CASE("what is ready at add() is reported once, and not for staying so") {
    readiness_set set;
    ends s;
    std::array<readiness_event, 4> events;
    bool woken = true;
    REQUIRE(::write(s.fd[1], "x", 1) == 1);
    REQUIRE(set.add(s.fd[0], 42) == 0);
    REQUIRE(set.wait(events, 0ns, woken) == 1);
    CHECK(events[0].tag == 42);
    CHECK(events[0].readable);
    CHECK(events[0].writable);
    CHECK_FALSE(events[0].hangup);
    CHECK_FALSE(woken);
    CHECK(set.wait(events, 0ns, woken) == 0);
    REQUIRE(::write(s.fd[1], "y", 1) == 1);
    CHECK(set.wait(events, 0ns, woken) == 1);  // more has come
  }

  TEST_CASE("add() a second time changes the tag and reports again") {
    readiness_set set;
    ends s;
    std::array<readiness_event, 4> events;
    bool woken;
    REQUIRE(set.add(s.fd[0], 1) == 0);
    set.wait(events, 0ns, woken);
    REQUIRE(set.add(s.fd[0], 2) == 0);
    REQUIRE(set.wait(events, 0ns, woken) == 1);
    CHECK(events[0].tag == 2);
  }

  TEST_CASE("a hangup is told") {
    readiness_set set;
    ends s;
    std::array<readiness_event, 4> events;
    bool woken;
    REQUIRE(set.add(s.fd[0], 1) == 0);
    set.wait(events, 0ns, woken);
    ::shutdown(s.fd[1], SHUT_WR);
    REQUIRE(set.wait(events, 0ns, woken) == 1);
    CHECK(events[0].hangup);
  }

  TEST_CASE("removed is silent; level-triggered repeats") {
    readiness_set set;
    ends s;
    std::array<readiness_event, 4> events;
    bool woken;
    REQUIRE(set.add_level(s.fd[0], 1) == 0);
    REQUIRE(::write(s.fd[1], "x", 1) == 1);
    CHECK(set.wait(events, 0ns, woken) == 1);
    CHECK(set.wait(events, 0ns, woken) == 1);
    CHECK(set.remove(s.fd[0]) == 0);
    CHECK(set.wait(events, 0ns, woken) == 0);
  }

  TEST_CASE("wake() ends the next wait, once, and one that blocks") {
    readiness_set set;
    std::array<readiness_event, 4> events;
    bool woken = false;
    set.wake();
    CHECK(set.wait(events, -1ns, woken) == 0);
    CHECK(woken);
    CHECK(set.wait(events, 0ns, woken) == 0);
    CHECK_FALSE(woken);
    std::thread other([&] { set.wake(); });
    CHECK(set.wait(events, -1ns, woken) == 0);
    CHECK(woken);
    other.join();
  }

  TEST_CASE("a timeout below a millisecond is waited for, not rounded down") {
    readiness_set set;
    std::array<readiness_event, 4> events;
    bool woken;
    const auto begun = std::chrono::steady_clock::now();
    CHECK(set.wait(events, 300us, woken) == 0);
    CHECK(std::chrono::steady_clock::now() - begun >= 300us);
  }

  TEST_CASE("regular files cannot be watched") {
    readiness_set set;
    std::FILE* file = std::tmpfile();
    REQUIRE(file != nullptr);
    CHECK(set.add(::fileno(file), 1) == EPERM);
    std::fclose(file);
  }
}
