// SPDX-License-Identifier: Apache-2.0
//
// Signals whose handlers interrupt calls that are made for fibers on other threads: the thread gives the call up, and what
// the fiber is told is what became of it.
#include "intercept/interrupting.hpp"

#include "sched/thread_stay.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <climits>
#include <cstdio>
#include <thread>
#include <vector>

using namespace tendril;
using test::check_always;
using test::check_interrupted;
using test::check_restarted;
using test::handled;
using test::handler_of;
using test::intercepted;
using test::said;
using test::signalled;

namespace {

struct message {
  long type;
  char text[8];
};

/// A queue of the system's that is not there any more at the end.
class message_queue {
 public:
  message_queue() : number_(msgget(IPC_PRIVATE, 0600)) {}
  ~message_queue() { msgctl(number_, IPC_RMID, nullptr); }
  message_queue(const message_queue&) = delete;
  message_queue& operator=(const message_queue&) = delete;
  int number() const noexcept { return number_; }

 private:
  int number_;
};

/// A file that is not there any more, opened twice.
class locked_file {
 public:
  locked_file() : first_(test::nameless()) {
    const std::string name = "/proc/self/fd/" + std::to_string(first_);
    second_ = open(name.c_str(), O_RDWR);
    if (second_ < 0) std::abort();
  }
  ~locked_file() {
    close(first_);
    close(second_);
  }
  locked_file(const locked_file&) = delete;
  locked_file& operator=(const locked_file&) = delete;
  int first() const noexcept { return first_; }
  int second() const noexcept { return second_; }

 private:
  int first_;
  int second_;
};

class fifo {
 public:
  fifo() {
    char folder[] = "/tmp/tendril-XXXXXX";
    if (mkdtemp(folder) == nullptr) std::abort();
    folder_ = folder;
    name_ = folder_ + "/fifo";
    if (mkfifo(name_.c_str(), 0600) != 0) std::abort();
  }
  ~fifo() {
    unlink(name_.c_str());
    rmdir(folder_.c_str());
  }
  fifo(const fifo&) = delete;
  fifo& operator=(const fifo&) = delete;
  const char* name() const noexcept { return name_.c_str(); }
  /// When somebody waits for it.
  void open_other_end() const {
    int fd = -1;
    while ((fd = open(name(), O_WRONLY | O_NONBLOCK)) < 0) this_fiber::yield();
    close(fd);
  }

 private:
  std::string folder_;
  std::string name_;
};

}  // namespace

