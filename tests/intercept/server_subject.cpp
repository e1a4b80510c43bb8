// SPDX-License-Identifier: Apache-2.0
//
//   intercept_server_subject HOW WORKERS     a server that is stopped by SIGTERM, as many are written
//
//   HOW   stop     the handler sets a flag, and accept() returns EINTR
//         restart  with SA_RESTART: accept() goes on, and the flag is looked at after the next connection; the handler
//                  writes a mark
//
// It writes the port that it listens to, sends a letter to whoever connects, and ends with status 7.
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

volatile sig_atomic_t stop = 0;
void on_term(int) { stop = 1; }
void on_term_telling(int) {
  stop = 1;
  if (write(STDOUT_FILENO, "!", 1) != 1) std::abort();
}

int serve() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(fd, 8) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) != 0)
    return 1;
  std::printf("%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  int served = 0;
  while (!stop) {
    const int peer = accept(fd, nullptr, nullptr);
    if (peer < 0 && errno == EINTR) continue;
    if (peer < 0) return 2;
    ++served;
    tendril::fiber([peer] {
      if (write(peer, "x", 1) != 1) std::abort();
      char byte = 0;
      if (read(peer, &byte, 1) < 0) std::abort();  // until the client closes
      close(peer);
    }).detach();
  }
  std::printf("served %d\n", served);
  return 7;
}

}  // namespace

int main(int, char** arguments) {
  struct sigaction action {};
  const bool restarts = std::strcmp(arguments[1], "restart") == 0;
  action.sa_handler = restarts ? &on_term_telling : &on_term;
  action.sa_flags = restarts ? SA_RESTART : 0;
  sigaction(SIGTERM, &action, nullptr);
  tendril::runtime rt({.workers = static_cast<unsigned>(std::atoi(arguments[2]))});
  const int status = rt.run(&serve);
  rt.drain();
  return status;
}
