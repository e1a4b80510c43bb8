// SPDX-License-Identifier: Apache-2.0
//
// A program that knows nothing of interception, to be run with the front preloaded: on one worker, that no
// other thread may replace, a fiber reads what another writes only afterwards. Without interception the
// first read would block the worker for ever.
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <system_error>

namespace {

std::string read_text(int fd) {
  char text[16];
  const ssize_t n = read(fd, text, sizeof text);
  return n < 0 ? std::strerror(errno) : std::string(text, static_cast<std::size_t>(n));
}

std::string talk() {
  int ends[2];
  int through[2];
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) != 0 || pipe(through) != 0) return "no descriptors";
  std::string seen;
  tendril::fiber reader([&] {
    seen += read_text(ends[0]);
    seen += read_text(through[0]);
    pollfd one{ends[0], POLLIN, 0};
    seen += poll(&one, 1, -1) == 1 ? read_text(ends[0]) : "poll";
  });
  tendril::fiber writer([&] {
    seen += "a";
    if (write(ends[1], "b", 1) != 1) seen += "write";
    tendril::this_fiber::yield();
    seen += "c";
    if (write(through[1], "d", 1) != 1) seen += "write";
    tendril::this_fiber::yield();
    seen += "e";
    if (write(ends[1], "f", 1) != 1) seen += "write";
  });
  reader.join();
  writer.join();
  for (const int fd : {ends[0], ends[1], through[0], through[1]}) close(fd);
  return seen;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc > 1 && std::strcmp(argv[1], "start-only") == 0) {
    const tendril::runtime started({.workers = 1});
    return 0;
  }
  tendril::stack_options stack;
  stack.kind = tendril::stack_kind::reserved;
  const std::string seen =
      tendril::run({.workers = 1, .stack = stack, .max_spare_threads = 0}, talk);
  std::printf("%s\n", seen.c_str());
  // Whether what was written is seen before the writer goes on is the scheduler's affair.
  const auto precedes = [&](char a, char b) {
    return seen.find(a) < seen.find(b) && seen.find(b) != std::string::npos;
  };
  return seen.size() == 6 && precedes('a', 'b') && precedes('c', 'd') && precedes('e', 'f') ? 0 : 1;
} catch (const std::system_error& e) {  // the front is of another version
  std::fprintf(stderr, "%s\n", e.what());
  return 2;
}
