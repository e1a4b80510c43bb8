// SPDX-License-Identifier: Apache-2.0
//
// libc's streams on pipes between fibers. With one worker that cannot be replaced, a call that blocks hangs.
#include "intercept/intercepted.hpp"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>

using namespace tendril;
using test::intercepted;

namespace {

/// A pipe with a stream at each end, closed at the end.
class streams {
 public:
  streams() : out_(fdopen(ends_.release_out(), "r")), in_(fdopen(ends_.release_in(), "w")) {
    if (out_ == nullptr || in_ == nullptr) std::abort();
  }
  ~streams() {
    close_in();
    if (out_ != nullptr) fclose(out_);
  }
  streams(const streams&) = delete;
  streams& operator=(const streams&) = delete;
  FILE* out() const noexcept { return out_; }
  FILE* in() const noexcept { return in_; }
  int close_in() {
    FILE* const f = std::exchange(in_, nullptr);
    return f != nullptr ? fclose(f) : 0;
  }
  int close_out() { return fclose(std::exchange(out_, nullptr)); }

 private:
  test::pipe_pair ends_;
  FILE* out_;
  FILE* in_;
};

/// reads() on a fiber that finds the pipe empty; writes() on one that follows, which closes the pipe at its end.
std::string piped(const std::function<std::string(FILE*)>& reads,
                  const std::function<void(FILE*)>& writes) {
  streams pipe;
  std::string seen;
  fiber reader([&] { seen = reads(pipe.out()); });
  fiber writer([&] {
    this_fiber::yield();
    writes(pipe.in());
    pipe.close_in();
  });
  reader.join();
  writer.join();
  return seen;
}

void put_slowly(FILE* f, const char* text) {
  for (; *text != 0; ++text) {
    fputc(*text, f);
    fflush(f);
    this_fiber::yield();
  }
}

std::string lines_of(FILE* f) {
  std::string seen;
  char* line = nullptr;
  size_t room = 0;
  while (getline(&line, &room, f) >= 0) seen += '<' + std::string(line) + '>';
  free(line);
  return seen + (feof(f) ? "end" : "") + (ferror(f) ? "error" : "");
}

}  // namespace

