// SPDX-License-Identifier: Apache-2.0
//
// Calls that are libc's as they are, on a disk's pool or a thread of their own: that what they return comes back, and where
// they were made.
#include "intercept/waiting.hpp"

#include <aio.h>
#include <dirent.h>
#include <netdb.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <syslog.h>
#include <termios.h>
#include <unistd.h>
#include <wordexp.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

using namespace tendril;
using test::both;
using test::elsewhere;
using test::intercepted;
using test::said;

namespace {

/// A folder, gone at the end with what is in it.
class folder {
 public:
  folder() {
    if (mkdtemp(path_) == nullptr) std::abort();
  }
  ~folder() {
    for (const char* name : {"a", "b", "c", "d"}) unlink(at(name).c_str());
    rmdir(path_);
  }
  folder(const folder&) = delete;
  folder& operator=(const folder&) = delete;
  std::string at(const char* name) const { return std::string(path_).append("/").append(name); }
  const char* path() const noexcept { return path_; }

 private:
  char path_[32] = "/tmp/tendril-XXXXXX";
};

}  // namespace

TEST_SUITE("files") {
  TEST_CASE("links are made, read and followed") {
    intercepted(
        [] {
          const folder f;
          close(open(f.at("a").c_str(), O_CREAT | O_WRONLY, 0600));
          std::string seen = said(link(f.at("a").c_str(), f.at("b").c_str()));
          seen += said(symlink("a", f.at("c").c_str())) + ' ';
          char target[16] = {};
          seen += said(readlink(f.at("c").c_str(), target, sizeof target)) + target;
          const std::unique_ptr<char, decltype(&std::free)> real(
              realpath(f.at("c").c_str(), nullptr), &std::free);
          seen += real != nullptr && f.at("a") == real.get() ? " same" : " another";
          return seen + ' ' + said(readlink(f.at("none").c_str(), target, sizeof target));
        },
        "00 1a same No such file or directory");
  }

  TEST_CASE("what is known of a file is changed") {
    intercepted(
        [] {
          const folder f;
          const std::string a = f.at("a");
          close(open(a.c_str(), O_CREAT | O_WRONLY, 0600));
          const timespec times[2] = {{1000, 0}, {2000, 0}};
          std::string seen = said(chmod(a.c_str(), 0640));
          seen += said(utimensat(AT_FDCWD, a.c_str(), times, 0));
          seen += said(chown(a.c_str(), getuid(), getgid()));
          struct stat s {};
          stat(a.c_str(), &s);
          seen +=
              s.st_mtim.tv_sec == 2000 && (s.st_mode & 0777) == 0640 ? " changed " : " as before ";
          struct statvfs v {};
          struct statfs w {};
          seen += said(statvfs(a.c_str(), &v)) + said(statfs(a.c_str(), &w));
          seen += v.f_namemax != 0 && w.f_bsize != 0 ? " known" : " unknown";
          return seen + said(faccessat(AT_FDCWD, a.c_str(), R_OK, 0));
        },
        "000 changed 00 known0");
  }

  TEST_CASE("a folder is read; temporary files are made and copied") {
    intercepted(
        [] {
          const folder f;
          std::string name = f.at("aXXXXXX");
          const int from = mkstemp(name.data());
          const int to = test::nameless();
          std::string seen = test::write_text(from, "abc") + ' ';
          off64_t begin = 0;
          seen += said(copy_file_range(from, &begin, to, nullptr, 10, 0)) + ' ';
          DIR* const d = opendir(f.path());
          int count = 0;
          while (const dirent* const e = readdir(d)) count += std::strlen(e->d_name) == 7;
          closedir(d);
          seen += std::to_string(count);
          unlink(name.c_str());
          close(from);
          close(to);
          std::FILE* const t = tmpfile();
          seen += t != nullptr ? " made" : " failed";
          std::fclose(t);
          return seen;
        },
        "3 3 1 made");
  }
}

TEST_SUITE("aside") {
  TEST_CASE("asynchronous I/O is waited for while other fibers run") {
    intercepted(
        [] {
          // In no stack: libc's threads write there.
          static aiocb block;
          static const aiocb* list[1] = {&block};
          static char room[8];
          block = {};
          std::fill(std::begin(room), std::end(room), 0);
          test::pipe_pair ends;
          block.aio_fildes = ends.out();
          block.aio_buf = room;
          block.aio_nbytes = sizeof room;
          std::string seen;
          seen += elsewhere("aio_suspend", [&] {
            seen += both(
                [&] {
                  const std::string begun = said(aio_read(&block));
                  return begun + said(aio_suspend(list, 1, nullptr));
                },
                [&] { test::write_text(ends.in(), "abc"); });
          });
          return seen + ' ' + said(aio_return(&block)) + ' ' + room;
        },
        "00, elsewhere 1 3 abc");
  }

  TEST_CASE("words are expanded, by a shell where they need one") {
    intercepted(
        [] {
          std::string seen;
          for (const int flags : {0, static_cast<int>(WRDE_NOCMD)})
            seen += elsewhere("wordexp", [&] {
              wordexp_t words{};
              seen += std::to_string(wordexp("x$(echo yes) 'a b'", &words, flags)) + ' ';
              if (words.we_wordc == 2)
                seen.append(words.we_wordv[0]).append("|").append(words.we_wordv[1]);
              wordfree(&words);
            });
          return seen;
        },
        "0 xyes|a b, elsewhere 14 , elsewhere 0");
  }

  TEST_CASE("terminals: what waits for output is made elsewhere") {
    intercepted(
        [] {
          int master = -1, slave = -1;
          if (openpty(&master, &slave, nullptr, nullptr, nullptr) != 0) return said(-1);
          std::string seen;
          seen += elsewhere("tcdrain", [&] { seen += said(tcdrain(slave)); });
          seen += elsewhere("tcsetattr", [&] {
            termios now{};
            tcgetattr(slave, &now);
            seen += ' ' + said(tcsetattr(slave, TCSANOW, &now)) +
                    said(tcsetattr(slave, TCSADRAIN, &now));
          });
          seen += ' ' + said(tcdrain(-1));
          close(master);
          close(slave);
          return seen;
        },
        "0, elsewhere 1 00, elsewhere 1 Bad file descriptor");
  }

  TEST_CASE("a netgroup that is none") {
    intercepted(
        [] {
          std::string seen;
          seen += elsewhere(
              "innetgr", [&] { seen += said(innetgr("tendril-none", "host", "user", "domain")); });
          return seen;
        },
        "0, elsewhere 1");
  }

  TEST_CASE("what goes to the log is formatted with the caller's errno") {
    intercepted(
        [] {
          test::pipe_pair ends;
          const int before = dup(2);
          dup2(ends.in(), 2);
          openlog("tendril-test", LOG_PERROR, LOG_USER);
          errno = ENOENT;
          const std::string format("%d, %m, %s");
          syslog(LOG_DEBUG, format.c_str(), 5, "%s");
          closelog();
          dup2(before, 2);
          close(before);
          return test::read_text(ends.out());
        },
        "tendril-test: 5, No such file or directory, %s\n");
  }
}
