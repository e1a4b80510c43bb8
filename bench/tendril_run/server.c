// SPDX-License-Identifier: Apache-2.0
//
// A server with a thread for each connection, as plain as such servers are: HTTP/1.1, GET without a body, keep-alive. Each
// connection counts its requests in a thread-local and keeps a block under a key; what is not as it was is counted, and
// told with the sums by a request for /stats.
//
//   tendril-run-server PORT [KIB]    stacks of so many KiB; as it is: what libc gives threads

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static __thread long requests;
static pthread_key_t block_key;
static atomic_long wrong_locals;
static atomic_long wrong_values;
static pthread_mutex_t sums_lock = PTHREAD_MUTEX_INITIALIZER;
static long connections;
static long ended;
static long answered;

static int send_all(int fd, const char* text, size_t bytes) {
  while (bytes != 0) {
    const ssize_t sent = write(fd, text, bytes);
    if (sent <= 0) return 0;
    text += sent;
    bytes -= (size_t)sent;
  }
  return 1;
}

static int send_sums(int fd) {
  char body[300];
  char text[500];
  pthread_mutex_lock(&sums_lock);
  const int bytes =
      snprintf(body, sizeof body,
               "connections %ld ended %ld answered %ld wrong locals %ld wrong values %ld\n",
               connections, ended, answered, wrong_locals, wrong_values);
  pthread_mutex_unlock(&sums_lock);
  const int all =
      snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", bytes, body);
  return send_all(fd, text, (size_t)all);
}

static int answer_one(int fd, const char* request, long number) {
  static const char hello[] =
      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, World!";
  if (++requests != number) {
    atomic_fetch_add(&wrong_locals, 1);
    requests = number;
  }
  const long* const block = pthread_getspecific(block_key);
  if (block == NULL || *block != fd) atomic_fetch_add(&wrong_values, 1);
  if (strncmp(request, "GET /stats ", 11) == 0) return send_sums(fd);
  return send_all(fd, hello, sizeof hello - 1);
}

static void* serve(void* argument) {
  const int fd = (int)(long)argument;
  char room[4096];
  size_t used = 0;
  long number = 0;
  requests = 0;
  long* const block = malloc(sizeof *block);
  if (block != NULL) *block = fd;
  pthread_setspecific(block_key, block);
  pthread_mutex_lock(&sums_lock);
  ++connections;
  pthread_mutex_unlock(&sums_lock);
  for (int open = 1; open && used < sizeof room - 1;) {
    const ssize_t got = read(fd, room + used, sizeof room - 1 - used);
    if (got <= 0) break;
    used += (size_t)got;
    room[used] = '\0';
    for (char* end; open && (end = strstr(room, "\r\n\r\n")) != NULL;) {
      open = answer_one(fd, room, ++number);
      used -= (size_t)(end + 4 - room);
      memmove(room, end + 4, used + 1);
    }
  }
  close(fd);
  pthread_mutex_lock(&sums_lock);
  ++ended;
  answered += number;
  pthread_mutex_unlock(&sums_lock);
  return NULL;
}

int main(int count, char** arguments) {
  if (count != 2 && count != 3) {
    fprintf(stderr, "usage: tendril-run-server PORT [KIB]\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  pthread_key_create(&block_key, free);
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in here = {.sin_family = AF_INET,
                             .sin_port = htons((in_port_t)atoi(arguments[1])),
                             .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  if (bind(listener, (struct sockaddr*)&here, sizeof here) != 0 || listen(listener, 4096) != 0) {
    perror(arguments[1]);
    return 1;
  }
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  if (count == 3 && pthread_attr_setstacksize(&detached, (size_t)atoi(arguments[2]) << 10) != 0) {
    fprintf(stderr, "stacks of %s KiB: too small\n", arguments[2]);
    return 2;
  }
  for (;;) {
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0) continue;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    pthread_t thread;
    if (pthread_create(&thread, &detached, serve, (void*)(long)fd) != 0) close(fd);
  }
}
