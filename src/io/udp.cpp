// SPDX-License-Identifier: Apache-2.0
//
// Datagrams: one system call is one datagram, and a short one says nothing about the next.
#include <sys/socket.h>

#include <cerrno>

#include <tendril/net.hpp>

#include "io/address.hpp"
#include "io/operation.hpp"

namespace tendril::net {

using detail::direction;
using detail::operation;
using detail::socket_address;

udp_socket::udp_socket(const endpoint& local) {
  const socket_address address(local);
  std::error_code ec;
  ref_ = detail::open_socket(address.family(), SOCK_DGRAM, detail::descriptor_kind::other, ec);
  if (!ec && ::bind(ref_.fd, address.get(), address.length) != 0)
    ec = {errno, std::system_category()};
  if (ec) {
    close();
    throw std::system_error(ec, "udp bind to " + local.to_string());
  }
}

void udp_socket::connect(const endpoint& peer) {
  const socket_address address(peer);
  std::error_code ec;
  {
    operation op(ref_, direction::write, "connect", ec);
    if (op.ok())
      op.run([&] {
        return detail::attempt{detail::sys_connect(op.fd(), address.get(), address.length)};
      });
  }
  if (ec) throw std::system_error(ec, "udp connect to " + peer.to_string());
}

std::size_t udp_socket::send_to(const_buffer datagram, const endpoint& peer, std::error_code& ec) {
  const socket_address address(peer);
  operation op(ref_, direction::write, "send_to", ec);
  if (!op.ok()) return 0;
  const long n = op.run([&] {
    return detail::sys_send_to(op.fd(), datagram.data(), datagram.size(), address.get(),
                               address.length);
  });
  return n > 0 ? static_cast<std::size_t>(n) : 0;
}
std::size_t udp_socket::send_to(const_buffer datagram, const endpoint& peer) {
  std::error_code ec;
  const std::size_t n = send_to(datagram, peer, ec);
  if (ec) throw std::system_error(ec, "send_to " + peer.to_string());
  return n;
}

std::size_t udp_socket::send(const_buffer datagram, std::error_code& ec) {
  operation op(ref_, direction::write, "send", ec);
  if (!op.ok()) return 0;
  const long n =
      op.run([&] { return detail::sys_send(op.fd(), datagram.data(), datagram.size()); });
  return n > 0 ? static_cast<std::size_t>(n) : 0;
}
std::size_t udp_socket::send(const_buffer datagram) {
  return detail::or_throw("send", ref_, [&](std::error_code& ec) { return send(datagram, ec); });
}

std::size_t udp_socket::receive_from(mutable_buffer datagram, endpoint& peer, std::error_code& ec) {
  socket_address from;
  operation op(ref_, direction::read, "receive_from", ec);
  if (!op.ok()) return 0;
  const long n = op.run([&] {
    from.length = sizeof from.storage;
    return detail::sys_receive_from(op.fd(), datagram.data(), datagram.size(), from.get(),
                                    &from.length);
  });
  if (n < 0) return 0;
  peer = detail::to_endpoint(from.get());
  return static_cast<std::size_t>(n);
}
std::size_t udp_socket::receive_from(mutable_buffer datagram, endpoint& peer) {
  return detail::or_throw("receive_from", ref_,
                          [&](std::error_code& ec) { return receive_from(datagram, peer, ec); });
}

std::size_t udp_socket::receive(mutable_buffer datagram, std::error_code& ec) {
  operation op(ref_, direction::read, "receive", ec);
  if (!op.ok()) return 0;
  const long n =
      op.run([&] { return detail::sys_receive(op.fd(), datagram.data(), datagram.size()); });
  return n > 0 ? static_cast<std::size_t>(n) : 0;
}
std::size_t udp_socket::receive(mutable_buffer datagram) {
  return detail::or_throw("receive", ref_,
                          [&](std::error_code& ec) { return receive(datagram, ec); });
}

endpoint udp_socket::local_endpoint() const {
  return detail::or_throw("local_endpoint", ref_, [&](std::error_code& ec) {
    return detail::endpoint_of(ref_, detail::socket_end::local, ec);
  });
}

}  // namespace tendril::net
