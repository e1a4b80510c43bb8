// SPDX-License-Identifier: Apache-2.0
//
// What is wrong with a call, libc's own says, on a fiber as on a thread: the same calls are made on both, and
// must come to the same.
#include "intercept/intercepted.hpp"

#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <climits>
#include <cstdio>
#include <vector>

using namespace tendril;
using test::intercepted;

namespace {

/// Something that compilers do not look through.
template <class T>
T opaque(T value) {
  asm volatile("" : "+r"(value) : : "memory");
  return value;
}

std::string all_calls() {
  std::string seen;
  const auto say = [&](const char* name, long n) {
    seen.append(name).append(": ");
    if (n < 0) seen.append(std::strerror(errno));
    else seen.append(std::to_string(n));
    seen.append("\n");
    errno = 0;
  };
  test::pipe_pair through;
  test::socket_pair ends;
  test::write_text(through.in(), "x");
  test::write_text(ends.there(), "x");
  void* const nowhere = opaque(reinterpret_cast<void*>(8));
  char byte;
  say("read -1", read(-1, &byte, 1));
  say("read closed", read(opaque(900'000), &byte, 1));
  say("read beyond", read(INT_MAX, &byte, 1));
  say("read wrong end", read(through.in(), &byte, 1));
  say("read nowhere", read(through.out(), nowhere, 1));
  say("read nothing", read(ends.here(), &byte, 0));
  say("write -1", write(-1, &byte, 1));
  say("write wrong end", write(through.out(), &byte, 1));
  say("write nowhere", write(through.in(), nowhere, 1));
  say("write nothing", write(through.in(), &byte, 0));
  say("recv no socket", recv(through.out(), &byte, 1, 0));
  say("recv nowhere", recv(ends.here(), nowhere, 1, 0));
  say("send no socket", send(through.in(), &byte, 1, 0));
  say("send nowhere", send(ends.here(), nowhere, 1, 0));
  say("recvmsg nowhere", recvmsg(ends.here(), static_cast<msghdr*>(nowhere), 0));
  say("sendmsg nowhere", sendmsg(ends.here(), static_cast<msghdr*>(nowhere), 0));
  say("readv nowhere", readv(ends.here(), static_cast<iovec*>(nowhere), 1));
  say("readv none", readv(ends.here(), nullptr, 0));
  say("readv too many", readv(ends.here(), static_cast<iovec*>(nowhere), opaque(IOV_MAX + 1)));
  say("readv negative", readv(ends.here(), static_cast<iovec*>(nowhere), opaque(-1)));
  say("writev nowhere", writev(through.in(), static_cast<iovec*>(nowhere), 1));
  say("accept no socket", accept(through.in(), nullptr, nullptr));
  say("accept not listening", accept(ends.here(), nullptr, nullptr));
  say("accept not listening, silent", accept(ends.there(), nullptr, nullptr));
  say("connect no socket", connect(through.in(), static_cast<sockaddr*>(nowhere), 4));
  say("connect nowhere", connect(ends.here(), static_cast<sockaddr*>(nowhere), sizeof(sockaddr)));
  say("poll nowhere", poll(static_cast<pollfd*>(nowhere), 1, 1));
  pollfd set[3] = {{-1, POLLIN, 7}, {opaque(900'000), POLLIN, 0}, {ends.here(), POLLIN, 0}};
  say("poll", poll(set, 3, -1));
  for (const pollfd& p : set) say(" has", p.revents);
  say("poll nobody", poll(nullptr, 0, 1));
  say("poll one who is nobody", poll(set, 1, 1));
  const timespec bad{0, -1};
  say("ppoll bad time", ppoll(set, 1, &bad, nullptr));
  fd_set some;
  FD_ZERO(&some);
  FD_SET(1000, &some);
  timeval moment{0, 1000};
  say("select closed", select(1001, &some, nullptr, nullptr, &moment));
  say("select negative", select(opaque(-1), &some, nullptr, nullptr, &moment));
  say("select nowhere", select(1, static_cast<fd_set*>(nowhere), nullptr, nullptr, &moment));
  timeval wrong{-1, 0};
  say("select bad time", select(0, nullptr, nullptr, nullptr, &wrong));
  epoll_event event;
  say("epoll_wait no set", epoll_wait(ends.here(), &event, 1, 1));
  say("epoll_wait -1", epoll_wait(-1, &event, 1, 1));
  const int events = epoll_create1(0);
  say("epoll_wait no room", epoll_wait(events, &event, 0, 1));
  say("close", close(events));
  say("close again", close(events));
  say("dup2 of a closed one", dup2(events, ends.here()));
  say("read after it", read(ends.here(), &byte, 1));
  say("fcntl -1", fcntl(-1, F_SETFL, 0));
  struct flock lock {};
  say("fcntl lock -1", fcntl(-1, F_SETLKW, &lock));
  say("fcntl lock a pipe", fcntl(through.out(), F_SETLKW, &lock));
  say("fcntl lock nowhere", fcntl(through.out(), F_SETLKW, nowhere));
  lock.l_pid = 1;
  say("fcntl lock with a process", fcntl(through.out(), F_OFD_SETLKW, &lock));
  const int file = open("/proc/self/exe", O_RDONLY);
  say("sendfile -1", sendfile(-1, file, nullptr, 1));
  say("sendfile from a pipe", sendfile(ends.here(), through.out(), nullptr, 1));
  say("sendfile nowhere", sendfile(ends.here(), file, static_cast<off_t*>(nowhere), 1));
  say("splice files", splice(file, nullptr, file, nullptr, 1, 0));
  say("splice at an offset of a pipe",
      splice(through.out(), static_cast<off64_t*>(nowhere), through.in(), nullptr, 1, 0));
  say("splice wrong flags", splice(through.out(), nullptr, through.in(), nullptr, 1, 0x1000));
  say("splice sockets", splice(ends.there(), nullptr, ends.there(), nullptr, 1, 0));
  say("tee itself", tee(through.out(), through.in(), 1, 0));
  say("tee a socket", tee(ends.here(), through.in(), 1, 0));
  close(file);
  say("waitpid nobody", waitpid(getpid(), nullptr, 0));
  say("waitpid wrong options", waitpid(getpid(), nullptr, opaque(0x4000)));
  say("waitid no options", waitid(P_PID, 1, nullptr, opaque(0)));
  say("waitid no process",
      waitid(static_cast<idtype_t>(3), static_cast<id_t>(through.in()), nullptr, WEXITED));
  say("sigwaitinfo nowhere", sigwaitinfo(static_cast<sigset_t*>(nowhere), nullptr));
  sigset_t signals;
  sigemptyset(&signals);
  say("sigtimedwait bad time", sigtimedwait(&signals, nullptr, &bad));
  const int counter = eventfd(0, 0);
  say("eventfd short read", read(counter, &byte, 1));
  say("eventfd short write", write(counter, &byte, 1));
  close(counter);
  const timespec negative{-1, 0};
  say("epoll_wait nowhere",
      epoll_wait(opaque(1'000'000), static_cast<epoll_event*>(nowhere), 1, 1));
  say("epoll_pwait2 bad time", epoll_pwait2(-1, &event, 1, &bad, nullptr));
  say("epoll_pwait2 nowhen", epoll_pwait2(-1, &event, 1, static_cast<timespec*>(nowhere), nullptr));
  rlimit most;
  getrlimit(RLIMIT_NOFILE, &most);
  if (most.rlim_cur < 2'000'000) {
    std::vector<pollfd> many(most.rlim_cur + 1, pollfd{-1, 0, 0});
    say("poll more than there may be", poll(many.data(), many.size(), -1));
  }
  say("ppoll negative time", ppoll(set, 1, &negative, nullptr));
  say("pselect negative time", pselect(0, nullptr, nullptr, nullptr, &negative, nullptr));
  say("nanosleep bad time", nanosleep(&bad, nullptr));
  say("nanosleep negative time", nanosleep(&negative, nullptr));
  say("nanosleep nowhere", nanosleep(static_cast<timespec*>(nowhere), nullptr));
  say("clock_nanosleep no clock", clock_nanosleep(opaque(77), 0, &bad, nullptr));
  say("clock_nanosleep bad time", clock_nanosleep(CLOCK_REALTIME, 0, &bad, nullptr));
  say("clock_nanosleep nowhere",
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, static_cast<timespec*>(nowhere), nullptr));
  say("sigtimedwait nowhere", sigtimedwait(&signals, nullptr, static_cast<timespec*>(nowhere)));
  mmsghdr messages[2]{};
  timespec again = bad;
  say("recvmmsg bad time", recvmmsg(ends.there(), messages, 2, 0, &again));
  say("recvmmsg nowhere", recvmmsg(ends.there(), static_cast<mmsghdr*>(nowhere), 1, 0, nullptr));
  say("recvmmsg nowhen", recvmmsg(ends.there(), messages, 1, 0, static_cast<timespec*>(nowhere)));
  say("sendmmsg no socket", sendmmsg(through.in(), messages, 1, 0));
  say("accept4 wrong flags", accept4(ends.there(), nullptr, nullptr, opaque(1)));
  say("preadv2 wrong flags", preadv2(through.out(), nullptr, 0, -1, opaque(0x4000)));
  say("pipe nowhere", pipe(static_cast<int*>(nowhere)));
  say("socketpair nowhere", socketpair(AF_UNIX, SOCK_STREAM, 0, static_cast<int*>(nowhere)));
  say("close -1", close(-1));
  say("close beyond", close(INT_MAX));
  say("close_range backwards", close_range(opaque(7U), 6, 0));
  say("dup beyond", dup2(through.out(), opaque(INT_MAX)));
  say("flock -1", flock(-1, LOCK_EX));
  say("flock wrong operation", flock(through.out(), opaque(77)));
  say("lockf -1", lockf(-1, F_LOCK, 0));
  say("fsync -1", fsync(-1));
  say("fsync a pipe", fsync(through.in()));
  say("open nowhere", open(static_cast<const char*>(nowhere), O_RDONLY));
  say("open nothing", open("", O_RDONLY));
  struct stat about;
  say("stat nowhere", stat(static_cast<const char*>(nowhere), &about));
  say("stat nothing", stat("/nonexistent/file", &about));
  say("msgrcv no queue", msgrcv(-1, &about, 1, 0, 0));
  say("msgsnd no queue", msgsnd(-1, &about, 1, 0));
  sembuf operation{};
  say("semop no set", semop(-1, &operation, 1));
  say("mq_receive no queue", mq_receive(-1, &byte, 1, nullptr));
  say("wait nobody", wait(nullptr));
  const int directory = open("/", O_RDONLY);
  say("read a directory", read(directory, &byte, 1));
  say("write a directory", write(directory, &byte, 1));
  close(directory);
  return seen;
}

}  // namespace

TEST_SUITE("arguments") {
  TEST_CASE("wrong ones have libc's own answer") {
    const std::string plain = all_calls();
    CAPTURE(plain);
    intercepted([] { return all_calls(); }, plain);
  }

  TEST_CASE("errno is left alone by what succeeds, though it had to wait") {
    intercepted(
        [] {
          test::socket_pair ends(SOCK_DGRAM);
          test::pipe_pair through;
          std::string seen;
          fiber reader([&] {
            errno = EXDEV;
            seen += test::read_text(ends.here());
            seen += test::read_text(through.out());
            pollfd one{ends.here(), POLLIN, 0};
            if (poll(&one, 1, -1) != 1) seen += "?";
            seen += errno == EXDEV ? " kept" : " changed";
          });
          fiber writer([&] {
            this_fiber::yield();
            test::write_text(ends.there(), "a");
            this_fiber::yield();
            test::write_text(through.in(), "b");
            this_fiber::yield();
            test::write_text(ends.there(), "c");
          });
          reader.join();
          writer.join();
          return seen;
        },
        "ab kept");
  }
}
