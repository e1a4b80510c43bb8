// SPDX-License-Identifier: Apache-2.0
//
// Waiting for descriptors that are not ours. They are watched through a duplicate that lives as long as
// the wait: its number is ours, so that whatever happens to the original meanwhile (closed, reused,
// handed to another library) cannot mislead the table or the poller. Flags are per open file, and left
// alone.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>

#include <tendril/fiber.hpp>
#include <tendril/io.hpp>

#include "io/operation.hpp"

namespace tendril {
namespace {

using detail::direction;

constexpr short events_of(direction d) noexcept { return d == direction::read ? POLLIN : POLLOUT; }

[[gnu::noinline]] long duplicate(int fd) noexcept {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  return copy >= 0 ? copy : -errno;
}

[[gnu::noinline]] long poll_until(int fd, short events, detail::time_point deadline) noexcept {
  for (;;) {
    pollfd one{fd, events, 0};
    timespec left{};
    if (deadline != detail::no_deadline) {
      const auto ns = std::chrono::nanoseconds(
          std::max(deadline - detail::clock::now(), detail::clock::duration(0)));
      left.tv_sec = static_cast<time_t>(ns.count() / 1'000'000'000);
      left.tv_nsec = static_cast<long>(ns.count() % 1'000'000'000);
    }
    const int n = ::ppoll(&one, 1, deadline == detail::no_deadline ? nullptr : &left, nullptr);
    if (n > 0) return (one.revents & POLLNVAL) != 0 ? -EBADF : 0;
    if (n == 0) return -ETIMEDOUT;
    if (errno != EINTR) return -errno;
  }
}

void set_error(std::error_code& ec, long negated) noexcept {
  ec = {static_cast<int>(-negated), std::system_category()};
}

void wait_ready(int fd, direction d, detail::time_point deadline, const char* reason,
                std::error_code& ec) {
  ec.clear();
  if (const long now = detail::sys_poll(fd, events_of(d)); now != 0) {
    if (now < 0) set_error(ec, now);
    return;
  }
  if (!detail::can_park()) {
    detail::about_to_block(reason);
    if (const long result = poll_until(fd, events_of(d), deadline); result < 0)
      set_error(ec, result);
    return;
  }
  const long copy = duplicate(fd);
  if (copy < 0) return set_error(ec, copy);
  detail::descriptor_ref ref;
  try {
    ref = detail::adopt_descriptor(static_cast<int>(copy), detail::descriptor_kind::other);
  } catch (...) {
    ::close(static_cast<int>(copy));
    throw;
  }
  {
    detail::operation op(ref, d, reason, ec);
    if (op.ok()) {  // unless somebody closes numbers that are not theirs
      op.entry().set_deadline(ref.generation, d, deadline);
      op.run([&]() -> detail::attempt {
        const long events = detail::sys_poll(op.fd(), events_of(d));
        return {events == 0 ? -EAGAIN : events};
      });
    }
  }
  detail::close_descriptor(ref);
  // What cannot be watched is always ready.
  if (ec == std::error_code(EPERM, std::system_category())) ec.clear();
}

[[noreturn]] void throw_on_fd(std::error_code ec, const char* what, int fd) {
  throw std::system_error(ec, std::string(what) + " on descriptor " + std::to_string(fd));
}

bool is_blocking(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_NONBLOCK) == 0;
}

}  // namespace

void wait_readable(int fd, detail::time_point deadline, std::error_code& ec) {
  wait_ready(fd, direction::read, deadline, "wait_readable", ec);
}
void wait_writable(int fd, detail::time_point deadline, std::error_code& ec) {
  wait_ready(fd, direction::write, deadline, "wait_writable", ec);
}
void wait_readable(int fd) {
  std::error_code ec;
  wait_readable(fd, detail::no_deadline, ec);
  if (ec) throw_on_fd(ec, "wait_readable", fd);
}
void wait_writable(int fd) {
  std::error_code ec;
  wait_writable(fd, detail::no_deadline, ec);
  if (ec) throw_on_fd(ec, "wait_writable", fd);
}

std::size_t read_some(int fd, mutable_buffer to, std::error_code& ec) {
  ec.clear();
  if (to.empty()) return 0;
  for (;;) {
    wait_readable(fd, detail::no_deadline, ec);
    if (ec) return 0;
    const long n = detail::sys_read(fd, to.data(), to.size());
    if (n >= 0) return static_cast<std::size_t>(n);
    if (n == -EAGAIN) continue;  // another was quicker
    set_error(ec, n);
    return 0;
  }
}
std::size_t read_some(int fd, mutable_buffer to) {
  std::error_code ec;
  const std::size_t n = read_some(fd, to, ec);
  if (ec) throw_on_fd(ec, "read_some", fd);
  return n;
}

std::size_t write_some(int fd, const_buffer from, std::error_code& ec) {
  ec.clear();
  if (from.empty()) return 0;
  if (is_blocking(fd)) from = from.first(std::min<std::size_t>(from.size(), PIPE_BUF));
  for (;;) {
    wait_writable(fd, detail::no_deadline, ec);
    if (ec) return 0;
    const long n = detail::sys_write(fd, from.data(), from.size());
    if (n >= 0) return static_cast<std::size_t>(n);
    if (n == -EAGAIN) continue;
    set_error(ec, n);
    return 0;
  }
}
std::size_t write_some(int fd, const_buffer from) {
  std::error_code ec;
  const std::size_t n = write_some(fd, from, ec);
  if (ec) throw_on_fd(ec, "write_some", fd);
  return n;
}

}  // namespace tendril
