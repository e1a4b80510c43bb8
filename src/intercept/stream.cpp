// SPDX-License-Identifier: Apache-2.0
//
// The buffers of libc's streams; see stream.hpp. The members of FILE that are used here are what libc's own macros,
// compiled into programs, use.
#include "intercept/stream.hpp"

#include <poll.h>
#include <stdio_ext.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/transfer.hpp"

extern "C" void _IO_doallocbuf(std::FILE*);

namespace tendril::detail {
namespace {

// Of FILE::_flags.
constexpr int unbuffered = 0x2, no_reads = 0x4, no_writes = 0x8, in_backup = 0x100,
              by_lines = 0x200, currently_putting = 0x800;

[[gnu::noinline]] bool is_readable(int fd) noexcept {
  pollfd one{fd, POLLIN, 0};
  return real().poll(&one, 1, 0) != 0;
}

/// One read() of libc's. 1: there is something; 0: the end; or an errno negated.
[[gnu::noinline]] long underflow(std::FILE* f) noexcept {
  if (real().__underflow(f) != EOF) return 1;
  return (f->_flags & _IO_ERR_SEEN) != 0 && (f->_flags & _IO_EOF_SEEN) == 0 ? -errno : 0;
}

std::size_t buffer_size(const std::FILE* f) noexcept {
  return static_cast<std::size_t>(f->_IO_buf_end - f->_IO_buf_base);
}

/// Bytes that come after those pushed back.
bool has_main_area(const std::FILE* f) noexcept {
  return (f->_flags & in_backup) != 0 && f->_IO_save_end > f->_IO_save_base;
}

void mark_error(std::FILE* f, int error) noexcept {
  f->_flags |= _IO_ERR_SEEN;
  finish(-error, 0);
}

}  // namespace

bool is_writing(const std::FILE* f) noexcept { return (f->_flags & currently_putting) != 0; }

bool cannot_read(const std::FILE* f) noexcept {
  return (f->_flags & (no_reads | _IO_EOF_SEEN)) != 0;
}

bool can_wait_on(std::FILE* stream, stream_use& use, orientation what) noexcept {
  use.stream = stream;
  const bool other =
      stream == nullptr || (what == orientation::bytes ? stream->_mode > 0 : stream->_mode < 0);
  if (other) return false;
  const int fd = stream->_fileno;
  return fd >= 0 && (recall_file(fd, use.file) || look_at_file(fd, use.file) == 0) &&
         !use.file.nonblocking && use.file.what != file_class::unparked;
}

bool fill(stream_use& use) {
  std::FILE* const f = use.stream;
  if (bytes_there(f) != 0) return true;
  if (cannot_read(f) || has_main_area(f)) return underflow(f) > 0;
  if (bytes_pending(f) != 0 && !empty(use)) return false;
  const int before = errno_now();
  const int fd = f->_fileno;
  const long n =
      park_until_done(use.file, direction::read, "fread", [=](const file_use&) -> attempt {
        if (!is_readable(fd)) return {-EAGAIN};
        const long got = underflow(f);
        // What came with O_NONBLOCK, set meanwhile by another process: that is the answer.
        return {got == -EAGAIN ? -EWOULDBLOCK - 4096 : got, got > 0};
      });
  if (n == cannot_wait) return underflow(f) > 0;
  if (n >= 0) {
    finish(0, before);
    return n > 0;
  }
  mark_error(f, n < -4096 ? EAGAIN : static_cast<int>(-n));
  return false;
}

std::size_t take(stream_use& use, char* to, std::size_t bytes) {
  std::FILE* const f = use.stream;
  std::size_t done = 0;
  while (done != bytes) {
    const std::size_t left = bytes - done;
    if (const std::size_t there = std::min(bytes_there(f), left); there != 0) {
      done += real().fread_unlocked(to + done, 1, there, f);
      continue;
    }
    const std::size_t whole = buffer_size(f) != 0 ? left - left % buffer_size(f) : 0;
    const bool directly = whole != 0 && !is_writing(f) && !has_main_area(f) &&
                          (f->_flags & (no_reads | in_backup | _IO_EOF_SEEN)) == 0;
    if (!directly) {
      if (!fill(use)) break;
      continue;
    }
    const ssize_t n = calls::read(f->_fileno, to + done, whole);
    if (n <= 0) {
      f->_flags |= n == 0 ? _IO_EOF_SEEN : _IO_ERR_SEEN;
      break;
    }
    done += static_cast<std::size_t>(n);
  }
  return done;
}

bool write_through(stream_use& use, const char* from, std::size_t bytes, std::size_t& done) {
  done = 0;
  while (done != bytes) {
    const ssize_t n = calls::write(use.stream->_fileno, from + done, bytes - done);
    if (n <= 0) {
      use.stream->_flags |= _IO_ERR_SEEN;
      return false;
    }
    done += static_cast<std::size_t>(n);
  }
  return true;
}

bool empty(stream_use& use) {
  std::FILE* const f = use.stream;
  const std::size_t pending = bytes_pending(f);
  if (pending == 0) return true;
  std::size_t done;
  const bool ok = write_through(use, f->_IO_write_base, pending, done);
  const int error = errno_now();
  ::__fpurge(f);  // after an error, too, as libc does
  if (!ok) finish(-error, 0);
  return ok;
}

std::size_t put(stream_use& use, const char* from, std::size_t bytes) {
  std::FILE* const f = use.stream;
  if (bytes == 0) return 0;
  if ((f->_flags & no_writes) != 0) return real().fwrite_unlocked(from, 1, bytes, f);
  if (f->_IO_buf_base == nullptr) ::_IO_doallocbuf(f);
  // How much of it is not to stay in the buffer.
  std::size_t through = 0;
  if ((f->_flags & unbuffered) != 0) {
    through = bytes;
  } else if ((f->_flags & by_lines) != 0) {
    if (const void* const last = ::memrchr(from, '\n', bytes))
      through = static_cast<std::size_t>(static_cast<const char*>(last) - from) + 1;
  }
  const std::size_t rest = bytes - through;
  const std::size_t room = buffer_size(f) - bytes_pending(f);
  if (through == 0 && rest < room) return real().fwrite_unlocked(from, 1, bytes, f);
  if (!empty(use)) return 0;
  if (rest >= buffer_size(f)) through = bytes - rest % buffer_size(f);
  std::size_t done = 0;
  if (through != 0 && !write_through(use, from, through, done)) return done;
  if (through == bytes) return bytes;
  return done + real().fwrite_unlocked(from + through, 1, bytes - through, f);
}

}  // namespace tendril::detail
