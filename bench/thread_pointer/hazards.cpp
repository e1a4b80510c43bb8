// SPDX-License-Identifier: Apache-2.0
//
// Runs each case in a child, because most of the wrong answers are crashes.
#include "bench/thread_pointer/hazard.hpp"
#include "bench/thread_pointer/parts.hpp"

#include <gnu/libc-version.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>

namespace bench::thread_pointer {
namespace {

constexpr unsigned seconds_to_live = 20;

/// What the case answers, or what the child dies of and said last.
std::string outcome_of(const hazard& h, furnishing how) {
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("no pipe");
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("no child process");
  if (child == 0) {
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::dup2(ends[1], STDERR_FILENO);
    ::alarm(seconds_to_live);
    std::string answer;
    try {
      answer = h.find_out(how);
    } catch (const std::exception& e) {
      answer = std::string("failed: ") + e.what();
    }
    ::_exit(::write(ends[1], answer.data(), answer.size()) < 0 ? 1 : 0);
  }
  ::close(ends[1]);
  std::string text;
  char room[256];
  for (ssize_t n; (n = ::read(ends[0], room, sizeof room)) > 0;)
    text.append(room, static_cast<std::size_t>(n));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  if (!WIFSIGNALED(status)) return text;
  if (WTERMSIG(status) == SIGALRM) return "hangs";
  return std::string("SIG") + ::sigabbrev_np(WTERMSIG(status)) + (text.empty() ? "" : ": " + text);
}

}  // namespace

bool print_hazards(bool check) {
  const bool same_libc = std::strcmp(::gnu_get_libc_version(), "2.36") == 0;
  if (check && !same_libc)
    std::printf(
        "glibc is %s: only that all cases come to an end is checked, the page is about 2.36\n",
        ::gnu_get_libc_version());
  auto all = hazards_of_threads();
  for (hazard& h : hazards_of_the_system()) all.push_back(h);
  std::puts(
      "| on a block of no thread | right | bare | furnished | numbered |\n|---|---|---|---|---|");
  int differ = 0;
  std::string differences;
  for (const hazard& h : all) {
    const std::array<const char*, 3> expected{h.bare, h.furnished, h.numbered};
    std::printf("| %s | %s |", h.name, h.right);
    for (const furnishing how : {furnishing::bare, furnishing::furnished, furnishing::numbered}) {
      const std::string got = outcome_of(h, how);
      const char* e = expected[static_cast<std::size_t>(how)];
      if (e == nullptr) e = h.right;
      if (got != e && (same_libc || got == "hangs")) {
        ++differ;
        differences += std::string(h.name) + ": expected '" + e + "', got '" + got + "'\n";
      }
      std::printf(" %s |", got == h.right ? "" : got.c_str());
    }
    std::puts("");
  }
  if (check && differ != 0) std::fprintf(stderr, "%s%d differ\n", differences.c_str(), differ);
  return !check || differ == 0;
}

}  // namespace bench::thread_pointer
