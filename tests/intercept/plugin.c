/* SPDX-License-Identifier: Apache-2.0
 *
 * Somebody's library, loaded at run time and compiled with the checks that distributions turn on: its calls of
 * read() and its kin go by other names (__read_chk...), since the sizes are not known when it is compiled. */
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

ssize_t plugin_read(int fd, char* to, size_t bytes);
ssize_t plugin_recv(int fd, char* to, size_t bytes);
int plugin_poll(int fd, nfds_t count);

ssize_t plugin_read(int fd, char* to, size_t bytes) {
  char buffer[64];
  const ssize_t n = read(fd, buffer, bytes);
  if (n > 0) memcpy(to, buffer, (size_t)n);
  return n;
}

ssize_t plugin_recv(int fd, char* to, size_t bytes) {
  char buffer[64];
  const ssize_t n = recv(fd, buffer, bytes, 0);
  if (n > 0) memcpy(to, buffer, (size_t)n);
  return n;
}

int plugin_poll(int fd, nfds_t count) {
  struct pollfd set[2] = {{fd, POLLIN, 0}, {-1, 0, 0}};
  return poll(set, count, -1);
}
