// SPDX-License-Identifier: Apache-2.0
//
// libc's streams (FILE) on fibers: their locks, what is in their buffers, filling and emptying those.
//
// libc reads and writes for a stream by functions of its own that no front sees. So what a call needs is got first, by
// calls that park, and libc's function is called only when the buffer suffices for it:
//
//   reading   park until the descriptor is readable, then __underflow(): one read() into the empty buffer, and
//             nothing taken from it
//   writing   what is pending is written from the buffer by our own write(), and discarded there (__fpurge)
//
// This is for streams on pipes, sockets and terminals in blocking mode. All others (files, memory, O_NONBLOCK) are libc's
// alone: it does not wait for anybody. Of wide characters: see wide.cpp.
//
// Locks. libc's lock of a stream belongs to a thread; fibers of one thread would all have it. So a stream has a
// second one, which belongs to a fiber and is taken first; then libc's, which keeps threads away. Both are held
// while parked, and the fiber stays on its thread as long. (As with threads: who has locked a stream and waits
// keeps others waiting.) Calls whose buffer suffices take libc's lock alone. That is enough: two
// fibers on different threads exclude each other by it; of two on one thread the second finds that
// the first is in the middle of something by looking at the second lock. What is left: such a call blocks while a
// thread that is no fiber holds the stream's lock, as it would anywhere.
#pragma once

#include <cstddef>
#include <cstdio>

#include "intercept/file_facts.hpp"

namespace tendril::detail {

/// Nothing that this file is about: libc's own function, now.
struct stream_use {
  std::FILE* stream;
  file_use file;
};
/// Of bytes or of wide characters: what a call is for. A stream that has been used as one is never the other.
enum class orientation { bytes, wide };
/// Whether calls on the stream may wait, and park then. Finds out about its descriptor.
bool can_wait_on(std::FILE* stream, stream_use& use,
                 orientation what = orientation::bytes) noexcept;

/// Whether some fiber holds some stream: only then need a call look further whose buffer suffices.
bool any_stream_held() noexcept;
/// Whether another fiber than the caller holds it.
bool held_by_another(std::FILE* stream) noexcept;

/// The stream is the calling fiber's, until as many calls of release_stream(). False: no memory; nothing is held.
/// \switch yes, while another fiber or thread has it
bool hold_stream(std::FILE* stream);
/// Without waiting.
bool try_hold_stream(std::FILE* stream);
/// True: the caller held it.
bool release_stream(std::FILE* stream);
/// The second lock alone, for a call that libc's lock is taken for on another thread. False: the fiber has the stream
/// already, or there is no memory; nothing is held.
/// \switch yes, while another fiber has it
bool hold_against_fibers(std::FILE* stream);
void release_against_fibers(std::FILE* stream) noexcept;
/// Whether the calling fiber holds some stream.
bool holds_a_stream() noexcept;

inline bool is_free(std::FILE* f) noexcept { return !any_stream_held() || !held_by_another(f); }

class stream_hold {
 public:
  explicit stream_hold(std::FILE* stream) : stream_(stream), held_(hold_stream(stream)) {}
  ~stream_hold() {
    if (held_) release_stream(stream_);
  }
  stream_hold(const stream_hold&) = delete;
  stream_hold& operator=(const stream_hold&) = delete;

 private:
  std::FILE* stream_;
  bool held_;
};

// ---- wide characters

/// Of a stream that has been used for them: whether some are not written yet, and fflush().
bool has_wide_pending(const std::FILE* f) noexcept;
int flush_wide(std::FILE* f);

// ---- buffers

/// Bytes that can be taken without reading.
inline std::size_t bytes_there(const std::FILE* f) noexcept {
  return static_cast<std::size_t>(f->_IO_read_end - f->_IO_read_ptr);
}
bool is_writing(const std::FILE* f) noexcept;
inline std::size_t bytes_pending(const std::FILE* f) noexcept {
  return is_writing(f) && f->_IO_write_ptr > f->_IO_write_base
             ? static_cast<std::size_t>(f->_IO_write_ptr - f->_IO_write_base)
             : 0;
}
/// Room for bytes that need not be written now, whatever they are. (None in streams that are buffered by lines.)
inline std::size_t room_there(const std::FILE* f) noexcept {
  return is_writing(f) && f->_IO_write_end > f->_IO_write_ptr
             ? static_cast<std::size_t>(f->_IO_write_end - f->_IO_write_ptr)
             : 0;
}

/// Whether reading fails, or finds the end, without a look at the descriptor.
bool cannot_read(const std::FILE* f) noexcept;

// Held, on a stream that can_wait_on() was true of. Errors and the end are marked in the stream, errno is set.

/// Until there is something. False: the end, or an error.
bool fill(stream_use& use);
/// Whole bytes into the caller's memory: how many, fewer at the end or after an error.
std::size_t take(stream_use& use, char* to, std::size_t bytes);
/// Writes what is pending.
bool empty(stream_use& use);
/// Past the buffer. False: an error, after `done` bytes.
bool write_through(stream_use& use, const char* from, std::size_t bytes, std::size_t& done);
/// Puts bytes into the stream as its buffering demands: how many.
std::size_t put(stream_use& use, const char* from, std::size_t bytes);

}  // namespace tendril::detail
