// SPDX-License-Identifier: Apache-2.0
//
// Reading and writing, by whichever name.
//
// How a call is made that does not block: on sockets by MSG_DONTWAIT; elsewhere by RWF_NOWAIT at offset -1, the
// file's own position; where the file has no such thing, by asking poll(2) first.
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>

#include "intercept/calls.hpp"
#include "intercept/file_facts.hpp"
#include "intercept/install.hpp"
#include "intercept/parts.hpp"
#include "intercept/transfer.hpp"
#include "io/operation.hpp"
#include "platform/socket_calls.hpp"

// See errno in operation.hpp.
#define TENDRIL_OUT_OF_LINE [[gnu::noinline]]

namespace tendril::detail {
namespace {

// ---- one system call each

TENDRIL_OUT_OF_LINE bool is_pipe(int fd) noexcept {
  struct stat about;
  return ::fstat(fd, &about) == 0 && S_ISFIFO(about.st_mode);
}

TENDRIL_OUT_OF_LINE bool is_ready(int fd, short events) noexcept {
  pollfd one{fd, events, 0};
  return real().poll(&one, 1, 0) != 0;
}

TENDRIL_OUT_OF_LINE long receive_parts(int fd, const iovec* parts, int count) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts);
  message.msg_iovlen = static_cast<std::size_t>(count);
  const ssize_t n = real().recvmsg(fd, &message, MSG_DONTWAIT);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE long send_parts(int fd, const iovec* parts, int count) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts);
  message.msg_iovlen = static_cast<std::size_t>(count);
  const ssize_t n = real().sendmsg(fd, &message, MSG_DONTWAIT);
  return n >= 0 ? n : -errno;
}

/// `flags`: of preadv2(2).
TENDRIL_OUT_OF_LINE long read_now(const file_use& use, int fd, const iovec* parts, int count,
                                  int flags) noexcept {
  if (use.what == file_class::nowait || use.what == file_class::socket) {
    const ssize_t n = real().preadv2(fd, parts, count, -1, flags | RWF_NOWAIT);
    if (n >= 0) return n;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return -errno;
    if (use.what == file_class::socket) {  // before Linux 6.4
      if (total_bytes(parts, static_cast<std::size_t>(count)) == 0) return 0;
      return receive_parts(fd, parts, count);
    }
    reclassify(use, file_class::polled);
  }
  if (!is_ready(fd, POLLIN)) return -EAGAIN;
  const ssize_t n =
      flags == 0 ? real().readv(fd, parts, count) : real().preadv2(fd, parts, count, -1, flags);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE long write_now(const file_use& use, int fd, const iovec* parts, int count,
                                   int flags) noexcept {
  if (use.what == file_class::nowait || use.what == file_class::socket) {
    const ssize_t n = real().pwritev2(fd, parts, count, -1, flags | RWF_NOWAIT);
    if (n >= 0) return n;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return -errno;
    if (use.what == file_class::socket) {
      if (total_bytes(parts, static_cast<std::size_t>(count)) == 0) return 0;
      return send_parts(fd, parts, count);
    }
    reclassify(use, file_class::polled);
  }
  if (!is_ready(fd, POLLOUT)) return -EAGAIN;
  // A pipe that is writable has room for this much at least; more would block (before Linux 6.4 there
  // is no other way).
  if (total_bytes(parts, static_cast<std::size_t>(count)) > PIPE_BUF && is_pipe(fd)) {
    const iovec* first = parts;
    while (first->iov_len == 0) ++first;
    const ssize_t n =
        real().write(fd, first->iov_base, std::min<std::size_t>(first->iov_len, PIPE_BUF));
    return n >= 0 ? n : -errno;
  }
  const ssize_t n =
      flags == 0 ? real().writev(fd, parts, count) : real().pwritev2(fd, parts, count, -1, flags);
  return n >= 0 ? n : -errno;
}

/// The calls with several buffers, at the file's own position. `plain` is libc's.
template <class Plain>
ssize_t read_parts(int fd, const iovec* parts, int count, int flags, Plain plain) {
  file_use use;
  if (count <= 0 || count > IOV_MAX || !can_wait_on(fd, use)) return plain();
  const int before = errno_now();
  const long n = park_until_done(use, direction::read, "readv", [=](const file_use& u) {
    const long some = uninterrupted([&] { return read_now(u, fd, parts, count, flags); });
    return one_read(some, some > 0 ? total_bytes(parts, static_cast<std::size_t>(count)) : 0);
  });
  return n == cannot_wait ? plain() : finish(n, before);
}

template <class Plain>
ssize_t write_parts(int fd, const iovec* parts, int count, int flags, Plain plain) {
  file_use use;
  if (count <= 0 || count > IOV_MAX || !can_wait_on(fd, use)) return plain();
  const int before = errno_now();
  std::size_t done = 0;
  rest_of_parts rest(parts, static_cast<std::size_t>(count));
  const auto bytes = [=] { return total_bytes(parts, static_cast<std::size_t>(count)); };
  long n = park_until_done(use, direction::write, "writev", [&](const file_use& u) {
    return all_of(done, bytes, [&](std::size_t at) -> long {
      if (!rest.skip_to(at)) return -ENOMEM;
      return write_now(u, fd, rest.parts(), static_cast<int>(rest.count()), flags);
    });
  });
  return end_transfer(n, done) ? finish(n, before) : plain();
}

}  // namespace

