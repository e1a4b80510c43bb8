// SPDX-License-Identifier: Apache-2.0
//
// Streams of wide characters on pipes, sockets and terminals. libc converts, we read and write: the bytes of a stream are
// in FILE's own buffer, its characters in another one (`_wide_data`), and which bytes make a character is for the locale to
// say that the stream was made wide in.
//
//   reading   a dry run of __wunderflow(), with no number in the stream: it converts what is there, and fails where it
//             would read. Then our own read(), which parks, puts more behind it. So a character that comes in pieces parks
//             between them.
//   writing   libc's function, with the number of a file in memory in the stream; what it has written there then goes to
//             the real one by our own write(), which parks. An error of that one is the call's.
//
// The number is another one only while libc's function runs, under the stream's lock. Characters of several bytes in a
// stream that is not buffered are read by libc: its one byte has no room for them.
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <memory>
#include <new>

#include "intercept/aside.hpp"
#include "intercept/calls.hpp"
#include "intercept/install.hpp"
#include "intercept/owned_number.hpp"
#include "intercept/stream.hpp"
#include "intercept/symbols.hpp"

namespace tendril::detail {
namespace {

/// The beginning of _IO_wide_data, which macros of earlier versions of libc's headers have compiled into programs.
struct wide_buffer {
  wchar_t *read_ptr, *read_end, *read_base, *write_base, *write_ptr, *write_end;
};
const wide_buffer* buffer_of(const std::FILE* f) noexcept {
  return reinterpret_cast<const wide_buffer*>(f->_wide_data);
}
bool is_wide(const std::FILE* f) noexcept { return f != nullptr && f->_mode > 0; }
std::size_t there(const std::FILE* f) noexcept {
  return is_wide(f) ? static_cast<std::size_t>(buffer_of(f)->read_end - buffer_of(f)->read_ptr) : 0;
}
/// Room for characters that need not be written now. (None in streams that are buffered by lines.)
bool has_room(std::FILE* f, std::size_t count) noexcept {
  if (!is_wide(f) || !is_writing(f)) return false;
  const wide_buffer& b = *buffer_of(f);
  return b.write_end > b.write_ptr &&
         static_cast<std::size_t>(b.write_end - b.write_ptr) >= count && is_free(f);
}
bool has(std::FILE* f) noexcept { return there(f) != 0 && is_free(f); }

[[gnu::noinline]] int errno_of_stream() noexcept { return errno; }
[[gnu::noinline]] void set_errno(int value) noexcept { errno = value; }

/// straight: libc's function; held: what to do when the stream is the caller's.
template <class Straight, class Held>
auto on_wide(std::FILE* f, Straight straight, Held held) {
  stream_use use;
  if (!can_wait_on(f, use, orientation::wide)) return straight();
  const stream_hold mine(f);
  if (std::fwide(f, 1) <= 0) return straight();
  return held(use);
}

// ---- writing

/// Calls libc's function, which writes to memory, and then writes that; `failed` is what the call returns if it cannot.
template <class Call, class Result>
Result write_by_way_of_memory(stream_use& use, Result failed, Call call) {
  std::FILE* const f = use.stream;
  const owned_number memory(real().memfd_create("tendril-stream", MFD_CLOEXEC));
  if (memory.number() < 0) return call();
  const int number = f->_fileno;
  f->_fileno = memory.number();
  const Result result = call();
  const int error = errno_of_stream();
  f->_fileno = number;
  constexpr std::size_t portion = 4096;
  const off_t size = ::lseek(memory.number(), 0, SEEK_END);
  const std::unique_ptr<char[]> text(size > 0 ? new (std::nothrow) char[portion] : nullptr);
  for (off_t done = 0; done < size;) {
    const ssize_t n = text != nullptr ? ::pread(memory.number(), text.get(), portion, done) : -1;
    std::size_t written = 0;
    if (n <= 0 || !write_through(use, text.get(), static_cast<std::size_t>(n), written))
      return failed;
    done += n;
  }
  set_errno(error);
  return result;
}

// ---- reading

/// 1: there are characters; 0: more bytes are needed; else an errno negated.
[[gnu::noinline]] int dry_run(std::FILE* f) noexcept {
  const int before = errno;
  const int number = f->_fileno;
  const int error_before = f->_flags & _IO_ERR_SEEN;
  f->_fileno = -1;
  const bool got = real().__wunderflow(f) != WEOF;
  f->_fileno = number;
  const int error = errno;
  if (!got && error != EBADF) return -error;
  if (!got) f->_flags = (f->_flags & ~_IO_ERR_SEEN) | error_before;
  errno = before;
  return got ? 1 : 0;
}

bool fill_wide(stream_use& use) {
  std::FILE* const f = use.stream;
  if (there(f) != 0) return true;
  if (cannot_read(f)) return real().__wunderflow(f) != WEOF;
  if (is_writing(f) &&
      write_by_way_of_memory(use, EOF, [f] { return real().fflush_unlocked(f); }) == EOF)
    return false;
  for (;;) {
    const int n = dry_run(f);
    if (n != 0) return n > 0;
    const auto room = f->_IO_buf_end - f->_IO_read_end;
    if (room <= 0) return real().__wunderflow(f) != WEOF;
    const ssize_t got = calls::read(f->_fileno, f->_IO_read_end, static_cast<std::size_t>(room));
    if (got <= 0) {
      f->_flags |= got == 0 ? _IO_EOF_SEEN : _IO_ERR_SEEN;
      return false;
    }
    f->_IO_read_end += got;
  }
}

std::wint_t get(std::FILE* f) {
  if (has(f)) return real().fgetwc(f);
  return on_wide(
      f, [=] { return real().fgetwc(f); },
      [=](stream_use& use) { return fill_wide(use) ? real().fgetwc_unlocked(f) : WEOF; });
}

wchar_t* get_line(wchar_t* to, int size, std::FILE* f) {
  const auto straight = [=] { return real().fgetws(to, size, f); };
  if (size <= 1) return straight();
  return on_wide(f, straight, [=](stream_use& use) -> wchar_t* {
    int done = 0;
    const int error_before = f->_flags & _IO_ERR_SEEN;
    f->_flags &= ~_IO_ERR_SEEN;
    while (done != size - 1 && fill_wide(use)) {
      const std::wint_t c = real().fgetwc_unlocked(f);
      if (c == WEOF) break;
      to[done++] = static_cast<wchar_t>(c);
      if (c == L'\n') break;
    }
    const bool failed = (f->_flags & _IO_ERR_SEEN) != 0 && errno_now() != EAGAIN;
    f->_flags |= error_before;
    if (done == 0 || failed) return nullptr;
    to[done] = 0;
    return to;
  });
}

std::wint_t put(wchar_t c, std::FILE* f) {
  if (c != L'\n' && has_room(f, 1)) return real().fputwc(c, f);
  return on_wide(
      f, [=] { return real().fputwc(c, f); },
      [=](stream_use& use) {
        return write_by_way_of_memory(use, WEOF, [=] { return real().fputwc_unlocked(c, f); });
      });
}

int put_text(const wchar_t* text, std::FILE* f) {
  if (has_room(f, std::wcslen(text))) return real().fputws(text, f);
  return on_wide(
      f, [=] { return real().fputws(text, f); },
      [=](stream_use& use) {
        return write_by_way_of_memory(use, EOF, [=] { return real().fputws_unlocked(text, f); });
      });
}

int print(std::FILE* f, int flag, const wchar_t* format, std::va_list arguments) {
  // By its address: as a parameter it may be an array, of which a copy would be a pointer.
  std::va_list mine;
  va_copy(mine, arguments);
  const auto straight = [&] {
    return flag < 0 ? real().vfwprintf(f, format, mine)
                    : real().__vfwprintf_chk(f, flag, format, mine);
  };
  const int result = on_wide(
      f, straight, [&](stream_use& use) { return write_by_way_of_memory(use, -1, straight); });
  va_end(mine);
  return result;
}

// ---- scanf: may want any number of characters, one after the other, and streams of our own making cannot be wide
// (fopencookie). So libc's function is called on a thread of its own, which takes libc's lock.

using scan_function = int (*)(std::FILE*, const wchar_t*, std::va_list);

int scan(symbol what, scan_function function, std::FILE* f, const wchar_t* format,
         std::va_list arguments) {
  std::va_list mine;
  va_copy(mine, arguments);
  const auto call = [&] { return function(f, format, mine); };
  stream_use use;
  int result = 0;
  if (!can_wait_on(f, use, orientation::wide) || !hold_against_fibers(f)) {
    result = call();
  } else {
    result = on_thread(what, keep_slot{}, call);
    release_against_fibers(f);
  }
  va_end(mine);
  return result;
}

}  // namespace

int flush_wide(std::FILE* f) {
  return on_wide(
      f, [=] { return real().fflush(f); },
      [=](stream_use& use) {
        return write_by_way_of_memory(use, EOF, [=] { return real().fflush_unlocked(f); });
      });
}

bool has_wide_pending(const std::FILE* f) noexcept {
  return is_wide(f) && is_writing(f) && buffer_of(f)->write_ptr > buffer_of(f)->write_base;
}

namespace calls {

std::wint_t fgetwc(std::FILE* f) { return get(f); }
std::wint_t fgetwc_unlocked(std::FILE* f) { return get(f); }
std::wint_t getwchar() { return get(stdin); }
std::wint_t getwchar_unlocked() { return get(stdin); }
std::wint_t __wunderflow(std::FILE* f) {
  return on_wide(
      f, [=] { return real().__wunderflow(f); },
      [=](stream_use& use) { return fill_wide(use) ? real().__wunderflow(f) : WEOF; });
}
std::wint_t __wuflow(std::FILE* f) {
  return on_wide(
      f, [=] { return real().__wuflow(f); },
      [=](stream_use& use) { return fill_wide(use) ? real().__wuflow(f) : WEOF; });
}
wchar_t* fgetws(wchar_t* to, int size, std::FILE* f) { return get_line(to, size, f); }
wchar_t* fgetws_unlocked(wchar_t* to, int size, std::FILE* f) { return get_line(to, size, f); }
// Fortified: libc ends the process when there is no room for what is asked for.
wchar_t* __fgetws_chk(wchar_t* to, std::size_t room, int size, std::FILE* f) {
  if (size > 0 && static_cast<std::size_t>(size) > room)
    return real().__fgetws_chk(to, room, size, f);
  return get_line(to, size, f);
}
wchar_t* __fgetws_unlocked_chk(wchar_t* to, std::size_t room, int size, std::FILE* f) {
  return calls::__fgetws_chk(to, room, size, f);
}
std::wint_t fputwc(wchar_t c, std::FILE* f) { return put(c, f); }
std::wint_t fputwc_unlocked(wchar_t c, std::FILE* f) { return put(c, f); }
std::wint_t putwchar(wchar_t c) { return put(c, stdout); }
std::wint_t putwchar_unlocked(wchar_t c) { return put(c, stdout); }
int fputws(const wchar_t* text, std::FILE* f) { return put_text(text, f); }
int fputws_unlocked(const wchar_t* text, std::FILE* f) { return put_text(text, f); }
int vfwprintf(std::FILE* f, const wchar_t* format, std::va_list arguments) {
  return print(f, -1, format, arguments);
}
int vwprintf(const wchar_t* format, std::va_list arguments) {
  return print(stdout, -1, format, arguments);
}
int __vfwprintf_chk(std::FILE* f, int flag, const wchar_t* format, std::va_list arguments) {
  return print(f, flag, format, arguments);
}
int __vwprintf_chk(int flag, const wchar_t* format, std::va_list arguments) {
  return print(stdout, flag, format, arguments);
}
int vfwscanf(std::FILE* f, const wchar_t* format, std::va_list arguments) {
  return scan(symbol::vfwscanf, real().vfwscanf, f, format, arguments);
}
int vwscanf(const wchar_t* format, std::va_list arguments) {
  return scan(symbol::vwscanf, real().vfwscanf, stdin, format, arguments);
}
int __isoc99_vfwscanf(std::FILE* f, const wchar_t* format, std::va_list arguments) {
  return scan(symbol::__isoc99_vfwscanf, real().__isoc99_vfwscanf, f, format, arguments);
}
int __isoc99_vwscanf(const wchar_t* format, std::va_list arguments) {
  return scan(symbol::__isoc99_vwscanf, real().__isoc99_vfwscanf, stdin, format, arguments);
}

}  // namespace calls
}  // namespace tendril::detail
