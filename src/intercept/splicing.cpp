// SPDX-License-Identifier: Apache-2.0
//
// Moving bytes from file to file within the kernel.
//
// splice, tee    SPLICE_F_NONBLOCK is for the pipe among the two; of the other one they wait for as its own calls do. So
//                the call is made with that flag, a socket that is read being asked by poll(2) first, and parks on
//                whichever of the two is not ready. A socket that is written to cannot be told for one call not to
//                wait: when it has room the call is made on a thread of its own, which waits if that was not
//                enough.
// sendfile       to a pipe that is splice. To a socket of streams the bytes are read from the page cache and sent: by
//                a copy more, but without a thread for each receiver that is slow.
//
// Whoever has made one of the two non-blocking has libc's own call.
#include <fcntl.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/file_facts.hpp"
#include "intercept/install.hpp"
#include "intercept/owned_text.hpp"
#include "intercept/polling.hpp"
#include "intercept/symbols.hpp"
#include "intercept/transfer.hpp"

namespace tendril::detail {
namespace {

/// What is known of both; false: libc's own call.
bool look_at_both(int in, int out, file_use& source, file_use& sink) noexcept {
  return look_at_file(in, source) == 0 && look_at_file(out, sink) == 0 && !source.nonblocking &&
         !sink.nonblocking;
}

/// Parks until both are ready, one after the other. 0 or an errno negated.
long wait_for_both(int in, const file_use& source, int out, const file_use& sink,
                   const char* reason) {
  constexpr auto restarted = interruptible::unless_restarted;
  if (source.what != file_class::unparked)
    if (const long n = wait_for_one(in, POLLIN, no_deadline, reason, restarted); n < 0) return n;
  if (sink.what != file_class::unparked)
    if (const long n = wait_for_one(out, POLLOUT, no_deadline, reason, restarted); n < 0) return n;
  return 0;
}

[[gnu::noinline]] long splice_now(int in, off64_t* from, int out, off64_t* to, std::size_t bytes,
                                  unsigned flags) noexcept {
  const ssize_t n = real().splice(in, from, out, to, bytes, flags | SPLICE_F_NONBLOCK);
  return n >= 0 ? n : -errno;
}
[[gnu::noinline]] long vmsplice_now(int fd, const iovec* parts, std::size_t count,
                                    unsigned flags) noexcept {
  const ssize_t n = real().vmsplice(fd, parts, count, flags | SPLICE_F_NONBLOCK);
  return n >= 0 ? n : -errno;
}
[[gnu::noinline]] long tee_now(int in, int out, std::size_t bytes, unsigned flags) noexcept {
  const ssize_t n = real().tee(in, out, bytes, flags | SPLICE_F_NONBLOCK);
  return n >= 0 ? n : -errno;
}

long splice_parked(symbol what, int in, const file_use& source, off64_t* from, int out,
                   const file_use& sink, off64_t* to, std::size_t bytes, unsigned flags) {
  const bool aside = sink.what == file_class::socket && from == nullptr && to == nullptr;
  bool ask_first = aside || source.what == file_class::socket;
  for (;;) {
    if (ask_first)
      if (const long n = wait_for_both(in, source, out, sink, name_of(what)); n < 0) return n;
    const long n =
        aside ? on_thread(what, interruptible::unless_restarted,
                          [=] { return splice_now(in, nullptr, out, nullptr, bytes, flags); })
              : splice_now(in, from, out, to, bytes, flags);
    // On the other thread it is a handler that has ended it.
    if (n != -EAGAIN && (n != -EINTR || aside)) return n;
    ask_first = true;
  }
}

// ---- sendfile to a socket

constexpr std::size_t piece_bytes = 128 * 1024;

bool is_stream_socket(int fd) noexcept {
  int type = 0;
  socklen_t size = sizeof type;
  return ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

bool is_pipe(int fd) noexcept {
  struct stat about;
  return ::fstat(fd, &about) == 0 && S_ISFIFO(about.st_mode);
}

[[gnu::noinline]] long read_piece(int in, char* to, std::size_t bytes, off_t at) {
  iovec whole{to, bytes};
  ssize_t n = real().preadv2(in, &whole, 1, at, RWF_NOWAIT);
  if (n >= 0) return n;
  if (errno != EAGAIN && errno != EOPNOTSUPP && errno != ENOSYS) return -errno;
  return on_pool(symbol::sendfile, [=]() -> long {
    const ssize_t got = ::pread(in, to, bytes, at);
    return got >= 0 ? got : -errno;
  });
}

/// `at` moves on. What was sent, or an errno negated if nothing was.
long send_pieces(int out, int in, off_t& at, std::size_t bytes) {
  const std::size_t room = std::min(bytes, piece_bytes);
  const owned_text piece(static_cast<char*>(std::malloc(room)));
  if (piece == nullptr) return -ENOMEM;
  std::size_t done = 0;
  long error = 0;
  while (done < bytes) {
    const long got = read_piece(in, piece.get(), std::min(bytes - done, room), at);
    if (got <= 0) {
      error = got;
      break;
    }
    const ssize_t sent = calls::send(out, piece.get(), static_cast<std::size_t>(got), 0);
    if (sent > 0) {
      at += sent;
      done += static_cast<std::size_t>(sent);
    }
    if (sent != got) {
      error = sent < 0 ? -errno_now() : 0;
      break;
    }
  }
  return done != 0 ? static_cast<long>(done) : error;
}

[[gnu::noinline]] off_t position_of(int fd) noexcept { return ::lseek(fd, 0, SEEK_CUR); }

}  // namespace

namespace calls {

ssize_t vmsplice(int fd, const iovec* parts, std::size_t count, unsigned flags) {
  file_use use;
  const auto plain = [=] { return real().vmsplice(fd, parts, count, flags); };
  if (look_at_file(fd, use) != 0 || use.nonblocking || use.what == file_class::unparked)
    return plain();
  const int before = errno_now();
  // Into a pipe, or out of it: by which end it is.
  const bool reads = (real().fcntl(fd, F_GETFL, 0) & O_ACCMODE) == O_RDONLY;
  const long n = park_until_done(
      use, reads ? direction::read : direction::write, "vmsplice", [&](const file_use&) -> attempt {
        return {uninterrupted([&] { return vmsplice_now(fd, parts, count, flags); })};
      });
  return n == cannot_wait ? plain() : finish(n, before);
}

ssize_t splice(int in, off64_t* from, int out, off64_t* to, size_t bytes, unsigned flags) {
  file_use source, sink;
  const int before = errno_now();
  // Without a pipe among them it is EINVAL, and at once.
  if (!look_at_both(in, out, source, sink) || (!is_pipe(in) && !is_pipe(out)))
    return real().splice(in, from, out, to, bytes, flags);
  return finish(splice_parked(symbol::splice, in, source, from, out, sink, to, bytes, flags),
                before);
}

ssize_t tee(int in, int out, size_t bytes, unsigned flags) {
  file_use source, sink;
  const int before = errno_now();
  if (!look_at_both(in, out, source, sink)) return real().tee(in, out, bytes, flags);
  for (;;) {
    const long n = tee_now(in, out, bytes, flags);
    if (n != -EAGAIN && n != -EINTR) return finish(n, before);
    const long waited = wait_for_both(in, source, out, sink, name_of(symbol::tee));
    if (waited < 0) return finish(waited, before);
  }
}

ssize_t sendfile(int out, int in, off_t* offset, size_t bytes) {
  constexpr std::size_t most = 0x7ffff000;  // the kernel's
  file_use source, sink;
  const int before = errno_now();
  const auto plain = [=] { return real().sendfile(out, in, offset, bytes); };
  if (bytes == 0 || !look_at_both(in, out, source, sink) || source.what != file_class::unparked)
    return plain();
  const bool to_pipe = is_pipe(out);
  if (!to_pipe && (sink.what != file_class::socket || !is_stream_socket(out))) return plain();
  if (to_pipe)
    return finish(splice_parked(symbol::sendfile, in, source, offset, out, sink, nullptr, bytes, 0),
                  before);
  // The kernel finds what is wrong with the arguments.
  if (real().sendfile(out, in, offset, 0) < 0) return -1;
  off_t at = offset != nullptr ? *offset : position_of(in);
  if (at < 0) return plain();
  const long n = send_pieces(out, in, at, std::min(bytes, most));
  if (n > 0) {
    if (offset != nullptr) *offset = at;
    else ::lseek(in, at, SEEK_SET);
  }
  return finish(n, before);
}

}  // namespace calls
}  // namespace tendril::detail
