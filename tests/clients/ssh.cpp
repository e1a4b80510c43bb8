// SPDX-License-Identifier: Apache-2.0
//
// libssh2 against OpenSSH's server, as it comes.
#include <arpa/inet.h>
#include <libssh2.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "clients/crowd.hpp"
#include "clients/servers.hpp"

using namespace tendril::test;

namespace {

struct global {
  global() { libssh2_init(0); }
  ~global() { libssh2_exit(); }
};

class session {
 public:
  explicit session(const std::string& user) {
    static const global once;
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(server_port("SSHD")));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    require(::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0, "connect");
    session_ = libssh2_session_init();
    check(libssh2_session_handshake(session_, fd_), "handshake");
    const std::string directory = server_setting("SSHD_DIR");
    check(libssh2_userauth_publickey_fromfile(session_, user.c_str(),
                                              (directory + "/client_key.pub").c_str(),
                                              (directory + "/client_key").c_str(), ""),
          "authentication");
  }
  ~session() {
    libssh2_session_disconnect(session_, "done");
    libssh2_session_free(session_);
    ::close(fd_);
  }
  session(const session&) = delete;
  session& operator=(const session&) = delete;

  /// What a command prints.
  std::string execute(const std::string& command) {
    LIBSSH2_CHANNEL* const channel = libssh2_channel_open_session(session_);
    require(channel != nullptr, "a channel");
    check(libssh2_channel_exec(channel, command.c_str()), "exec");
    std::string all;
    char part[4096];
    for (ssize_t n = 0; (n = libssh2_channel_read(channel, part, sizeof part)) > 0;)
      all.append(part, static_cast<std::size_t>(n));
    libssh2_channel_close(channel);
    libssh2_channel_free(channel);
    return all;
  }

 private:
  void check(int code, const char* what) {
    if (code == 0) return;
    char* text = nullptr;
    libssh2_session_last_error(session_, &text, nullptr, 0);
    throw std::runtime_error(std::string(what) + ": " + text);
  }
  int fd_ = -1;
  LIBSSH2_SESSION* session_ = nullptr;
};

}  // namespace

TEST_SUITE_BEGIN("libssh2");

TEST_CASE("commands on another host") {
  const passwd* const me = ::getpwuid(::geteuid());
  REQUIRE(me != nullptr);
  const std::string user = me->pw_name;
  each_crowd([&](crowd& c) {
    c.run(20, [&](int i) {
      session s(user);
      const std::string mine = std::to_string(i);
      require(s.execute("echo " + mine) == mine + "\n", "echo");
      require(s.execute("sleep 0.2; head -c 200000 /dev/zero").size() == 200'000,
              "a longer output");
    });
  });
}

TEST_SUITE_END();
