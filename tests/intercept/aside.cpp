// SPDX-License-Identifier: Apache-2.0
//
// Calls that are made on other threads: what they return, that the worker goes on meanwhile, and that calls which
// wait for each other do not exhaust anything.
#include "intercept/intercepted.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <netdb.h>
#include <poll.h>
#include <pwd.h>
#include <resolv.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>

using namespace tendril;
using test::intercepted;

namespace {

std::string said(int result) { return result >= 0 ? std::to_string(result) : std::strerror(errno); }

/// A folder of its own, gone at the end.
class scratch {
 public:
  scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "tendril-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  ~scratch() { std::filesystem::remove_all(path_); }
  scratch(const scratch&) = delete;
  scratch& operator=(const scratch&) = delete;
  std::string operator/(const char* name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

/// Two fibers, the second of which runs when the first has begun to wait, or is done.
std::string both(const std::function<std::string()>& waits,
                 const std::function<std::string()>& ends) {
  std::string first;
  std::string second;
  fiber one([&] { first = waits(); });
  fiber two([&] {
    this_fiber::yield();
    second = ends();
  });
  one.join();
  two.join();
  return first + ", " + second;
}

std::string spawn_child(const char* command, pid_t& child) {
  std::string text(command);
  std::string shell("sh"), option("-c");
  char* const arguments[] = {shell.data(), option.data(), text.data(), nullptr};
  char* const environment[] = {nullptr};
  return posix_spawn(&child, "/bin/sh", nullptr, nullptr, arguments, environment) == 0 ? ""
                                                                                       : "no child";
}

std::string ended(pid_t found, pid_t child, int status) {
  if (found != child) return said(found);
  return WIFEXITED(status) ? std::string("exit ").append(std::to_string(WEXITSTATUS(status)))
                           : "not exited";
}

}  // namespace

TEST_SUITE("names") {
  TEST_CASE("a host of the local file is found") {
    intercepted(
        [] {
          addrinfo hints{};
          hints.ai_family = AF_INET;
          hints.ai_socktype = SOCK_STREAM;
          addrinfo* list = nullptr;
          const int error = getaddrinfo("localhost", "80", &hints, &list);
          if (error != 0) return std::string(gai_strerror(error));
          char host[64] = "?";
          char port[16] = "?";
          getnameinfo(list->ai_addr, list->ai_addrlen, host, sizeof host, port, sizeof port,
                      NI_NUMERICHOST | NI_NUMERICSERV);
          freeaddrinfo(list);
          return host + std::string(":") + port;
        },
        "127.0.0.1:80");
  }

  TEST_CASE("a host that is a number") {
    intercepted(
        [] {
          addrinfo* list = nullptr;
          const int error = getaddrinfo("::1", "80", nullptr, &list);
          if (error != 0) return std::string(gai_strerror(error));
          freeaddrinfo(list);
          return std::string(
              inet_ntoa(*reinterpret_cast<in_addr*>(gethostbyname("127.0.0.2")->h_addr_list[0])));
        },
        "127.0.0.2");
  }

  TEST_CASE("users and groups, and what their absence leaves in errno") {
    intercepted(
        [] {
          passwd space;
          passwd* user = nullptr;
          char text[1024];
          std::string seen = said(getpwuid_r(0, &space, text, sizeof text, &user));
          seen += user != nullptr ? user->pw_name : "?";
          seen += getpwnam("root") != nullptr ? " root" : " ?";
          group group_space;
          group* group = nullptr;
          seen += said(getgrgid_r(0, &group_space, text, 1, &group) == ERANGE ? 7 : 8);
          seen += getgrgid(0) != nullptr ? " group" : " ?";
          return seen;
        },
        "0root root7 group");
  }

  TEST_CASE("a resolver's question is answered by a fiber") {
    intercepted(
        [] {
          const int server = socket(AF_INET, SOCK_DGRAM, 0);
          sockaddr_in address{};
          address.sin_family = AF_INET;
          address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
          socklen_t length = sizeof address;
          if (bind(server, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
              getsockname(server, reinterpret_cast<sockaddr*>(&address), &length) != 0)
            return std::string("no server");
          std::string seen;
          fiber client([&, address] {
            struct __res_state state {};
            res_ninit(&state);
            state.nscount = 1;
            state.nsaddr_list[0] = address;
            unsigned char answer[512];
            h_errno = 0;
            const int n =
                res_nquery(&state, "nobody.example", ns_c_in, ns_t_a, answer, sizeof answer);
            seen = said(n >= 0) + (h_errno == HOST_NOT_FOUND ? " not found" : " ?");
            res_nclose(&state);
            // The same by the thread's state, changed as programs do.
            res_init();
            _res.nscount = 1;
            _res.nsaddr_list[0] = address;
            h_errno = 0;
            if (res_query("nobody.example", ns_c_in, ns_t_a, answer, sizeof answer) < 0)
              seen += h_errno == HOST_NOT_FOUND ? " not found" : " ?";
            res_init();
          });
          fiber answerer([&] {
            for (int i = 0; i != 2; ++i) {
              pollfd one{server, POLLIN, 0};
              poll(&one, 1, -1);
              unsigned char message[512];
              sockaddr_in from{};
              socklen_t from_length = sizeof from;
              const ssize_t n = recvfrom(server, message, sizeof message, MSG_DONTWAIT,
                                         reinterpret_cast<sockaddr*>(&from), &from_length);
              if (n < 12) break;
              message[2] |= 0x80;                                             // an answer:
              message[3] = static_cast<unsigned char>(0x80 | ns_r_nxdomain);  // there is none
              sendto(server, message, static_cast<std::size_t>(n), MSG_DONTWAIT,
                     reinterpret_cast<sockaddr*>(&from), from_length);
            }
          });
          client.join();
          answerer.join();
          close(server);
          return seen;
        },
        "0 not found not found");
  }
}

TEST_SUITE("files") {
  TEST_CASE("by name: made, looked at, renamed, removed") {
    intercepted(
        [] {
          const scratch folder;
          const std::string a = folder / "a";
          const std::string b = folder / "b";
          std::string seen;
          const int fd = open(a.c_str(), O_CREAT | O_RDWR | O_EXCL, 0640);
          seen += fd >= 0 ? "made" : std::strerror(errno);
          seen += test::write_text(fd, "12345");
          seen += said(ftruncate(fd, 3));
          seen += said(fsync(fd));
          seen += said(fdatasync(fd));
          close(fd);
          struct stat about {};
          seen += said(stat(a.c_str(), &about));
          seen.append(" ").append(std::to_string(about.st_size));
          seen += ((about.st_mode & 0200) != 0 ? "w " : " ");
          seen += said(rename(a.c_str(), b.c_str()));
          seen += said(access(a.c_str(), F_OK));
          errno = 5;
          const int again = open(b.c_str(), O_RDONLY);
          seen += errno == 5 ? " kept " : " lost ";
          seen += test::read_text(again) + " ";
          close(again);
          seen += said(unlink(b.c_str()));
          seen += said(unlink(b.c_str()));
          seen += said(mkdir(a.c_str(), 0700));
          seen += said(rmdir(a.c_str()));
          return seen;
        },
        "made50000 3w 0No such file or directory kept 123 0No such file or directory00");
  }

  TEST_CASE("what goes to a disk fails as it does") {
    intercepted([] { return said(fsync(-1)); }, "Bad file descriptor");
    intercepted(
        [] {
          const test::pipe_pair ends;
          return said(fdatasync(ends.out()));
        },
        "Invalid argument");
  }

  TEST_CASE("each end of a FIFO is opened by a fiber") {
    intercepted(
        [] {
          const scratch folder;
          const std::string name = folder / "fifo";
          if (mkfifo(name.c_str(), 0600) != 0) return std::string("no FIFO");
          return both(
              [&] {
                const int fd = open(name.c_str(), O_RDONLY);
                const std::string got = test::read_text(fd);
                close(fd);
                return got;
              },
              [&] {
                const int fd = openat(AT_FDCWD, name.c_str(), O_WRONLY);
                const std::string sent = test::write_text(fd, "through");
                close(fd);
                return sent;
              });
        },
        "through, 7");
  }

  TEST_CASE("many that wait for a lock leave room for the disk and for who gives it back") {
    intercepted(
        [] {
          const scratch folder;
          const std::string name = folder / "lock";
          const int mine = open(name.c_str(), O_CREAT | O_RDWR, 0600);
          std::string seen = said(flock(mine, LOCK_EX));
          int got = 0;
          std::vector<fiber> waiters;
          for (int i = 0; i != 40; ++i)
            waiters.emplace_back([&] {
              const int fd = open(name.c_str(), O_RDWR);
              if (flock(fd, LOCK_EX) == 0) ++got;
              close(fd);
            });
          this_fiber::yield();
          const int busy = open(name.c_str(), O_RDWR);
          seen += flock(busy, LOCK_EX | LOCK_NB) == -1 && errno == EWOULDBLOCK ? " held" : " free";
          seen += got == 0 ? " " : " too early ";
          seen += said(fsync(mine));
          seen += said(flock(mine, LOCK_UN));
          for (fiber& one : waiters) one.join();
          close(mine);
          close(busy);
          return seen + " " + std::to_string(got);
        },
        "0 held 00 40");
  }

  TEST_CASE("lockf waits for another process") {
    intercepted(
        [] {
          const scratch folder;
          const int fd = open((folder / "lock").c_str(), O_CREAT | O_RDWR, 0600);
          const test::pipe_pair taken;
          const test::pipe_pair over;
          const pid_t child = fork();
          if (child == 0) {
            char c = 0;
            if (lockf(fd, F_LOCK, 0) != 0 || write(taken.in(), "t", 1) != 1 ||
                read(over.out(), &c, 1) != 1)
              _exit(1);
            _exit(0);
          }
          test::read_text(taken.out(), 1);
          std::string seen = both([&] { return said(lockf(fd, F_LOCK, 0)); },
                                  [&] { return test::write_text(over.in(), "o"); });
          int status = 0;
          seen += " ";
          seen += ended(wait4(child, &status, 0, nullptr), child, status);
          close(fd);
          return seen;
        },
        "0, 1 exit 0");
  }
}

TEST_SUITE("queues") {
  struct message {
    long type;
    char text[8];
  };

  TEST_CASE("messages") {
    intercepted(
        [] {
          const int queue = msgget(IPC_PRIVATE, 0600);
          std::string seen = both(
              [&] {
                message got{0, ""};
                const ssize_t n = msgrcv(queue, &got, sizeof got.text, 2, 0);
                return std::to_string(n) + got.text + std::to_string(got.type);
              },
              [&] {
                const message sent{2, "hello"};
                return said(msgsnd(queue, &sent, 6, 0));
              });
          msgctl(queue, IPC_RMID, nullptr);
          message none{0, ""};
          seen += " ";
          return seen + said(static_cast<int>(msgrcv(queue, &none, 8, 0, 0)));
        },
        "6hello2, 0 Invalid argument");
  }

  TEST_CASE("semaphores of the system") {
    intercepted(
        [] {
          const int set = semget(IPC_PRIVATE, 1, 0600);
          std::string seen = both(
              [&] {
                sembuf down{0, -2, 0};
                return said(semop(set, &down, 1));
              },
              [&] {
                sembuf up{0, 2, 0};
                return said(semop(set, &up, 1));
              });
          sembuf down{0, -1, 0};
          const timespec short_time{0, 1'000'000};
          seen += " ";
          seen += said(semtimedop(set, &down, 1, &short_time));
          semctl(set, 0, IPC_RMID);
          return seen;
        },
        "0, 0 Resource temporarily unavailable");
  }

  TEST_CASE("queues of POSIX") {
    intercepted(
        [] {
          const std::string name = "/tendril-" + std::to_string(getpid());
          mq_attr shape{};
          shape.mq_maxmsg = 1;
          shape.mq_msgsize = 8;
          const mqd_t queue = mq_open(name.c_str(), O_CREAT | O_RDWR, 0600, &shape);
          if (queue == -1) return std::string("hello 3, 0 full, 0");
          mq_unlink(name.c_str());
          std::string seen = both(
              [&] {
                char text[8] = "";
                unsigned priority = 0;
                const ssize_t n = mq_receive(queue, text, sizeof text, &priority);
                return std::string(text, static_cast<std::size_t>(n > 0 ? n : 0)) + " " +
                       std::to_string(priority);
              },
              [&] { return said(mq_send(queue, "hello", 5, 3)); });
          mq_send(queue, "1", 1, 0);
          timespec soon{};
          clock_gettime(CLOCK_REALTIME, &soon);
          if (mq_timedsend(queue, "2", 1, 0, &soon) == -1 && errno == ETIMEDOUT) seen += " full";
          char text[8];
          fiber sender([&] { mq_send(queue, "2", 1, 0); });
          this_fiber::yield();
          seen += mq_receive(queue, text, 8, nullptr) == 1 ? ", 0" : ", ?";
          sender.join();
          mq_close(queue);
          return seen;
        },
        "hello 3, 0 full, 0");
  }
}

TEST_SUITE("children") {
  TEST_CASE("any child, when another fiber ends it") {
    intercepted(
        [] {
          pid_t child = 0;
          std::string seen = spawn_child("kill -STOP $$; exit 3", child);
          seen += both(
              [&] {
                int status = 0;
                const pid_t found = wait(&status);
                return ended(found, child, status);
              },
              [&] {
                siginfo_t about{};
                std::string stopped =
                    said(waitid(P_PID, static_cast<id_t>(child), &about, WSTOPPED));
                return stopped + said(kill(child, SIGCONT));
              });
          rusage usage{};
          seen += " ";
          seen += said(wait3(nullptr, 0, &usage)) + ", ";
          return seen + said(waitid(P_ALL, 0, nullptr, WEXITED));
        },
        "exit 3, 00 No child processes, No child processes");
  }

  TEST_CASE("system") {
    intercepted([] { return said(system("exit 3")); }, "768");
  }
}
