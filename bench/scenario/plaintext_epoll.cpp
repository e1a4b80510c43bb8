// SPDX-License-Identifier: Apache-2.0
//
// No library at all: one thread, level-triggered epoll, one read and one write per event. Two system
// calls a request and a share of one epoll_wait is the least this machine can be asked for without
// io_uring, so this row bounds what any runtime on readiness can reach.

#include "bench/scenario/plaintext_servers.hpp"
#include "bench/support/plaintext.hpp"
#include "bench/support/socket.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <memory>
#include <string>
#include <system_error>

namespace bench {
namespace {

struct connection {
  unique_fd fd;
  std::string unsent;
  plaintext::request_buffer in;
};

class epoll_server {
 public:
  explicit epoll_server(int listener)
      : listener_(listener), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    watch(EPOLL_CTL_ADD, listener, EPOLLIN, nullptr);
  }

  [[noreturn]] void run() {
    std::array<epoll_event, 512> events;
    for (;;) {
      const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), -1);
      for (int i = 0; i < n; ++i) {
        const epoll_event& event = events[static_cast<std::size_t>(i)];
        if (event.data.ptr == nullptr) {
          accept_all();
          continue;
        }
        const auto c = static_cast<connection*>(event.data.ptr);
        if (!(c->unsent.empty() ? on_readable(*c) : on_writable(*c))) delete c;
      }
    }
  }

 private:
  void watch(int operation, int fd, std::uint32_t interest, connection* c) {
    epoll_event event{};
    event.events = interest;
    event.data.ptr = c;
    if (::epoll_ctl(epoll_.get(), operation, fd, &event) != 0)
      throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }

  void accept_all() {
    for (;;) {
      unique_fd fd(::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!fd) return;
      set_no_delay(fd.get());
      auto c = std::make_unique<connection>();
      c->fd = std::move(fd);
      watch(EPOLL_CTL_ADD, c->fd.get(), EPOLLIN, c.get());
      c.release();  // run() deletes it
    }
  }

  /// False: the connection is over.
  bool on_readable(connection& c) {
    const auto space = c.in.space();
    const ssize_t n = ::recv(c.fd.get(), space.data(), space.size(), 0);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    int requests = c.in.arrived(static_cast<std::size_t>(n));
    if (requests < 0) return false;
    while (requests > 0) {
      const plaintext::responder::batch batch = responder_.take(requests);
      std::string_view bytes = batch.bytes();
      if (c.unsent.empty()) {
        const ssize_t sent = ::send(c.fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (sent > 0) bytes.remove_prefix(static_cast<std::size_t>(sent));
      }
      c.unsent += bytes;
    }
    if (!c.unsent.empty()) watch(EPOLL_CTL_MOD, c.fd.get(), EPOLLOUT, &c);
    return true;
  }

  bool on_writable(connection& c) {
    const ssize_t sent = ::send(c.fd.get(), c.unsent.data(), c.unsent.size(), MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    c.unsent.erase(0, static_cast<std::size_t>(sent));
    if (c.unsent.empty()) watch(EPOLL_CTL_MOD, c.fd.get(), EPOLLIN, &c);
    return true;
  }

  int listener_;
  unique_fd epoll_;
  plaintext::responder responder_;
};

}  // namespace

void serve_epoll(std::uint16_t port, const port_callback& ready) {
  const listening_socket listener = listen_on_loopback(port, SOCK_NONBLOCK);
  const auto server = std::make_unique<epoll_server>(listener.fd.get());
  ready(listener.port);
  server->run();
}

}  // namespace bench
