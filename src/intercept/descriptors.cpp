// SPDX-License-Identifier: Apache-2.0
//
// Reading, writing and closing.
//
// How a call is made that does not block: on sockets by MSG_DONTWAIT; elsewhere by RWF_NOWAIT at offset -1, the
// file's own position; where the file has no such thing, by asking poll(2) first.
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "intercept/calls.hpp"
#include "intercept/file_facts.hpp"
#include "intercept/install.hpp"
#include "intercept/transfer.hpp"
#include "io/operation.hpp"
#include "platform/socket_calls.hpp"

// See errno in operation.hpp.
#define TENDRIL_OUT_OF_LINE [[gnu::noinline]]

namespace tendril::detail {
namespace {

// ---- one system call each

TENDRIL_OUT_OF_LINE bool is_ready(int fd, short events) noexcept {
  pollfd one{fd, events, 0};
  return real().poll(&one, 1, 0) != 0;
}

TENDRIL_OUT_OF_LINE long receive(int fd, void* to, std::size_t bytes, int flags) noexcept {
  if (flags == 0) return platform::receive_now(fd, to, bytes);
  const ssize_t n = real().recv(fd, to, bytes, flags | MSG_DONTWAIT);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE long send(int fd, const void* from, std::size_t bytes, int flags) noexcept {
  const ssize_t n = real().send(fd, from, bytes, flags | MSG_DONTWAIT);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE long read_now(const file_use& use, int fd, void* to,
                                  std::size_t bytes) noexcept {
  if (use.what == file_class::nowait) {
    const iovec whole{to, bytes};
    const ssize_t n = ::preadv2(fd, &whole, 1, -1, RWF_NOWAIT);
    if (n >= 0) return n;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return -errno;
    reclassify(use, file_class::polled);
  }
  if (!is_ready(fd, POLLIN)) return -EAGAIN;
  const ssize_t n = real().read(fd, to, bytes);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE long write_now(const file_use& use, int fd, const void* from,
                                   std::size_t bytes) noexcept {
  if (use.what == file_class::nowait) {
    const iovec whole{const_cast<void*>(from), bytes};
    const ssize_t n = ::pwritev2(fd, &whole, 1, -1, RWF_NOWAIT);
    if (n >= 0) return n;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return -errno;
    reclassify(use, file_class::polled);
  }
  if (!is_ready(fd, POLLOUT)) return -EAGAIN;
  const ssize_t n = real().write(fd, from, bytes);
  return n >= 0 ? n : -errno;
}

/// Until all is sent, an error or EAGAIN. An error after a part is left for the next call to find.
template <class Some>
attempt all_of(std::size_t& done, std::size_t bytes, Some&& some) {
  for (;;) {
    const long n = some(done);
    if (n == -EINTR) continue;
    if (n == -EAGAIN) return {n};
    if (n < 0) return {done != 0 ? static_cast<long>(done) : n};
    done += static_cast<std::size_t>(n);
    if (n == 0 || done >= bytes) return {static_cast<long>(done)};
  }
}

/// The end of a write: what was done before it failed counts. False: nothing was, and it can only be made
/// plainly.
bool end_write(long& result, std::size_t done) noexcept {
  if (result < 0 && done != 0) result = static_cast<long>(done);
  return result != cannot_wait;
}

attempt one_read(long n, std::size_t bytes, int flags = 0) noexcept {
  return {n, n > 0 && static_cast<std::size_t>(n) < bytes && (flags & MSG_PEEK) == 0};
}

template <class Call>
long uninterrupted(Call&& call) {
  long n;
  do {
    n = call();
  } while (n == -EINTR);
  return n;
}

/// Whether calls on the number park at all. False: the plain call.
bool can_wait_on(int fd, file_use& use) noexcept {
  return (recall_file(fd, use) || look_at_file(fd, use) == 0) && !use.nonblocking &&
         use.what != file_class::unparked;
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
                      return u.what == file_class::socket ? receive(fd, to, bytes, 0)
                                                          : read_now(u, fd, to, bytes);
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
      return u.what == file_class::socket ? detail::send(fd, start + at, bytes - at, 0)
                                          : write_now(u, fd, start + at, bytes - at);
    });
  });
  return end_write(n, done) ? finish(n, before) : real().write(fd, from, bytes);
}

ssize_t recv(int fd, void* to, std::size_t bytes, int flags) {
  file_use use;
  if (!can_wait_on(fd, use)) return real().recv(fd, to, bytes, flags);
  const int before = errno_now();
  const long n = park_until_done(use, direction::read, "recv", [=](const file_use&) {
    return one_read(uninterrupted([&] { return receive(fd, to, bytes, flags); }), bytes, flags);
  });
  return n == cannot_wait ? real().recv(fd, to, bytes, flags) : finish(n, before);
}

ssize_t send(int fd, const void* from, std::size_t bytes, int flags) {
  file_use use;
  if (!can_wait_on(fd, use)) return real().send(fd, from, bytes, flags);
  const int before = errno_now();
  std::size_t done = 0;
  const auto* const start = static_cast<const char*>(from);
  long n = park_until_done(use, direction::write, "send", [&](const file_use&) {
    return all_of(done, bytes,
                  [&](std::size_t at) { return detail::send(fd, start + at, bytes - at, flags); });
  });
  return end_write(n, done) ? finish(n, before) : real().send(fd, from, bytes, flags);
}

int close(int fd) {
  const descriptor* const d = find_descriptor(fd);
  if (d == nullptr || !d->is_adopted() || in_other_process()) return real().close(fd);
  switch (drop_descriptor(fd)) {
    case drop_result::closed:
      return 0;
    case drop_result::closing:
      return static_cast<int>(finish(-EBADF, 0));
    case drop_result::unknown:
    case drop_result::dropped:
      break;
  }
  return real().close(fd);
}

}  // namespace calls
}  // namespace tendril::detail