TEST_SUITE("interrupted_aside") {
  TEST_CASE("locks on files, unless restarted; nothing is taken then") {
    const locked_file file;
    flock(file.first(), LOCK_EX);
    check_restarted(
        [&] {
          std::string seen = said(flock(file.second(), LOCK_EX));
          if (seen != "0") return seen;
          flock(file.second(), LOCK_UN);
          flock(file.first(), LOCK_EX);
          return seen;
        },
        [&] { flock(file.first(), LOCK_UN); }, "0");
    check_interrupted([&] { return said(flock(file.second(), LOCK_EX)); }, 0);
    flock(file.first(), LOCK_UN);
    CHECK(flock(file.first(), LOCK_EX | LOCK_NB) == 0);

    struct flock taken {};
    taken.l_type = F_WRLCK;
    struct flock freed {};
    freed.l_type = F_UNLCK;
    fcntl(file.first(), F_OFD_SETLK, &taken);
    check_restarted(
        [&] {
          struct flock mine = taken;
          std::string seen = said(fcntl(file.second(), F_OFD_SETLKW, &mine));
          if (seen != "0") return seen;
          fcntl(file.second(), F_OFD_SETLK, &freed);
          fcntl(file.first(), F_OFD_SETLK, &taken);
          return seen;
        },
        [&] { fcntl(file.first(), F_OFD_SETLK, &freed); }, "0");
  }

  TEST_CASE("opening a FIFO, unless restarted") {
    const fifo ends;
    const auto ends_it = [&] { ends.open_other_end(); };
    check_restarted(
        [&] {
          const int fd = open(ends.name(), O_RDONLY);
          if (fd < 0) return said(fd);
          close(fd);
          return std::string("open");
        },
        ends_it, "open");
    check_restarted(
        [&] {
          std::FILE* const f = std::fopen(ends.name(), "r");
          if (f == nullptr) return said(-1);
          std::fclose(f);
          return std::string("open");
        },
        ends_it, "open");
  }

  TEST_CASE("messages and semaphores of the system, always") {
    const message_queue queue;
    const auto receive = [&] {
      message got{0, ""};
      return said(msgrcv(queue.number(), &got, sizeof got.text, 1, 0));
    };
    check_always(receive);
    const message other{2, ""};
    while (msgsnd(queue.number(), &other, sizeof other.text, IPC_NOWAIT) == 0) {
    }
    check_always([&] { return said(msgsnd(queue.number(), &other, sizeof other.text, 0)); });
    const int set = semget(IPC_PRIVATE, 1, 0600);
    sembuf down{0, -1, 0};
    check_always([&] { return said(semop(set, &down, 1)); });
    const timespec long_time{1000, 0};
    check_always([&] { return said(semtimedop(set, &down, 1, &long_time)); });
    semctl(set, 0, IPC_RMID);
  }

  TEST_CASE("queues of POSIX, unless restarted") {
    const std::string name = "/tendril-aside-" + std::to_string(getpid());
    mq_attr shape{};
    shape.mq_maxmsg = 1;
    shape.mq_msgsize = 8;
    const mqd_t queue = mq_open(name.c_str(), O_CREAT | O_RDWR, 0600, &shape);
    if (queue == -1) return;  // a system without
    mq_unlink(name.c_str());
    const auto receive = [&] {
      char text[8];
      return said(mq_receive(queue, text, sizeof text, nullptr));
    };
    const auto send = [&] { return said(mq_send(queue, "xyz", 3, 0)); };
    check_restarted(receive, send, "3");
    send();
    check_restarted(
        [&] {
          std::string seen = send();
          return seen;
        },
        receive, "0");
    mq_close(queue);
  }

  TEST_CASE("any child, unless restarted") {
    std::atomic<pid_t> child{0};
    check_restarted(
        [&] {
          const pid_t pid = fork();
          if (pid == 0) {
            for (;;) pause();
          }
          child = pid;
          const pid_t ended = wait(nullptr);
          std::string seen = ended == pid ? "ended" : std::strerror(errno);
          if (ended != pid) {
            kill(pid, SIGKILL);
            waitpid(pid, nullptr, 0);
          }
          return seen;
        },
        [&] { kill(child, SIGKILL); }, "ended");
  }

  TEST_CASE("futexes that processes share, unless restarted; never with a time") {
    auto* const word = static_cast<std::atomic<std::uint32_t>*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    const auto wait = [&](const timespec* time) {
      *word = 0;
      const long n = syscall(SYS_futex, word, FUTEX_WAIT, 0, time);
      // Changed before the other thread was in the kernel.
      return said(n < 0 && errno == EAGAIN ? 0 : n);
    };
    check_restarted([&] { return wait(nullptr); },
                    [&] {
                      *word = 1;
                      syscall(SYS_futex, word, FUTEX_WAKE, 1);
                    },
                    "0");
    const timespec long_time{1000, 0};
    check_always([&] { return wait(&long_time); });
    munmap(word, 4096);
  }

  TEST_CASE("the program may have the number of the private signal") {
    const locked_file file;
    flock(file.first(), LOCK_EX);
    const auto lock = [&] { return said(flock(file.second(), LOCK_EX)); };
    check_interrupted(lock, 0);
    // The one that has been chosen; the program takes it over, and the next one, too.
    for (int turn = 0; turn != 2; ++turn) {
      int number = SIGRTMAX - 4;
      for (; number > SIGRTMIN; --number) {
        struct sigaction now {};
        sigaction(number, nullptr, &now);
        if (now.sa_handler != SIG_DFL && now.sa_handler != &test::plain) break;
      }
      CAPTURE(number);
      struct sigaction mine {};
      mine.sa_handler = &test::plain;
      REQUIRE(sigaction(number, &mine, nullptr) == 0);
      check_interrupted(lock, 0);
      handled = 0;
      raise(number);
      CHECK(handled == 1);
    }
    for (int number = SIGRTMAX - 4; number > SIGRTMIN; --number) {
      struct sigaction now {};
      sigaction(number, nullptr, &now);
      if (now.sa_handler == &test::plain) signal(number, SIG_DFL);
    }
  }

  // Receivers are interrupted all the time, just when there are messages, too. Each message is received by one.
  TEST_CASE("signals against messages: none is lost") {
    const handler_of usr1(SIGUSR1, 0);
    constexpr int receivers = 4;
    constexpr int messages = 1500;
    const message_queue queue;
    runtime rt({.workers = 2});
    const test::watchdog dog("signals against messages", &rt, std::chrono::seconds(100));
    std::atomic<long> sum{0};
    std::atomic<int> broken{0};
    std::atomic<int> others{0};
    std::array<std::atomic<pthread_t>, receivers> threads{};
    std::atomic<int> known{0};
    std::atomic<bool> over{false};
    std::thread sender([&] {
      while (known != receivers) std::this_thread::yield();
      for (unsigned turn = 0; !over; ++turn) {
        const int before = handled;
        pthread_kill(threads[turn % receivers], SIGUSR1);
        while (handled == before && !over) std::this_thread::yield();
      }
    });
    test::run_on_own_stack(rt, [&] {
      std::vector<fiber> all;
      for (std::size_t i = 0; i != receivers; ++i)
        all.emplace_back(test::stack_of_its_own(), [&, i] {
          const detail::thread_stay here;  // whose number it says
          threads[i] = pthread_self();
          ++known;
          for (message got{0, ""}; got.type != LONG_MAX;) {
            const ssize_t n = msgrcv(queue.number(), &got, sizeof got.text, 0, 0);
            if (n == 0 && got.type != LONG_MAX) sum += got.type;
            else if (n < 0 && errno == EINTR) ++broken;
            else if (n != 0) ++others;
          }
        });
      const auto send = [&](long type) {
        const message one{type, ""};
        while (msgsnd(queue.number(), &one, 0, 0) != 0) {
        }
      };
      while (known != receivers) this_fiber::yield();
      for (int n = 1; n <= messages; ++n) {
        send(n);
        if (n % 8 == 0) this_fiber::sleep_for(std::chrono::microseconds(100));
      }
      for (std::size_t i = 0; i != receivers; ++i) send(LONG_MAX);
      for (fiber& one : all) one.join();
    });
    over = true;
    sender.join();
    CHECK(sum == static_cast<long>(messages) * (messages + 1) / 2);
    CHECK(others == 0);
  }
}
