// SPDX-License-Identifier: Apache-2.0
//
//   intercept_ending_subject WHO HOW POLLER WORKERS     a program that ends while fibers are in the middle of calls
//
//   WHO   main, thread, fiber: who ends it
//   HOW   exit, quick_exit, _exit, return (from main), exec (of the same program, as `WHO` = done), pthread_exit (of
//         the main thread; a fiber ends the program then), abort
//
// It writes "parked" when all calls have begun, and ends with status 7; whatever runs at its end (functions of
// atexit, destructors of statics, streams that are written out) says so, too. Run by ending.cpp.
#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace {

using namespace tendril;

constexpr int status = 7;
std::atomic<int> begun{0};

// What the calls wait for; it never comes.
int silent_pipe[2], silent_socket[2], listener, locked_file, other_file;
pthread_mutex_t taken = PTHREAD_MUTEX_INITIALIZER;
pthread_mutex_t mine = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t never = PTHREAD_COND_INITIALIZER;
pthread_rwlock_t written = PTHREAD_RWLOCK_INITIALIZER;
pthread_barrier_t missing_one;
sem_t empty;
pthread_t silent_thread;
FILE* silent_stream;
std::atomic<bool> returns{false};

void say(const char* text) {
  if (write(STDOUT_FILENO, text, std::strlen(text)) < 0) _exit(99);
}

struct last_words {
  ~last_words() { say(" destructor"); }
} const the_last_words;

// ---- calls that do not return

void in_read() {
  char byte;
  (void)!read(silent_pipe[0], &byte, 1);
}
void in_recv() {
  char byte;
  recv(silent_socket[0], &byte, 1, 0);
}
void in_accept() { accept(listener, nullptr, nullptr); }
void in_poll() {
  pollfd set[] = {{silent_pipe[0], POLLIN, 0}, {silent_socket[1], POLLIN, 0}};
  poll(set, 2, -1);
}
void in_epoll() {
  const int set = epoll_create1(0);
  epoll_event event{};
  epoll_wait(set, &event, 1, -1);
}
void in_sleep() { sleep(100'000); }
void in_mutex() { pthread_mutex_lock(&taken); }
void in_condition() {
  pthread_mutex_lock(&mine);
  pthread_cond_wait(&never, &mine);
}
void in_rwlock() { pthread_rwlock_wrlock(&written); }
void in_semaphore() { sem_wait(&empty); }
void in_barrier() { pthread_barrier_wait(&missing_one); }
void in_join() { pthread_join(silent_thread, nullptr); }
void in_flock() { flock(other_file, LOCK_EX); }  // made by another thread
void in_stream() { std::fgetc(silent_stream); }
void in_signal() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 5);
  int got;
  sigwait(&set, &got);
}

constexpr void (*calls[])() = {in_read,    in_recv,  in_accept,    in_poll,   in_epoll,
                               in_sleep,   in_mutex, in_condition, in_rwlock, in_semaphore,
                               in_barrier, in_join,  in_flock,     in_stream, in_signal};
constexpr int call_count = sizeof calls / sizeof *calls;

bool prepare() {
  char name[] = "/tmp/tendril-ending-XXXXXX";
  locked_file = mkstemp(name);
  other_file = open(name, O_RDWR);
  unlink(name);
  int stream_pipe[2];
  sockaddr sa{};
  sa.sa_family = AF_UNIX;
  listener = socket(AF_UNIX, SOCK_STREAM, 0);
  if (pipe(silent_pipe) != 0 || pipe(stream_pipe) != 0 ||
      socketpair(AF_UNIX, SOCK_STREAM, 0, silent_socket) != 0 ||
      bind(listener, &sa, sizeof(sa_family_t)) != 0 || listen(listener, 1) != 0 ||
      flock(locked_file, LOCK_EX) != 0)
    return false;
  silent_stream = fdopen(stream_pipe[0], "r");
  sem_init(&empty, 0, 0);
  pthread_barrier_init(&missing_one, nullptr, 100);
  pthread_mutex_lock(&taken);
  pthread_rwlock_rdlock(&written);
  return pthread_create(
             &silent_thread, nullptr,
             [](void*) -> void* {
               in_read();
               return nullptr;
             },
             nullptr) == 0;
}

[[noreturn]] void end(const char* how, char* program) {
  if (std::strcmp(how, "quick_exit") == 0) std::quick_exit(status);
  if (std::strcmp(how, "_exit") == 0) _exit(status);
  if (std::strcmp(how, "abort") == 0) std::abort();
  if (std::strcmp(how, "exec") == 0) {
    char done[] = "done";
    char* const arguments[] = {program, done, nullptr};
    execv(program, arguments);
    _exit(98);
  }
  std::exit(status);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "done") == 0) {
    say(" executed");
    _exit(status);
  }
  if (argc != 5 || !prepare()) return 97;
  const char* const who = argv[1];
  const char* const how = argv[2];
  std::atexit([] { say(" atexit"); });
  std::at_quick_exit([] { say(" at_quick_exit"); });

  runtime_options options;
  options.workers = static_cast<unsigned>(std::atoi(argv[4]));
  options.poller =
      std::strcmp(argv[3], "portable") == 0 ? poller_kind::portable : poller_kind::native;
  // Never destroyed: its destructor would wait for the fibers.
  static runtime* const rt = new runtime(options);
  for (const auto call : calls)
    rt->spawn([call] {
      ++begun;
      call();
      returns = true;
    });
  rt->run([] {
    while (begun != call_count) this_fiber::yield();
    for (int i = 0; i != 100; ++i) this_fiber::yield();
  });
  if (returns) return 96;
  say("parked");
  // In its buffer. (ThreadSanitizer writes it out at other ends, too.)
  if (std::strcmp(how, "_exit") != 0 && std::strcmp(how, "abort") != 0) std::printf(" stream");
  if (std::strcmp(who, "fiber") == 0) rt->spawn([=] { end(how, argv[0]); });
  else if (std::strcmp(who, "thread") == 0) std::thread([=] { end(how, argv[0]); }).detach();
  else if (std::strcmp(how, "return") == 0) return status;
  else end(how, argv[0]);
  if (std::strcmp(how, "pthread_exit") == 0) pthread_exit(nullptr);
  for (;;) pause();
}
