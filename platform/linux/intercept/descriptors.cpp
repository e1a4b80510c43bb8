// SPDX-License-Identifier: Apache-2.0
//
// Wrappers of calls on descriptors that are not like the others: those that return their descriptors in an array,
// and the checked versions that compilers put in the place of read() and its kin (_FORTIFY_SOURCE). These
// check that the buffer has room, which libc's own does when it has none: it ends the program.
#include "platform/linux/intercept/front.hpp"

using namespace tendril::platform::front;

extern "C" {

int front_socketpair(int family, int type, int protocol, int* ends) {
  const int result = real.socketpair(family, type, protocol, ends);
  if (result == 0) told(ends[0]), told(ends[1]);
  return result;
}

int front_pipe(int* ends) {
  const int result = real.pipe(ends);
  if (result == 0) told(ends[0]), told(ends[1]);
  return result;
}

int front_pipe2(int* ends, int flags) {
  const int result = real.pipe2(ends, flags);
  if (result == 0) told(ends[0]), told(ends[1]);
  return result;
}

int front_signalfd(int fd, const sigset_t* mask, int flags) {
  const int result = real.signalfd(fd, mask, flags);
  return fd == -1 ? told(result) : result;  // else it is the one that was given
}

ssize_t front___read_chk(int fd, void* to, size_t bytes, size_t room) {
  return bytes <= room ? front_read(fd, to, bytes) : real.__read_chk(fd, to, bytes, room);
}

ssize_t front___recv_chk(int fd, void* to, size_t bytes, size_t room, int flags) {
  return bytes <= room ? front_recv(fd, to, bytes, flags)
                       : real.__recv_chk(fd, to, bytes, room, flags);
}

ssize_t front___recvfrom_chk(int fd, void* to, size_t bytes, size_t room, int flags,
                             struct sockaddr* from, socklen_t* length) {
  return bytes <= room ? front_recvfrom(fd, to, bytes, flags, from, length)
                       : real.__recvfrom_chk(fd, to, bytes, room, flags, from, length);
}

int front___poll_chk(struct pollfd* set, nfds_t count, int timeout, size_t room) {
  return count <= room / sizeof(struct pollfd) ? front_poll(set, count, timeout)
                                               : real.__poll_chk(set, count, timeout, room);
}

int front___ppoll_chk(struct pollfd* set, nfds_t count, const struct timespec* timeout,
                      const sigset_t* mask, size_t room) {
  return count <= room / sizeof(struct pollfd) ? front_ppoll(set, count, timeout, mask)
                                               : real.__ppoll_chk(set, count, timeout, mask, room);
}
}
