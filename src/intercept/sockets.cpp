// SPDX-License-Identifier: Apache-2.0
//
// What sockets alone have.
//
//   MSG_WAITALL    read on until all has come, the stream ends or fails
//   MSG_PEEK       what was looked at is still there: the direction is not drained
//   accept         poll(2) first, then the call that could block if another process is quicker: the token keeps
//                  other fibers away
//   connect        has no flag for the one call, and no poll that says before whether it will wait: the file is
//                  made non-blocking for the call, and blocking again right after
//
// Ancillary data and addresses go with the first part of a message that is sent in parts.
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstddef>
#include <optional>

#include "intercept/calls.hpp"
#include "intercept/clocks.hpp"
#include "intercept/file_facts.hpp"
#include "intercept/install.hpp"
#include "intercept/parts.hpp"
#include "intercept/polling.hpp"
#include "intercept/transfer.hpp"
#include "platform/socket_calls.hpp"

// See errno in operation.hpp.
#define TENDRIL_OUT_OF_LINE [[gnu::noinline]]

namespace tendril::detail {
namespace {

TENDRIL_OUT_OF_LINE long receive(int fd, void* to, std::size_t bytes, int flags) noexcept {
  if (flags == 0) return platform::receive_now(fd, to, bytes);
  const ssize_t n = real().recv(fd, to, bytes, flags | MSG_DONTWAIT);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE long receive_from(int fd, void* to, std::size_t bytes, int flags,
                                      sockaddr* from, socklen_t* length) noexcept {
  const ssize_t n = real().recvfrom(fd, to, bytes, flags | MSG_DONTWAIT, from, length);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE long receive_message(int fd, msghdr* message, int flags) noexcept {
  const ssize_t n = real().recvmsg(fd, message, flags | MSG_DONTWAIT);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE long receive_messages(int fd, mmsghdr* messages, unsigned count,
                                          int flags) noexcept {
  const int n = real().recvmmsg(fd, messages, count, flags | MSG_DONTWAIT, nullptr);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE long send_to(int fd, const void* from, std::size_t bytes, int flags,
                                 const sockaddr* to, socklen_t length) noexcept {
  if ((flags & ~MSG_NOSIGNAL) == 0 && to == nullptr)
    return platform::send_now(fd, from, bytes, (flags & MSG_NOSIGNAL) == 0);
  const ssize_t n = real().sendto(fd, from, bytes, flags | MSG_DONTWAIT, to, length);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE long send_message(int fd, const msghdr* message, int flags) noexcept {
  const ssize_t n = real().sendmsg(fd, message, flags | MSG_DONTWAIT);
  return n >= 0 ? n : -errno;
}

TENDRIL_OUT_OF_LINE bool has_ended(int fd) noexcept {
  pollfd one{fd, POLLRDHUP, 0};
  return real().poll(&one, 1, 0) > 0;
}

TENDRIL_OUT_OF_LINE bool is_stream(int fd) noexcept {
  int type = 0;
  socklen_t size = sizeof type;
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

/// A stream's receiving call that has MSG_WAITALL among its flags; some(done) is one call without it.
template <class Bytes, class Some>
attempt receive_all(int fd, std::size_t& done, Bytes&& bytes, int flags, Some&& some) {
  if ((flags & MSG_PEEK) == 0) return all_of(done, bytes, some);
  const long n = uninterrupted([&] { return some(std::size_t{0}); });
  // Too little, and more may come: each arrival is an event.
  if (n > 0 && static_cast<std::size_t>(n) < bytes() && !has_ended(fd)) return {-EAGAIN};
  return {n};
}

/// Whether accept() would wait on it: on a socket that does not listen it fails at once, ready or not.
TENDRIL_OUT_OF_LINE bool listens(int fd) noexcept {
  int yes = 0;
  socklen_t size = sizeof yes;
  return ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &size) == 0 && yes != 0;
}

// ---- connecting

TENDRIL_OUT_OF_LINE long begin_to_connect(int fd, const sockaddr* peer, socklen_t length) noexcept {
  const int flags = real().fcntl(fd, F_GETFL, 0);
  if (flags < 0 || real().fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) return -errno;
  const int result = real().connect(fd, peer, length);
  const int error = errno;
  real().fcntl(fd, F_SETFL, flags);
  if (result == 0) return 0;
  // Another connect() is in progress: this one waits with it, as a blocking one does.
  return error == EALREADY ? -EINPROGRESS : -error;
}

TENDRIL_OUT_OF_LINE long outcome_of_connecting(int fd) noexcept {
  pollfd one{fd, POLLOUT, 0};
  const int n = real().poll(&one, 1, 0);
  if (n == 0) return -EAGAIN;
  if (n < 0) return -errno;
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return -errno;
  return -error;
}

long connect_parked(file_use& use, int fd, const sockaddr* peer, socklen_t length) {
  using namespace std::chrono_literals;
  const auto limit = timeout_of(use, direction::write);
  const time_point deadline = limit.count() > 0 ? deadline_after(limit) : no_deadline;
  auto backoff = std::chrono::nanoseconds(1ms);
  const thread_stay stay;
  const interruptible breaks =
      limit.count() > 0 ? interruptible::always : interruptible::unless_restarted;
  for (;;) {
    bool begun = false;
    bool full = false;
    const long result = park_until_done(
        use, direction::write, "connect",
        [&](const file_use&) -> attempt {
          if (begun) return {outcome_of_connecting(fd)};
          const long r = begin_to_connect(fd, peer, length);
          begun = r == -EINPROGRESS;
          full = r == -EAGAIN;
          return {begun ? -EAGAIN : full ? -EBUSY : r};
        },
        deadline, breaks);
    if (!full) return result == -EAGAIN ? -EINPROGRESS : result;
    // A Unix socket whose listener's queue is full; no event tells when it no longer is.
    if (clock::now() >= deadline) return -EAGAIN;
    const interruptible_call call(breaks);
    const std::error_code ec =
        use.entry->pause(use.generation, direction::write,
                         foreign_wait(std::min(clock::now() + backoff, deadline),
                                      "connect (queue full)", call.call()));
    if (ec == std::errc::interrupted) return -EINTR;
    if (ec == std::errc::operation_canceled) return -ECANCELED;
    if (ec == std::errc::timed_out) return -ETIMEDOUT;
    if (ec) return ec == std::errc::bad_file_descriptor ? -EBADF : cannot_wait;
    backoff = std::min<std::chrono::nanoseconds>(backoff * 2, 50ms);
  }
}

/// accept() and accept4(): `plain` is libc's.
template <class Plain>
int accept_parked(int fd, Plain plain) {
  file_use use;
  if (!can_wait_on_socket(fd, use)) return told(plain());
  const int before = errno_now();
  const long n = park_until_done(use, direction::read, "accept", [&](const file_use&) -> attempt {
    return {uninterrupted([&]() -> long {
      pollfd one{fd, POLLIN, 0};
      if (real().poll(&one, 1, 0) == 0 && listens(fd)) return -EAGAIN;
      const int accepted = plain();
      return accepted >= 0 ? accepted : -errno_now();
    })};
  });
  if (n >= 0) descriptor_opened(static_cast<int>(n));
  return n == cannot_wait ? told(plain()) : static_cast<int>(finish(n, before));
}

}  // namespace

namespace calls {

ssize_t recv(int fd, void* to, std::size_t bytes, int flags) {
  file_use use;
  if (!can_wait_on_socket(fd, use)) return real().recv(fd, to, bytes, flags);
  const int before = errno_now();
  std::size_t done = 0;
  const bool all = (flags & MSG_WAITALL) != 0 && is_stream(fd);
  long n = park_until_done(use, direction::read, "recv", [&](const file_use&) {
    if (!all)
      return one_read(uninterrupted([&] { return receive(fd, to, bytes, flags); }), bytes, flags);
    return receive_all(
        fd, done, [=] { return bytes; }, flags,
        [&](std::size_t at) {
          return receive(fd, static_cast<char*>(to) + at, bytes - at, flags & ~MSG_WAITALL);
        });
  });
  return end_transfer(n, done) ? finish(n, before) : real().recv(fd, to, bytes, flags);
}

ssize_t recvfrom(int fd, void* to, std::size_t bytes, int flags, sockaddr* from,
                 socklen_t* length) {
  if (from == nullptr) return recv(fd, to, bytes, flags);
  file_use use;
  if (!can_wait_on_socket(fd, use)) return real().recvfrom(fd, to, bytes, flags, from, length);
  const int before = errno_now();
  std::size_t done = 0;
  const bool all = (flags & MSG_WAITALL) != 0 && is_stream(fd);
  long n = park_until_done(use, direction::read, "recvfrom", [&](const file_use&) {
    if (!all)
      return one_read(
          uninterrupted([&] { return receive_from(fd, to, bytes, flags, from, length); }), bytes,
          flags);
    return receive_all(
        fd, done, [=] { return bytes; }, flags,
        [&](std::size_t at) {
          return receive_from(fd, static_cast<char*>(to) + at, bytes - at, flags & ~MSG_WAITALL,
                              from, length);
        });
  });
  return end_transfer(n, done) ? finish(n, before)
                               : real().recvfrom(fd, to, bytes, flags, from, length);
}

ssize_t recvmsg(int fd, msghdr* message, int flags) {
  file_use use;
  if (!can_wait_on_socket(fd, use)) return real().recvmsg(fd, message, flags);
  const int before = errno_now();
  const auto bytes = [=] { return total_bytes(message->msg_iov, message->msg_iovlen); };
  std::size_t done = 0;
  const bool all = (flags & MSG_WAITALL) != 0 && is_stream(fd);
  std::optional<rest_of_parts> rest;
  long n = park_until_done(use, direction::read, "recvmsg", [&](const file_use&) {
    if (!all) {
      const long some = uninterrupted([&] { return receive_message(fd, message, flags); });
      return one_read(some, some > 0 ? bytes() : 0, flags);
    }
    return receive_all(fd, done, bytes, flags, [&](std::size_t at) -> long {
      if (at == 0) return receive_message(fd, message, flags & ~MSG_WAITALL);
      if (!rest) rest.emplace(message->msg_iov, message->msg_iovlen);
      if (!rest->skip_to(at)) return -ENOMEM;
      msghdr further{};
      further.msg_iov = const_cast<iovec*>(rest->parts());
      further.msg_iovlen = rest->count();
      return receive_message(fd, &further, flags & ~MSG_WAITALL);
    });
  });
  return end_transfer(n, done) ? finish(n, before) : real().recvmsg(fd, message, flags);
}

int recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  file_use use;
  const auto plain = [=] { return real().recvmmsg(fd, messages, count, flags, timeout); };
  if (count == 0 || !can_wait_on_socket(fd, use)) return plain();
  time_point end = no_deadline;
  if (timespec length;
      timeout != nullptr && (!fetch_time(length, timeout) || !deadline_of(length, end)))
    return plain();  // EFAULT, EINVAL
  const int before = errno_now();
  const bool first_only = (flags & MSG_WAITFORONE) != 0;
  // The kernel looks at the time after each message, and not while it waits for one; so is it here.
  std::size_t done = 0;
  long n = park_until_done(use, direction::read, "recvmmsg", [&](const file_use&) -> attempt {
    for (;;) {
      const long some = uninterrupted([&] {
        return receive_messages(fd, messages + done, count - static_cast<unsigned>(done),
                                flags & ~MSG_WAITFORONE);
      });
      if (some == -EAGAIN && done != 0 && (first_only || clock::now() >= end))
        return {static_cast<long>(done)};
      if (some < 0) return {done != 0 && some != -EAGAIN ? static_cast<long>(done) : some};
      done += static_cast<std::size_t>(some);
      if (done >= count || some == 0 || first_only || clock::now() >= end)
        return {static_cast<long>(done)};
    }
  });
  if (!end_transfer(n, done)) return plain();
  if (timeout != nullptr && n > 0) {
    const auto left =
        std::max(std::chrono::nanoseconds(end - clock::now()), std::chrono::nanoseconds::zero());
    timeout->tv_sec = static_cast<time_t>(left.count() / 1'000'000'000);
    timeout->tv_nsec = static_cast<long>(left.count() % 1'000'000'000);
  }
  return static_cast<int>(finish(n, before));
}

ssize_t send(int fd, const void* from, std::size_t bytes, int flags) {
  return sendto(fd, from, bytes, flags, nullptr, 0);
}

ssize_t sendto(int fd, const void* from, std::size_t bytes, int flags, const sockaddr* to,
               socklen_t length) {
  file_use use;
  if (!can_wait_on_socket(fd, use)) return real().sendto(fd, from, bytes, flags, to, length);
  const int before = errno_now();
  std::size_t done = 0;
  long n = park_until_done(use, direction::write, "send", [&](const file_use&) {
    return all_of(done, bytes, [&](std::size_t at) {
      return send_to(fd, static_cast<const char*>(from) + at, bytes - at, flags, to, length);
    });
  });
  return end_transfer(n, done) ? finish(n, before)
                               : real().sendto(fd, from, bytes, flags, to, length);
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  file_use use;
  if (!can_wait_on_socket(fd, use)) return real().sendmsg(fd, message, flags);
  const int before = errno_now();
  const auto bytes = [=] { return total_bytes(message->msg_iov, message->msg_iovlen); };
  std::size_t done = 0;
  std::optional<rest_of_parts> rest;
  long n = park_until_done(use, direction::write, "sendmsg", [&](const file_use&) {
    return all_of(done, bytes, [&](std::size_t at) -> long {
      if (at == 0) return send_message(fd, message, flags);
      if (!rest) rest.emplace(message->msg_iov, message->msg_iovlen);
      if (!rest->skip_to(at)) return -ENOMEM;
      msghdr further{};
      further.msg_iov = const_cast<iovec*>(rest->parts());
      further.msg_iovlen = rest->count();
      return send_message(fd, &further, flags);
    });
  });
  return end_transfer(n, done) ? finish(n, before) : real().sendmsg(fd, message, flags);
}

int sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  file_use use;
  if (!can_wait_on_socket(fd, use)) return real().sendmmsg(fd, messages, count, flags);
  // One by one: a stream may take a message in parts, and the count is of whole ones.
  count = std::min<unsigned>(count, IOV_MAX);
  unsigned done = 0;
  for (; done != count; ++done) {
    const ssize_t n = calls::sendmsg(fd, &messages[done].msg_hdr, flags);
    if (n < 0) break;
    messages[done].msg_len = static_cast<unsigned>(n);
  }
  return done != 0 || count == 0 ? static_cast<int>(done) : -1;
}

int accept(int fd, sockaddr* peer, socklen_t* length) {
  return accept_parked(fd, [=] { return real().accept(fd, peer, length); });
}

int accept4(int fd, sockaddr* peer, socklen_t* length, int flags) {
  if ((flags & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != 0)
    return real().accept4(fd, peer, length, flags);  // EINVAL
  return accept_parked(fd, [=] { return real().accept4(fd, peer, length, flags); });
}

int connect(int fd, const sockaddr* peer, socklen_t length) {
  file_use use;
  if (!can_wait_on_socket(fd, use)) return real().connect(fd, peer, length);
  const int before = errno_now();
  const long n = connect_parked(use, fd, peer, length);
  return n == cannot_wait ? real().connect(fd, peer, length) : static_cast<int>(finish(n, before));
}

}  // namespace calls
}  // namespace tendril::detail
