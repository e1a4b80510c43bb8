// SPDX-License-Identifier: Apache-2.0
//
// Streams of wide characters on pipes between fibers: with one worker that cannot be replaced, a call that blocks hangs.
// By bytes at the other end, so that characters come in pieces.
#include "intercept/intercepted.hpp"

#include <unistd.h>

#include <climits>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cwchar>
#include <functional>

using namespace tendril;
using test::intercepted;

namespace {

/// Characters of one to four bytes.
class of_utf8 {
 public:
  of_utf8() : before_(std::setlocale(LC_CTYPE, nullptr)) { std::setlocale(LC_CTYPE, "C.UTF-8"); }
  ~of_utf8() { std::setlocale(LC_CTYPE, before_.c_str()); }
  of_utf8(const of_utf8&) = delete;
  of_utf8& operator=(const of_utf8&) = delete;

 private:
  std::string before_;
};

std::string as_bytes(const wchar_t* text) {
  std::string bytes;
  for (; *text != 0; ++text) {
    char one[MB_LEN_MAX];
    std::mbstate_t state{};
    bytes.append(one, std::wcrtomb(one, *text, &state));
  }
  return bytes;
}
std::string end_of(FILE* f) {
  return std::string(feof(f) != 0 ? "end" : "") + (ferror(f) != 0 ? "error" : "");
}

/// A fiber reads from a stream that finds the pipe empty; the bytes come one by one.
std::string read_slowly(const std::string& bytes, const std::function<std::string(FILE*)>& reads) {
  test::pipe_pair pipe;
  std::string seen;
  fiber reader([&] {
    FILE* const f = fdopen(pipe.release_out(), "r");
    seen = reads(f);
    fclose(f);
  });
  fiber writer([&] {
    for (const char c : bytes) {
      for (int i = 0; i != 3; ++i) this_fiber::yield();
      test::write_text(pipe.in(), std::string(1, c));
    }
    close(pipe.release_in());
  });
  reader.join();
  writer.join();
  return seen;
}

/// A fiber writes to a stream, more than the pipe holds; what comes out.
std::string write_all(const std::function<void(FILE*)>& writes) {
  test::pipe_pair pipe;
  std::string seen;
  fiber writer([&] {
    FILE* const f = fdopen(pipe.release_in(), "w");
    writes(f);
    fclose(f);
  });
  fiber reader([&] {
    for (int i = 0; i != 3; ++i) this_fiber::yield();
    for (std::string part = test::read_text(pipe.out(), 4096); !part.empty();
         part = test::read_text(pipe.out(), 4096))
      seen += part;
  });
  writer.join();
  reader.join();
  return seen;
}

constexpr const wchar_t* mixed = L"a\u00e9\u20ac\U0001F600b";

std::wstring long_text() {
  std::wstring text;
  for (int i = 0; i != 40'000; ++i) text += mixed[i % 5];
  return text;
}

}  // namespace

TEST_SUITE("wide_streams") {
  TEST_CASE("characters that come in pieces are waited for") {
    const of_utf8 locale;
    intercepted(
        [] {
          return read_slowly(as_bytes(mixed), [](FILE* f) {
            std::wstring text;
            for (std::wint_t c = fgetwc(f); c != WEOF; c = getwc(f))
              text += static_cast<wchar_t>(c);
            return as_bytes(text.c_str()) + ' ' + end_of(f);
          });
        },
        as_bytes(mixed) + " end");
  }

  TEST_CASE("lines") {
    const of_utf8 locale;
    intercepted(
        [] {
          return read_slowly(as_bytes(L"\u20acuro\n\nlonger than room\nno end"), [](FILE* f) {
            std::string seen;
            wchar_t line[10];
            while (fgetws(line, 10, f) != nullptr) seen += '<' + as_bytes(line) + '>';
            return seen + end_of(f);
          });
        },
        as_bytes(L"<\u20acuro\n><\n><longer th><an room\n><no end>end"));
  }

  TEST_CASE("what is no character is an error, after those before it") {
    const of_utf8 locale;
    intercepted(
        [] {
          return read_slowly(
              "ab\xff"
              "c",
              [](FILE* f) {
                std::string seen;
                for (int i = 0; i != 2; ++i) seen += static_cast<char>(fgetwc(f));
                const bool failed = fgetwc(f) == WEOF && errno == EILSEQ;
                return seen + (failed ? " EILSEQ " : " ? ") + end_of(f);
              });
        },
        "ab EILSEQ error");
  }

  TEST_CASE("scanning takes what it needs, and no more") {
    const of_utf8 locale;
    intercepted(
        [] {
          return read_slowly(as_bytes(L" 42 \u20ac\u20ac;rest"), [](FILE* f) {
            int number = 0;
            wchar_t word[8] = {};
            const int n = fwscanf(f, L"%d %7l[^;]", &number, word);
            std::string seen =
                std::to_string(n) + ' ' + std::to_string(number) + ' ' + as_bytes(word);
            wchar_t rest[8] = {};
            fgetws(rest, 8, f);
            return seen + ' ' + as_bytes(rest) + ' ' + std::to_string(fwscanf(f, L"%d", &number));
          });
        },
        as_bytes(L"2 42 \u20ac\u20ac ;rest -1"));
  }

  TEST_CASE("more than the pipe holds is written, by each way of buffering") {
    const of_utf8 locale;
    const std::wstring text = long_text();
    const std::string bytes = as_bytes(text.c_str());
    for (const int way : {_IOFBF, _IOLBF, _IONBF}) {
      CAPTURE(way);
      intercepted(
          [&] {
            const std::string by_text = write_all([&](FILE* f) {
              setvbuf(f, nullptr, way, BUFSIZ);
              fputws(text.c_str(), f);
            });
            const std::string by_format = write_all([&](FILE* f) {
              setvbuf(f, nullptr, way, BUFSIZ);
              fwprintf(f, L"%ls%d", text.c_str(), 7);
            });
            const std::wstring some = way == _IONBF ? text.substr(0, 1000) : text;
            const std::string by_character = write_all([&](FILE* f) {
              setvbuf(f, nullptr, way, BUFSIZ);
              for (const wchar_t c : some) fputwc(c, f);
            });
            return std::string(by_text == bytes ? "same" : "differs") +
                   (by_format == bytes + '7' ? " same" : " differs") +
                   (by_character == as_bytes(some.c_str()) ? " same" : " differs");
          },
          "same same same");
    }
  }

  TEST_CASE("what is pending is written by fflush and fclose, which park") {
    const of_utf8 locale;
    const std::wstring text = long_text();
    const std::string bytes = as_bytes(text.c_str());
    intercepted(
        [&] {
          const auto buffered = [&](FILE* f) {
            setvbuf(f, nullptr, _IOFBF, 1 << 18);
            fputws(text.c_str(), f);
          };
          const std::string flushed = write_all([&](FILE* f) {
            buffered(f);
            fflush(f);
          });
          const std::string closed = write_all(buffered);
          return std::string(flushed == bytes ? "same" : "differs") +
                 (closed == bytes ? " same" : " differs");
        },
        "same same");
  }

  TEST_CASE("the other end is closed: the call says so, and the stream remembers") {
    const of_utf8 locale;
    std::signal(SIGPIPE, SIG_IGN);
    intercepted(
        [] {
          test::pipe_pair pipe;
          FILE* const f = fdopen(pipe.release_in(), "w");
          setvbuf(f, nullptr, _IONBF, 0);
          close(pipe.release_out());
          const int n = fputws(L"text", f);
          const bool told = n == EOF && errno == EPIPE;
          std::string seen(told ? "EPIPE " : "? ");
          seen += end_of(f);
          fclose(f);
          return seen;
        },
        "EPIPE error");
    std::signal(SIGPIPE, SIG_DFL);
  }

  TEST_CASE("bytes from a stream of wide characters, and the other way round, fail as in libc") {
    intercepted(
        [] {
          test::pipe_pair pipe;
          FILE* const f = fdopen(pipe.release_in(), "w");
          std::string seen(fputs("b", f) >= 0 ? "bytes" : "?");
          seen += fputwc(L'w', f) == WEOF ? ", no characters" : ", characters";
          fclose(f);
          return seen;
        },
        "bytes, no characters");
  }
}