TEST_SUITE("streams") {
  TEST_CASE("fgetc, ungetc and the end") {
    intercepted(
        [] {
          return piped(
              [](FILE* f) {
                std::string seen;
                for (int c = 0; (c = getc(f)) != EOF;) {
                  if (c == 'b' && ungetc('B', f) == 'B') c = fgetc(f);
                  seen += static_cast<char>(c);
                }
                return seen + (feof(f) ? " end" : "") + (getc(f) == EOF ? " end" : "");
              },
              [](FILE* f) { put_slowly(f, "abc"); });
        },
        "aBc end end");
  }

  TEST_CASE("lines that come in pieces") {
    intercepted(
        [] {
          return piped(&lines_of, [](FILE* f) {
            put_slowly(f, "one\ntw");
            fputs("o\n\nlast", f);
          });
        },
        "<one\n><two\n><\n><last>end");
  }

  TEST_CASE("fgets keeps to its size") {
    intercepted(
        [] {
          return piped(
              [](FILE* f) {
                std::string seen;
                char text[4];
                while (fgets(text, sizeof text, f) != nullptr)
                  seen += '<' + std::string(text) + '>';
                return seen;
              },
              [](FILE* f) { put_slowly(f, "abcdef\ng\n"); });
        },
        "<abc><def><\n><g\n>");
  }

  TEST_CASE("fread and fwrite of more than a pipe holds") {
    intercepted(
        [] {
          std::string sent(std::size_t{300} << 10, 0);
          for (std::size_t i = 0; i != sent.size(); ++i) sent[i] = static_cast<char>(i * 7 >> 3);
          std::size_t written = 0;
          const std::string seen = piped(
              [&](FILE* f) {
                std::string got(sent.size() + 100, 0);
                std::size_t n = fread(got.data(), 1, 10, f);
                n += fread(got.data() + n, 1, 100'000, f);
                n += fread(got.data() + n, 1, got.size() - n, f);
                got.resize(n);
                return std::string(got == sent ? "same " : "different ") + (feof(f) ? "end " : "");
              },
              [&](FILE* f) {
                written = fwrite(sent.data(), 1, 1, f);
                written += fwrite(sent.data() + 1, 3, 7, f) * 3;
                written += fwrite(sent.data() + 22, 1, sent.size() - 22, f);
              });
          return seen + std::to_string(written);
        },
        "same end 307200");
  }

  TEST_CASE("printf and scanf, each by its own rules of what it takes") {
    intercepted(
        [] {
          return piped(
              [](FILE* f) {
                int a = 0;
                double b = 0;
                char word[16] = "";
                const int n = fscanf(f, "%d, %lf %15s", &a, &b, word);
                std::string seen = std::to_string(n) + ' ' + std::to_string(a) + ' ' +
                                   std::to_string(b) + ' ' + word;
                char rest = 0;
                if (fread(&rest, 1, 1, f) == 1) seen += rest;
                seen += std::to_string(fscanf(f, "%d", &a));
                seen += static_cast<char>(getc(f));
                return seen;
              },
              [](FILE* f) {
                setvbuf(f, nullptr, _IONBF, 0);
                fprintf(f, "%d", 4);
                this_fiber::yield();
                fprintf(f, "%d, %g w", 2, 0.5);
                this_fiber::yield();
                fprintf(f, "ord\tx");
              });
        },
        "3 42 0.500000 word\t0x");
  }

  TEST_CASE("a long printf, and one into a stream that is buffered by lines") {
    intercepted(
        [] {
          return piped(
              [](FILE* f) {
                const std::string seen = lines_of(f);
                return std::to_string(seen.size()) + seen.substr(100'002);
              },
              [](FILE* f) {
                setvbuf(f, nullptr, _IOLBF, 0);
                fprintf(f, "%s\n", std::string(100'000, 'x').c_str());
                fputs("a\nb", f);
                fprintf(f, "%d\n%d", 1, 2);
              });
        },
        "100018><a\n><b1\n><2>end");
  }

  TEST_CASE("streams that are buffered by lines are written at each") {
    intercepted(
        [] {
          streams pipe;
          setvbuf(pipe.in(), nullptr, _IOLBF, 0);
          std::string seen = test::write_text(fileno(pipe.in()), "");
          fputs("a\nb", pipe.in());
          seen += test::read_text(fileno(pipe.out()));
          return seen;
        },
        "0a\n");
  }

  TEST_CASE("two fibers in one stream: calls are not mixed up") {
    intercepted(
        [] {
          streams pipe;
          std::string seen[2];
          std::vector<fiber> readers;
          for (std::string& mine : seen)
            readers.emplace_back([&mine, f = pipe.out()] {
              char text[5] = "";
              if (fread(text, 1, 4, f) == 4) mine = text;
            });
          fiber writer([&] { put_slowly(pipe.in(), "aaaabbbb"); });
          for (fiber& one : readers) one.join();
          writer.join();
          if (seen[0] > seen[1]) std::swap(seen[0], seen[1]);
          return seen[0] + seen[1];
        },
        "aaaabbbb");
  }

  TEST_CASE("a stream that a fiber has locked is its own, recursively") {
    intercepted(
        [] {
          streams pipe;
          std::string seen;
          bool locked = false;
          fiber owner([&] {
            flockfile(pipe.in());
            flockfile(pipe.in());
            locked = true;
            for (const char* c = "own"; *c != 0; ++c) {
              putc_unlocked(*c, pipe.in());
              this_fiber::yield();
            }
            funlockfile(pipe.in());
            this_fiber::yield();
            fputs("er ", pipe.in());
            funlockfile(pipe.in());
          });
          fiber other([&] {
            while (!locked) this_fiber::yield();
            seen = ftrylockfile(pipe.in()) == 0 ? "free " : "";
            fputs("other", pipe.in());
          });
          owner.join();
          other.join();
          pipe.close_in();
          return seen + test::read_text(fileno(pipe.out()));
        },
        "owner other");
  }

  TEST_CASE("a stream that a thread has locked is waited for") {
    intercepted(
        [] {
          streams pipe;
          std::atomic<bool> locked{false};
          std::atomic<bool> unlock{false};
          std::thread thread([&] {
            flockfile(pipe.in());
            locked = true;
            while (!unlock) std::this_thread::yield();
            fputs("thread ", pipe.in());
            funlockfile(pipe.in());
          });
          while (!locked) this_fiber::yield();
          fiber waits([&] {
            flockfile(pipe.in());
            fputs("fiber", pipe.in());
            funlockfile(pipe.in());
          });
          fiber lets([&] {
            this_fiber::yield();
            unlock = true;
          });
          lets.join();
          waits.join();
          thread.join();
          pipe.close_in();
          return test::read_text(fileno(pipe.out()));
        },
        "thread fiber");
  }

  TEST_CASE("errors are the stream's and errno's") {
    intercepted(
        [] {
          streams pipe;
          pipe.close_out();
          signal(SIGPIPE, SIG_IGN);
          std::string seen = fputs("x", pipe.in()) >= 0 ? "kept " : "";
          seen += fflush(pipe.in()) == EOF ? std::strerror(errno) : "?";
          seen += ferror(pipe.in()) ? " error" : "";
          seen +=
              fprintf(pipe.in(), "%s", std::string(10'000, 'x').c_str()) < 0 ? " again" : " fine";
          seen += pipe.close_in() == 0 ? " closed" : " ?";
          signal(SIGPIPE, SIG_DFL);
          return seen;
        },
        "kept Broken pipe error again closed");
  }

  TEST_CASE("closing a stream ends calls that are parked on its descriptor") {
    intercepted(
        [] {
          streams pipe;
          std::string seen;
          bool begun = false;
          fiber reader([&] {
            begun = true;
            seen = test::read_text(fileno(pipe.out()));
          });
          fiber closer([&] {
            while (!begun) this_fiber::yield();
            pipe.close_out();
          });
          reader.join();
          closer.join();
          return seen;
        },
        "Bad file descriptor");
  }

  TEST_CASE("a child's output by popen, and its end") {
    intercepted(
        [] {
          FILE* const f = popen("read x; echo got; exit 3", "r");
          if (f == nullptr) return std::string("no child");
          std::string seen = lines_of(f);
          const int status = pclose(f);
          return seen + std::to_string(WEXITSTATUS(status));
        },
        "<got\n>end3");
  }

  TEST_CASE("perror, to who has no room for it") {
    intercepted(
        [] {
          test::pipe_pair errors;
          fcntl(errors.in(), F_SETPIPE_SZ, 4096);
          const std::string full(4096, 'f');
          test::write_text(errors.in(), full);
          const int before = dup(STDERR_FILENO);
          dup2(errors.in(), STDERR_FILENO);
          fiber says([] {
            errno = EXDEV;
            perror("linking");
          });
          this_fiber::yield();
          test::read_text(errors.out(), full.size());
          says.join();
          dup2(before, STDERR_FILENO);
          close(before);
          return test::read_text(errors.out());
        },
        "linking: Invalid cross-device link\n");
  }

  TEST_CASE("a FIFO by fopen") {
    intercepted(
        [] {
          std::string name = "/tmp/tendril-XXXXXX";
          if (mkdtemp(name.data()) == nullptr) return std::string("no folder");
          const std::string path = name + "/fifo";
          if (mkfifo(path.c_str(), 0600) != 0) return std::string("no FIFO");
          std::string seen;
          fiber reader([&] {
            FILE* const f = fopen(path.c_str(), "r");
            seen = lines_of(f);
            fclose(f);
          });
          fiber writer([&] {
            FILE* const f = fopen(path.c_str(), "w");
            fputs("through\n", f);
            fclose(f);
          });
          reader.join();
          writer.join();
          unlink(path.c_str());
          rmdir(name.c_str());
          return seen;
        },
        "<through\n>end");
  }
}
