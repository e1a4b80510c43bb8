// SPDX-License-Identifier: Apache-2.0
//
// Handles, and reading and writing of stream sockets.
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>

#include <tendril/net.hpp>

#include "io/operation.hpp"

namespace tendril::net {

using detail::descriptor_use;
using detail::direction;
using detail::operation;

// ---- socket_base

bool socket_base::is_open() const noexcept { return static_cast<bool>(descriptor_use(ref_)); }

void socket_base::close() noexcept {
  if (ref_.valid()) detail::close_descriptor(ref_);
}

int socket_base::native_handle() const noexcept { return is_open() ? ref_.fd : -1; }

int socket_base::release() noexcept { return detail::release_descriptor(ref_); }

void socket_base::set_read_deadline(time_point deadline) noexcept {
  if (descriptor_use use(ref_); use) use->set_deadline(ref_.generation, direction::read, deadline);
}

void socket_base::set_write_deadline(time_point deadline) noexcept {
  if (descriptor_use use(ref_); use) use->set_deadline(ref_.generation, direction::write, deadline);
}

void socket_base::set_read_timeout(std::chrono::nanoseconds timeout) noexcept {
  if (descriptor_use use(ref_); use) use->set_timeout(ref_.generation, direction::read, timeout);
}

void socket_base::set_write_timeout(std::chrono::nanoseconds timeout) noexcept {
  if (descriptor_use use(ref_); use) use->set_timeout(ref_.generation, direction::write, timeout);
}

// ---- reading

void stream_socket::wait_readable(std::error_code& ec) {
  operation op(ref_, direction::read, "wait_readable", ec);
  if (!op.ok()) return;
  op.run([&]() -> detail::attempt {
    const long events = detail::sys_poll(op.fd(), POLLIN);
    return {events == 0 ? -EAGAIN : events};
  });
}

void stream_socket::wait_readable() {
  detail::or_throw("wait_readable", ref_, [&](std::error_code& ec) { wait_readable(ec); });
}

std::size_t stream_socket::read_some(mutable_buffer to, std::error_code& ec) {
  operation op(ref_, direction::read, "read_some", ec);
  if (!op.ok() || to.empty()) return 0;
  const long n = op.run([&] { return detail::sys_receive(op.fd(), to.data(), to.size()); });
  return n > 0 ? static_cast<std::size_t>(n) : 0;
}

std::size_t stream_socket::read_some(mutable_buffer to) {
  return detail::or_throw("read_some", ref_,
                          [&](std::error_code& ec) { return read_some(to, ec); });
}

std::size_t stream_socket::read_exactly(mutable_buffer to, std::error_code& ec) {
  operation op(ref_, direction::read, "read_exactly", ec);
  std::size_t done = 0;
  while (op.ok() && done < to.size()) {
    const auto rest = to.subspan(done);
    const long n = op.run([&] { return detail::sys_receive(op.fd(), rest.data(), rest.size()); });
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

std::size_t stream_socket::read_exactly(mutable_buffer to) {
  return detail::or_throw("read_exactly", ref_,
                          [&](std::error_code& ec) { return read_exactly(to, ec); });
}

// ---- writing

std::size_t stream_socket::write_some(const_buffer from, std::error_code& ec) {
  operation op(ref_, direction::write, "write_some", ec);
  if (!op.ok() || from.empty()) return 0;
  const long n = op.run([&] { return detail::sys_send(op.fd(), from.data(), from.size()); });
  return n > 0 ? static_cast<std::size_t>(n) : 0;
}

std::size_t stream_socket::write_some(const_buffer from) {
  return detail::or_throw("write_some", ref_,
                          [&](std::error_code& ec) { return write_some(from, ec); });
}

std::size_t stream_socket::write_all(const_buffer from, std::error_code& ec) {
  operation op(ref_, direction::write, "write_all", ec);
  std::size_t done = 0;
  while (op.ok() && done < from.size()) {
    const auto rest = from.subspan(done);
    const long n = op.run([&] { return detail::sys_send(op.fd(), rest.data(), rest.size()); });
    if (n < 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

std::size_t stream_socket::write_all(const_buffer from) {
  return detail::or_throw("write_all", ref_,
                          [&](std::error_code& ec) { return write_all(from, ec); });
}

std::size_t stream_socket::write_all(std::span<const const_buffer> from, std::error_code& ec) {
  operation op(ref_, direction::write, "write_all", ec);
  std::size_t total = 0;
  std::size_t part = 0;      // the first buffer with something left,
  std::size_t consumed = 0;  // and how much of it is gone
  while (op.ok()) {
    std::array<iovec, 32> parts;
    std::size_t count = 0;
    for (std::size_t i = part; i < from.size() && count < parts.size(); ++i) {
      const auto rest = i == part ? from[i].subspan(consumed) : from[i];
      if (!rest.empty()) parts[count++] = {const_cast<std::byte*>(rest.data()), rest.size()};
    }
    if (count == 0) break;
    const long n = op.run([&] { return detail::sys_send_vector(op.fd(), parts.data(), count); });
    if (n < 0) break;
    total += static_cast<std::size_t>(n);
    consumed += static_cast<std::size_t>(n);
    while (part < from.size() && consumed >= from[part].size()) consumed -= from[part++].size();
  }
  return total;
}

std::size_t stream_socket::write_all(std::span<const const_buffer> from) {
  return detail::or_throw("write_all", ref_,
                          [&](std::error_code& ec) { return write_all(from, ec); });
}

// ---- shutdown

[[gnu::noinline]] void stream_socket::shutdown(shutdown_mode mode, std::error_code& ec) noexcept {
  descriptor_use use(ref_);
  if (!use) {
    ec = std::make_error_code(std::errc::bad_file_descriptor);
    return;
  }
  const int how = mode == shutdown_mode::receive ? SHUT_RD
                  : mode == shutdown_mode::send  ? SHUT_WR
                                                 : SHUT_RDWR;
  ec.clear();
  if (::shutdown(use->fd(), how) != 0) ec = {errno, std::system_category()};
  // Ending our own sending causes no event for who is parked in it; the other direction does on some
  // systems only. Both are given the token, to find out.
  if (how != SHUT_RD) use->give_token(direction::write);
  if (how != SHUT_WR) use->give_token(direction::read);
}

void stream_socket::shutdown(shutdown_mode mode) {
  detail::or_throw("shutdown", ref_, [&](std::error_code& ec) { shutdown(mode, ec); });
}

}  // namespace tendril::net
