// SPDX-License-Identifier: Apache-2.0
//
// libc's functions on streams. Each: the buffer suffices, and nobody is in the middle of something: libc's; the
// stream is none to wait for: libc's; else what stream.hpp has.
//
// The scanf family may want any number of bytes, one after the other. It is given a stream of our own making, whose
// bytes are fetched one by one from the real stream by a function that parks; what it gives back (ungetc) is given
// back to the real stream afterwards. So libc's own code decides what it consumes.
//
// The printf family formats into memory first.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/lifetimes.hpp"
#include "intercept/owned_text.hpp"
#include "intercept/stream.hpp"

extern "C" int __vsnprintf_chk(char*, std::size_t, int, std::size_t, const char*, std::va_list);

namespace tendril::detail {
namespace {

bool has(std::FILE* f, std::size_t bytes) noexcept {
  return f != nullptr && bytes_there(f) >= bytes && is_free(f);
}
bool has_room(std::FILE* f, std::size_t bytes) noexcept {
  return f != nullptr && room_there(f) >= bytes && is_free(f);
}

/// straight: libc's function; held: what to do when the stream is the caller's.
template <class Straight, class Held>
auto on_stream(std::FILE* f, Straight straight, Held held) {
  stream_use use;
  if (!can_wait_on(f, use)) return straight();
  const stream_hold mine(f);
  return held(use);
}

std::size_t read_items(void* to, std::size_t size, std::size_t count, std::FILE* f) {
  const std::size_t bytes = size * count;
  const auto straight = [=] { return real().fread(to, size, count, f); };
  if (bytes == 0 || has(f, bytes)) return straight();
  return on_stream(f, straight, [=](stream_use& use) {
    const std::size_t done = take(use, static_cast<char*>(to), bytes);
    return done == bytes ? count : done / size;
  });
}

std::size_t write_items(const void* from, std::size_t size, std::size_t count, std::FILE* f) {
  const std::size_t bytes = size * count;
  const auto straight = [=] { return real().fwrite(from, size, count, f); };
  if (bytes == 0 || has_room(f, bytes)) return straight();
  return on_stream(f, straight, [=](stream_use& use) {
    const std::size_t done = put(use, static_cast<const char*>(from), bytes);
    return done == bytes ? count : done / size;
  });
}

int get(std::FILE* f) {
  if (has(f, 1)) return real().fgetc(f);
  return on_stream(
      f, [=] { return real().fgetc(f); },
      [=](stream_use& use) { return fill(use) ? real().fgetc_unlocked(f) : EOF; });
}

int put_one(int c, std::FILE* f) {
  if (has_room(f, 1)) return real().fputc(c, f);
  return on_stream(
      f, [=] { return real().fputc(c, f); },
      [=](stream_use& use) {
        const char byte = static_cast<char>(c);
        return put(use, &byte, 1) == 1 ? static_cast<int>(static_cast<unsigned char>(c)) : EOF;
      });
}

/// Up to and with the delimiter, at most `most` bytes, by what take_some(bytes) does with each piece. What
/// it returns false for ends it.
template <class TakeSome>
void take_line(stream_use& use, int delimiter, std::size_t most, TakeSome take_some) {
  while (most != 0 && fill(use)) {
    std::size_t there = bytes_there(use.stream);
    if (there > most) there = most;
    const void* const end = std::memchr(use.stream->_IO_read_ptr, delimiter, there);
    if (end != nullptr)
      there =
          static_cast<std::size_t>(static_cast<const char*>(end) - use.stream->_IO_read_ptr) + 1;
    if (!take_some(there) || end != nullptr) return;
    most -= there;
  }
}

bool has_line(std::FILE* f, int delimiter, std::size_t most) noexcept {
  if (f == nullptr || !is_free(f)) return false;
  const std::size_t there = bytes_there(f);
  return there >= most || (there != 0 && std::memchr(f->_IO_read_ptr, delimiter, there) != nullptr);
}

char* get_line(char* to, int size, std::FILE* f) {
  const auto straight = [=] { return real().fgets(to, size, f); };
  if (size <= 1 || has_line(f, '\n', static_cast<std::size_t>(size) - 1)) return straight();
  return on_stream(f, straight, [=](stream_use& use) -> char* {
    std::size_t done = 0;
    const int error_before = f->_flags & _IO_ERR_SEEN;
    f->_flags &= ~_IO_ERR_SEEN;
    take_line(use, '\n', static_cast<std::size_t>(size) - 1, [&](std::size_t bytes) {
      done += real().fread_unlocked(to + done, 1, bytes, f);
      return true;
    });
    const bool failed = (f->_flags & _IO_ERR_SEEN) != 0 && errno_now() != EAGAIN;
    f->_flags |= error_before;
    if (done == 0 || failed) return nullptr;
    to[done] = 0;
    return to;
  });
}

[[gnu::noinline]] void set_errno(int value) noexcept { errno = value; }

ssize_t get_delimited(char** line, std::size_t* room, int delimiter, std::FILE* f) {
  const auto straight = [=] { return real().getdelim(line, room, delimiter, f); };
  if (line == nullptr || room == nullptr || has_line(f, delimiter, SIZE_MAX)) return straight();
  return on_stream(f, straight, [=](stream_use& use) -> ssize_t {
    std::size_t done = 0;
    bool no_memory = false;
    take_line(use, delimiter, SSIZE_MAX, [&](std::size_t bytes) {
      const std::size_t wanted = done + bytes + 1;
      if (*line == nullptr || *room < wanted) {
        std::size_t size = *line != nullptr ? 2 * *room : 120;
        if (size < wanted) size = wanted;
        char* const larger = static_cast<char*>(std::realloc(*line, size));
        no_memory = larger == nullptr;
        if (no_memory) return false;
        *line = larger;
        *room = size;
      }
      done += real().fread_unlocked(*line + done, 1, bytes, f);
      (*line)[done] = 0;
      return true;
    });
    if (no_memory) set_errno(ENOMEM);
    return done == 0 || no_memory ? -1 : static_cast<ssize_t>(done);
  });
}

/// The text of a printf, on the heap unless it is short.
class formatted {
 public:
  /// flag: of the fortified forms; -1: the plain one.
  formatted(int flag, const char* format, std::va_list arguments) noexcept {
    std::va_list again;
    va_copy(again, arguments);
    length_ = print(short_, sizeof short_, flag, format, arguments);
    if (length_ >= static_cast<int>(sizeof short_)) {
      long_.reset(static_cast<char*>(std::malloc(static_cast<std::size_t>(length_) + 1)));
      if (long_ == nullptr) length_ = -1, set_errno(ENOMEM);
      else length_ = print(long_.get(), static_cast<std::size_t>(length_) + 1, flag, format, again);
    }
    va_end(again);
  }
  int length() const noexcept { return length_; }  ///< -1: errno tells why
  const char* text() const noexcept { return long_ != nullptr ? long_.get() : short_; }
  std::size_t size() const noexcept { return static_cast<std::size_t>(length_); }

