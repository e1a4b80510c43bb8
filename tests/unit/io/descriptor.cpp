// SPDX-License-Identifier: Apache-2.0
#include "io/descriptor.hpp"

#include <doctest/doctest.h>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

using namespace tendril::detail;

namespace {

bool is_open_number(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

bool can_enter(descriptor_ref ref) { return static_cast<bool>(descriptor_use(ref)); }

struct pair_of_sockets {
  int fds[2];
  pair_of_sockets() { REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0); }
};

}  // namespace

TEST_SUITE("descriptor") {
  TEST_CASE("closing closes the number when nobody uses it") {
    pair_of_sockets s;
    const descriptor_ref ref = adopt_descriptor(s.fds[0], descriptor_kind::stream);
    CHECK(ref.fd == s.fds[0]);
    CHECK_FALSE(close_descriptor(ref));
    CHECK_FALSE(is_open_number(s.fds[0]));
    ::close(s.fds[1]);
  }

  TEST_CASE("a number stays open until the last user leaves") {
    pair_of_sockets s;
    const descriptor_ref ref = adopt_descriptor(s.fds[0], descriptor_kind::stream);
    {
      descriptor_use first(ref);
      descriptor_use second(ref);
      CHECK_FALSE(close_descriptor(ref));
      CHECK(is_open_number(ref.fd));
      first.leave();
      CHECK(is_open_number(ref.fd));
    }
    CHECK_FALSE(is_open_number(ref.fd));
    ::close(s.fds[1]);
  }

  TEST_CASE("nobody enters after close, and closing twice reports it") {
    pair_of_sockets s;
    const descriptor_ref ref = adopt_descriptor(s.fds[0], descriptor_kind::stream);
    descriptor_use inside(ref);
    CHECK_FALSE(close_descriptor(ref));
    CHECK_FALSE(can_enter(ref));
    CHECK(close_descriptor(ref) == std::errc::bad_file_descriptor);
    inside.leave();
    ::close(s.fds[1]);
  }

  TEST_CASE("a reused number is another generation: old handles do not reach it") {
    pair_of_sockets s;
    const descriptor_ref old = adopt_descriptor(s.fds[0], descriptor_kind::stream);
    close_descriptor(old);
    REQUIRE(::dup2(s.fds[1], old.fd) == old.fd);
    const descriptor_ref fresh = adopt_descriptor(old.fd, descriptor_kind::stream);
    CHECK(fresh.generation != old.generation);
    CHECK_FALSE(can_enter(old));
    CHECK(close_descriptor(old) == std::errc::bad_file_descriptor);
    CHECK(is_open_number(fresh.fd));
    CHECK(can_enter(fresh));
    close_descriptor(fresh);
    ::close(s.fds[1]);
  }

  TEST_CASE("an event of an old generation leaves no token") {
    pair_of_sockets s;
    const descriptor_ref old = adopt_descriptor(s.fds[0], descriptor_kind::stream);
    close_descriptor(old);
    REQUIRE(::dup2(s.fds[1], old.fd) == old.fd);
    const descriptor_ref fresh = adopt_descriptor(old.fd, descriptor_kind::stream);
    descriptor& d = *find_descriptor(fresh.fd);
    CHECK(d.take_token(direction::read));
    d.deliver(old.generation, true, true, true);
    CHECK_FALSE(d.take_token(direction::read));
    CHECK(d.may_have_drained());  // nor does its hangup count
    d.deliver(fresh.generation, true, false, false);
    CHECK(d.take_token(direction::read));
    close_descriptor(fresh);
    ::close(s.fds[1]);
  }

  TEST_CASE("one token a direction; an event brings it back") {
    pair_of_sockets s;
    const descriptor_ref ref = adopt_descriptor(s.fds[0], descriptor_kind::stream);
    descriptor& d = *find_descriptor(ref.fd);
    CHECK(d.take_token(direction::read));
    CHECK_FALSE(d.take_token(direction::read));
    CHECK(d.take_token(direction::write));
    d.deliver(ref.generation, true, false, false);
    CHECK(d.take_token(direction::read));
    CHECK_FALSE(d.take_token(direction::write));
    close_descriptor(ref);
    ::close(s.fds[1]);
  }

  TEST_CASE("after a hangup no read counts as having drained the stream") {
    pair_of_sockets s;
    const descriptor_ref ref = adopt_descriptor(s.fds[0], descriptor_kind::stream);
    descriptor& d = *find_descriptor(ref.fd);
    CHECK(d.may_have_drained());
    d.deliver(ref.generation, true, false, true);
    CHECK_FALSE(d.may_have_drained());
    close_descriptor(ref);
    ::close(s.fds[1]);
  }

  TEST_CASE("datagrams and listeners are never drained by a short call") {
    pair_of_sockets s;
    const descriptor_ref ref = adopt_descriptor(s.fds[0], descriptor_kind::other);
    CHECK_FALSE(find_descriptor(ref.fd)->may_have_drained());
    close_descriptor(ref);
    ::close(s.fds[1]);
  }

  TEST_CASE("release gives the open number away") {
    pair_of_sockets s;
    const descriptor_ref ref = adopt_descriptor(s.fds[0], descriptor_kind::stream);
    CHECK(release_descriptor(ref) == s.fds[0]);
    CHECK(is_open_number(s.fds[0]));
    CHECK_FALSE(can_enter(ref));
    CHECK(release_descriptor(ref) == -1);
    ::close(s.fds[0]);
    ::close(s.fds[1]);
  }

  TEST_CASE("a number closed behind the table's back and adopted again starts anew") {
    pair_of_sockets s;
    const descriptor_ref old = adopt_descriptor(s.fds[0], descriptor_kind::stream);
    descriptor_use user(old);
    REQUIRE(::dup2(s.fds[1], old.fd) == old.fd);
    const descriptor_ref fresh = adopt_descriptor(old.fd, descriptor_kind::stream);
    user.leave();  // of the old generation: closes nothing
    CHECK(is_open_number(fresh.fd));
    CHECK_FALSE(close_descriptor(fresh));
    CHECK_FALSE(is_open_number(fresh.fd));
    ::close(s.fds[1]);
  }

  TEST_CASE("enter and close race: the number is closed exactly once, after everybody") {
    for (int round = 0; round < 200; ++round) {
      pair_of_sockets s;
      const descriptor_ref ref = adopt_descriptor(s.fds[0], descriptor_kind::stream);
      int violations = 0;
      std::thread user([&] {
        for (;;) {
          descriptor_use use(ref);
          if (!use) return;
          if (!is_open_number(ref.fd)) ++violations;
        }
      });
      close_descriptor(ref);
      user.join();
      CHECK(violations == 0);
      CHECK_FALSE(is_open_number(ref.fd));
      ::close(s.fds[1]);
    }
  }
}
