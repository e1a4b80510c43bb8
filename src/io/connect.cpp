// SPDX-License-Identifier: Apache-2.0
//
// Waiting for connections, from both sides.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "io/address.hpp"
#include "io/operation.hpp"

namespace tendril::detail {

using namespace std::chrono_literals;

time_point deadline_of(const net::connect_options& options) {
  return std::min(options.deadline, deadline_after(options.timeout));
}

namespace {

/// Parks or blocks until then, if the operation's deadline lets it.
void hold_off(operation& op, direction d, time_point until, const char* reason,
              std::error_code& ec) {
  const time_point deadline = op.deadline();
  const time_point end = std::min(until, deadline);
  ec = op.on_fiber() ? op.entry().pause(op.generation(), d, {.deadline = end, .reason = reason})
                     : op.entry().block_until(op.generation(), end);
  if (!ec && deadline <= until) ec = std::make_error_code(std::errc::timed_out);
}

}  // namespace

void connect_socket(descriptor_ref ref, const sockaddr* peer, socklen_t length, time_point deadline,
                    std::error_code& ec) {
  if (descriptor_use use(ref); use) use->set_deadline(ref.generation, direction::write, deadline);
  operation op(ref, direction::write, "connect", ec);
  auto backoff = 1ms;
  while (op.ok()) {
    bool begun = false;
    const long result = op.run([&]() -> attempt {
      if (begun) return {sys_connected(op.fd())};
      begun = true;
      const long r = sys_connect(op.fd(), peer, length);
      if (r == -EAGAIN) return {-EBUSY};  // below
      return {r == -EINPROGRESS ? -EAGAIN : r};
    });
    // A Unix socket whose listener's queue is full says EAGAIN, and no event will tell when it no longer
    // is. (TCP's meaning, no free local port, is worth a wait, too.)
    if (result >= 0 || ec != std::error_code(EBUSY, std::system_category())) break;
    hold_off(op, direction::write, clock::now() + backoff, "connect (queue full)", ec);
    backoff = std::min(backoff * 2, 50ms);
  }
  if (descriptor_use use(ref); use)
    use->set_deadline(ref.generation, direction::write, no_deadline);
}

int accept_descriptor(descriptor_ref ref, socket_address* peer,
                      const std::function<void(std::error_code)>& exhausted, std::error_code& ec) {
  operation op(ref, direction::read, "accept", ec);
  auto backoff = 5ms;
  bool reported = false;
  while (op.ok()) {
    const long fd = op.run([&]() -> attempt {
      if (peer != nullptr) peer->length = sizeof peer->storage;
      const attempt a = peer != nullptr ? sys_accept(op.fd(), peer->get(), &peer->length)
                                        : sys_accept(op.fd(), nullptr, nullptr);
      // Linux looks for a free descriptor before it looks for a connection: without one, no trouble.
      if ((a.value == -EMFILE || a.value == -ENFILE) && sys_poll(op.fd(), POLLIN) == 0)
        return {-EAGAIN};
      return a;
    });
    if (fd >= 0) return static_cast<int>(fd);
    if (ec.category() != std::system_category()) break;
    switch (ec.value()) {
      // The connection died before it was accepted; some systems tell its error here.
      case ECONNABORTED:
      case EPROTO:
      case ENETDOWN:
      case ENOPROTOOPT:
      case EHOSTDOWN:
      case EHOSTUNREACH:
      case ENETUNREACH:
        ec.clear();
        continue;
      case EMFILE:
      case ENFILE:
      case ENOBUFS:
      case ENOMEM:
        if (!reported) exhausted(ec);
        reported = true;
        hold_off(op, direction::read, clock::now() + backoff, "accept (out of resources)", ec);
        backoff = std::min(backoff * 2, std::chrono::milliseconds(1000));
        continue;
      default:
        return -1;
    }
  }
  return -1;
}

}  // namespace tendril::detail