 private:
  static int print(char* to, std::size_t room, int flag, const char* format,
                   std::va_list arguments) noexcept {
    return flag < 0 ? std::vsnprintf(to, room, format, arguments)
                    : ::__vsnprintf_chk(to, room, flag, room, format, arguments);
  }
  char short_[512];
  owned_text long_;
  int length_;
};

int print(std::FILE* f, int flag, const char* format, std::va_list arguments) {
  stream_use use;
  if (!can_wait_on(f, use))
    return flag < 0 ? real().vfprintf(f, format, arguments)
                    : real().__vfprintf_chk(f, flag, format, arguments);
  const formatted text(flag, format, arguments);
  if (text.length() < 0) return -1;
  if (has_room(f, text.size()))
    return real().fwrite(text.text(), 1, text.size(), f) == text.size() ? text.length() : -1;
  const stream_hold mine(f);
  return put(use, text.text(), text.size()) == text.size() ? text.length() : -1;
}

int print_to(int fd, int flag, const char* format, std::va_list arguments) {
  const formatted text(flag, format, arguments);
  std::size_t done = 0;
  while (text.length() >= 0 && done != text.size()) {
    const ssize_t n = calls::write(fd, text.text() + done, text.size() - done);
    if (n < 0) return -1;
    done += static_cast<std::size_t>(n);
  }
  return text.length();
}

// ---- scanf

struct source {
  stream_use use;
};

ssize_t next_byte(void* cookie, char* to, std::size_t bytes) {
  auto& s = *static_cast<source*>(cookie);
  if (bytes == 0) return 0;
  if (!fill(s.use)) return (s.use.stream->_flags & _IO_EOF_SEEN) != 0 ? 0 : -1;
  *to = static_cast<char>(real().fgetc_unlocked(s.use.stream));
  return 1;
}

using scan_function = int (*)(std::FILE*, const char*, std::va_list);

int scan(scan_function function, std::FILE* f, const char* format, std::va_list arguments) {
  stream_use use;
  if (!can_wait_on(f, use)) return function(f, format, arguments);
  const stream_hold mine(f);
  // Elsewhere than on the stack, for nothing of libc's may point there while we are parked in it.
  const std::unique_ptr<source> from(new (std::nothrow) source{use});
  cookie_io_functions_t functions{};
  functions.read = &next_byte;
  std::FILE* const copy = from != nullptr ? ::fopencookie(from.get(), "r", functions) : nullptr;
  if (copy == nullptr) {
    set_errno(ENOMEM);
    return EOF;
  }
  std::setvbuf(copy, nullptr, _IONBF, 0);
  const int result = function(copy, format, arguments);
  const int error = errno_now();
  // What it has given back, last first.
  char back[MB_LEN_MAX + 16];
  std::size_t count = 0;
  while (count != sizeof back &&
         (bytes_there(copy) != 0 || copy->_IO_save_end > copy->_IO_save_base)) {
    const int c = real().fgetc_unlocked(copy);
    if (c == EOF) break;
    back[count++] = static_cast<char>(c);
  }
  while (count != 0) std::ungetc(static_cast<unsigned char>(back[--count]), f);
  real().fclose(copy);
  set_errno(error);
  return result;
}

}  // namespace

namespace calls {

std::size_t fread(void* to, std::size_t size, std::size_t count, std::FILE* f) {
  return read_items(to, size, count, f);
}
std::size_t fread_unlocked(void* to, std::size_t size, std::size_t count, std::FILE* f) {
  return read_items(to, size, count, f);
}
// Fortified: libc ends the process when there is no room for what is asked for.
std::size_t __fread_chk(void* to, std::size_t room, std::size_t size, std::size_t count,
                        std::FILE* f) {
  if (size != 0 && count > room / size) return real().__fread_chk(to, room, size, count, f);
  return read_items(to, size, count, f);
}
std::size_t __fread_unlocked_chk(void* to, std::size_t room, std::size_t size, std::size_t count,
                                 std::FILE* f) {
  return calls::__fread_chk(to, room, size, count, f);
}
char* fgets(char* to, int size, std::FILE* f) { return get_line(to, size, f); }
char* fgets_unlocked(char* to, int size, std::FILE* f) { return get_line(to, size, f); }
char* __fgets_chk(char* to, std::size_t room, int size, std::FILE* f) {
  if (size > 0 && static_cast<std::size_t>(size) > room)
    return real().__fgets_chk(to, room, size, f);
  return get_line(to, size, f);
}
char* __fgets_unlocked_chk(char* to, std::size_t room, int size, std::FILE* f) {
  return calls::__fgets_chk(to, room, size, f);
}
int fgetc(std::FILE* f) { return get(f); }
int fgetc_unlocked(std::FILE* f) { return get(f); }
int getc_unlocked(std::FILE* f) { return get(f); }
int getchar() { return get(stdin); }
int getchar_unlocked() { return get(stdin); }
ssize_t getdelim(char** line, std::size_t* room, int delimiter, std::FILE* f) {
  return get_delimited(line, room, delimiter, f);
}
ssize_t getline(char** line, std::size_t* room, std::FILE* f) {
  return get_delimited(line, room, '\n', f);
}
// What getc_unlocked() and its kin call, as macros, when the buffer is empty.
int __uflow(std::FILE* f) {
  return on_stream(
      f, [=] { return real().__uflow(f); },
      [=](stream_use& use) { return fill(use) ? real().__uflow(f) : EOF; });
}
int __underflow(std::FILE* f) {
  return on_stream(
      f, [=] { return real().__underflow(f); },
      [=](stream_use& use) { return fill(use) ? real().__underflow(f) : EOF; });
}

std::size_t fwrite(const void* from, std::size_t size, std::size_t count, std::FILE* f) {
  return write_items(from, size, count, f);
}
std::size_t fwrite_unlocked(const void* from, std::size_t size, std::size_t count, std::FILE* f) {
  return write_items(from, size, count, f);
}
int fputs(const char* text, std::FILE* f) {
  const std::size_t bytes = std::strlen(text);
  if (bytes == 0) return real().fputs(text, f);
  return write_items(text, 1, bytes, f) == bytes ? 1 : EOF;
}
int fputs_unlocked(const char* text, std::FILE* f) { return calls::fputs(text, f); }
int fputc(int c, std::FILE* f) { return put_one(c, f); }
int fputc_unlocked(int c, std::FILE* f) { return put_one(c, f); }
int putc_unlocked(int c, std::FILE* f) { return put_one(c, f); }
int putchar(int c) { return put_one(c, stdout); }
int putchar_unlocked(int c) { return put_one(c, stdout); }
int puts(const char* text) {
  const std::size_t bytes = std::strlen(text);
  if (has_room(stdout, bytes + 1)) return real().puts(text);
  return on_stream(
      stdout, [=] { return real().puts(text); },
      [=](stream_use& use) {
        if (put(use, text, bytes) != bytes || put(use, "\n", 1) != 1) return EOF;
        return bytes < INT_MAX ? static_cast<int>(bytes) + 1 : INT_MAX;
      });
}
void perror(const char* text) {
  char room[128];
  const char* const what = ::strerror_r(errno_now(), room, sizeof room);
  const bool has_text = text != nullptr && *text != 0;
  char* line = nullptr;
  if (::asprintf(&line, "%s%s%s\n", has_text ? text : "", has_text ? ": " : "", what) < 0) return;
  calls::fputs(line, stderr);
  std::free(line);
}
int __overflow(std::FILE* f, int c) {
  if (c == EOF) return calls::fflush(f);
  stream_use use;
  return can_wait_on(f, use) ? put_one(c, f) : real().__overflow(f, c);
}
int vfprintf(std::FILE* f, const char* format, std::va_list arguments) {
  return print(f, -1, format, arguments);
}
int vprintf(const char* format, std::va_list arguments) {
  return print(stdout, -1, format, arguments);
}
int vdprintf(int fd, const char* format, std::va_list arguments) {
  return print_to(fd, -1, format, arguments);
}
int __vfprintf_chk(std::FILE* f, int flag, const char* format, std::va_list arguments) {
  return print(f, flag, format, arguments);
}
int __vprintf_chk(int flag, const char* format, std::va_list arguments) {
  return print(stdout, flag, format, arguments);
}
int __vdprintf_chk(int fd, int flag, const char* format, std::va_list arguments) {
  return print_to(fd, flag, format, arguments);
}

int fflush(std::FILE* f) {
  if (f == nullptr) {
    // Takes the lock of every stream, one of which may be the caller's.
    if (holds_a_stream()) return real().fflush(f);
    return on_thread(symbol::fflush, [] { return real().fflush(nullptr); });
  }
  if (f->_mode > 0) return flush_wide(f);
  if (is_free(f) && bytes_pending(f) == 0) return real().fflush(f);
  return on_stream(
      f, [=] { return real().fflush(f); },
      [=](stream_use& use) { return empty(use) ? real().fflush_unlocked(f) : EOF; });
}
int fflush_unlocked(std::FILE* f) { return calls::fflush(f); }

int vfscanf(std::FILE* f, const char* format, std::va_list arguments) {
  return scan(real().vfscanf, f, format, arguments);
}
int vscanf(const char* format, std::va_list arguments) {
  return scan(real().vfscanf, stdin, format, arguments);
}
int __isoc99_vfscanf(std::FILE* f, const char* format, std::va_list arguments) {
  return scan(real().__isoc99_vfscanf, f, format, arguments);
}
int __isoc99_vscanf(const char* format, std::va_list arguments) {
  return scan(real().__isoc99_vfscanf, stdin, format, arguments);
}

void flockfile(std::FILE* f) {
  if (!hold_stream(f)) real().flockfile(f);
}
int ftrylockfile(std::FILE* f) { return try_hold_stream(f) ? 0 : -1; }
void funlockfile(std::FILE* f) {
  if (!release_stream(f)) real().funlockfile(f);
}

std::FILE* fopen(const char* path, const char* mode) {
  struct stat about;
  if (path == nullptr || mode == nullptr || real().stat(path, &about) != 0 ||
      !S_ISFIFO(about.st_mode))
    return real().fopen(path, mode);
  owned_text p = copy_of(path);
  owned_text m = copy_of(mode);
  if (p == nullptr || m == nullptr) return set_errno(ENOMEM), nullptr;
  return on_thread(symbol::fopen, interruptible::unless_restarted,
                   [p = std::move(p), m = std::move(m)] { return real().fopen(p.get(), m.get()); });
}

// On any thread: others may be parked on the descriptor.
int fclose(std::FILE* f) {
  bool emptied = true;
  int error = 0;
  stream_use use;
  if (!caller_parks()) {
  } else if (has_wide_pending(f)) {
    emptied = flush_wide(f) == 0;
    error = errno_now();
  } else if (bytes_pending(f) != 0 && can_wait_on(f, use)) {
    const stream_hold mine(f);
    emptied = empty(use);
    error = errno_now();
  }
  if (f->_fileno >= 0) before_closing(f->_fileno);
  const int result = real().fclose(f);
  if (!emptied) set_errno(error);
  return emptied ? result : EOF;
}

int pclose(std::FILE* f) {
  stream_use use;
  if (has_wide_pending(f)) {
    flush_wide(f);
  } else if (bytes_pending(f) != 0 && can_wait_on(f, use)) {
    const stream_hold mine(f);
    empty(use);
  }
  if (f->_fileno >= 0) before_closing(f->_fileno);
  return on_thread(symbol::pclose, [f] { return real().pclose(f); });
}

}  // namespace calls
}  // namespace tendril::detail