// ---- the calls

namespace calls {

ssize_t read(int fd, void* to, std::size_t bytes) {
  file_use use;
  if (!can_wait_on(fd, use)) return real().read(fd, to, bytes);
  const int before = errno_now();
  const long n = park_until_done(use, direction::read, "read", [=](const file_use& u) {
    return one_read(uninterrupted([&] {
                      if (u.what == file_class::socket) return platform::receive_now(fd, to, bytes);
                      const iovec whole{to, bytes};
                      return read_now(u, fd, &whole, 1, 0);
                    }),
                    bytes);
  });
  return n == cannot_wait ? real().read(fd, to, bytes) : finish(n, before);
}

ssize_t write(int fd, const void* from, std::size_t bytes) {
  file_use use;
  if (!can_wait_on(fd, use)) return real().write(fd, from, bytes);
  const int before = errno_now();
  std::size_t done = 0;
  const auto* const start = static_cast<const char*>(from);
  long n = park_until_done(use, direction::write, "write", [&](const file_use& u) {
    return all_of(done, bytes, [&](std::size_t at) {
      if (u.what == file_class::socket) return platform::send_now(fd, start + at, bytes - at, true);
      const iovec rest{const_cast<char*>(start + at), bytes - at};
      return write_now(u, fd, &rest, 1, 0);
    });
  });
  return end_transfer(n, done) ? finish(n, before) : real().write(fd, from, bytes);
}

ssize_t readv(int fd, const iovec* parts, int count) {
  return read_parts(fd, parts, count, 0, [=] { return real().readv(fd, parts, count); });
}

ssize_t writev(int fd, const iovec* parts, int count) {
  return write_parts(fd, parts, count, 0, [=] { return real().writev(fd, parts, count); });
}

int eventfd_read(int fd, std::uint64_t* value) {
  return calls::read(fd, value, sizeof *value) == sizeof *value ? 0 : -1;
}
int eventfd_write(int fd, std::uint64_t value) {
  return calls::write(fd, &value, sizeof value) == sizeof value ? 0 : -1;
}

// At another offset than the file's own: only files that have offsets take that.
ssize_t preadv2(int fd, const iovec* parts, int count, off_t offset, int flags) {
  const auto plain = [=] { return real().preadv2(fd, parts, count, offset, flags); };
  return offset == -1 ? read_parts(fd, parts, count, flags, plain) : plain();
}

ssize_t pwritev2(int fd, const iovec* parts, int count, off_t offset, int flags) {
  const auto plain = [=] { return real().pwritev2(fd, parts, count, offset, flags); };
  return offset == -1 ? write_parts(fd, parts, count, flags, plain) : plain();
}

}  // namespace calls
}  // namespace tendril::detail
