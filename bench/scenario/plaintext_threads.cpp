// SPDX-License-Identifier: Apache-2.0
//
// One OS thread per connection and blocking calls: the programming model that fibers keep, at the
// price that they remove.

#include "bench/scenario/plaintext_servers.hpp"
#include "bench/support/plaintext.hpp"
#include "bench/support/socket.hpp"

#include <sys/socket.h>

#include <thread>

namespace bench {
namespace {

bool send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

void serve_connection(const unique_fd& fd) {
  plaintext::request_buffer in;
  plaintext::responder responder;
  for (;;) {
    const auto space = in.space();
    const ssize_t n = ::recv(fd.get(), space.data(), space.size(), 0);
    if (n <= 0) return;
    int requests = in.arrived(static_cast<std::size_t>(n));
    if (requests < 0) return;
    while (requests > 0)
      if (!send_all(fd.get(), responder.take(requests).bytes())) return;
  }
}

}  // namespace

void serve_threads(std::uint16_t port, const port_callback& ready) {
  const listening_socket listener = listen_on_loopback(port, 0);
  ready(listener.port);
  for (;;) {
    unique_fd fd(::accept4(listener.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) continue;
    set_no_delay(fd.get());
    std::thread([accepted = std::move(fd)] { serve_connection(accepted); }).detach();
  }
}

}  // namespace bench
