// SPDX-License-Identifier: Apache-2.0
//
// Things that programs with threads do, one for each name. Knows nothing of fibers. Prints "right" or "wrong", or what a
// function refused. On threads all are right.

#define _GNU_SOURCE
#include <errno.h>
#include <locale.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { threads = 8 };

/// Returns when all of them have come. Whoever waits lets others run on its thread.
static void all_come(void) {
  static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  static pthread_cond_t everybody = PTHREAD_COND_INITIALIZER;
  static int here = 0;
  static int round = 0;
  pthread_mutex_lock(&mutex);
  const int mine = round;
  if (++here == threads) {
    here = 0;
    ++round;
    pthread_cond_broadcast(&everybody);
  }
  while (round == mine) pthread_cond_wait(&everybody, &mutex);
  pthread_mutex_unlock(&mutex);
}

/// Each gets its number from 1 on, and returns null when all was right.
static int run(void* (*f)(void*), long count) {
  pthread_t all[threads];
  int right = 1;
  for (long i = 0; i != count; ++i)
    if (pthread_create(&all[i], NULL, f, (void*)(i + 1)) != 0) return 0;
  for (long i = 0; i != count; ++i) {
    void* result = &all;
    if (pthread_join(all[i], &result) != 0 || result != NULL) right = 0;
  }
  return right;
}

static void* answer(int right) { return right ? NULL : (void*)1; }

// ---- Thread-locals --------------------------------------------------------------------------------

static __thread long own_value = 5;

static void* own(void* number) {
  int right = own_value == 5;
  own_value = (long)number;
  for (int i = 0; i != 5; ++i) {
    all_come();
    right = right && own_value == (long)number;
  }
  return answer(right);
}

static long* shown[threads];

static void* address(void* number) {
  const long i = (long)number - 1;
  own_value = 100 + i;
  shown[i] = &own_value;
  all_come();
  const long next = (i + 1) % threads;
  const int right = *shown[next] == 100 + next;
  all_come();
  return answer(right);
}

static pthread_key_t key;
static atomic_int destroyed;
static void destroy(void* value) {
  (void)value;
  atomic_fetch_add(&destroyed, 1);
}
static void* use_key(void* number) {
  const int right = pthread_getspecific(key) == NULL;
  pthread_setspecific(key, number);
  all_come();
  return answer(right && pthread_getspecific(key) == number);
}

static void* keep_strerror(void* number) {
  const char* const text = strerror(1000 + (int)(long)number);
  char kept[64];
  snprintf(kept, sizeof kept, "%s", text);
  all_come();
  return answer(strcmp(kept, text) == 0);
}

static void* set_locale(void* number) {
  locale_t mine = LC_GLOBAL_LOCALE;
  if ((long)number == 1) uselocale(mine = newlocale(LC_ALL_MASK, "C", (locale_t)0));
  all_come();
  const int right = uselocale((locale_t)0) == mine;
  all_come();
  return answer(right);
}

static void* set_mask(void* number) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  if ((long)number == 1) pthread_sigmask(SIG_BLOCK, &mask, NULL);
  all_come();
  pthread_sigmask(SIG_SETMASK, NULL, &mask);
  all_come();
  return answer(sigismember(&mask, SIGUSR2) == ((long)number == 1));
}

// ---- Locks ----------------------------------------------------------------------------------------

static pthread_mutex_t recursive;
static int inside;

static void* lock_twice(void* number) {
  (void)number;
  int right = 1;
  for (int i = 0; i != 20; ++i) {
    pthread_mutex_lock(&recursive);
    pthread_mutex_lock(&recursive);
    right = right && inside++ == 0;
    sched_yield();
    --inside;
    pthread_mutex_unlock(&recursive);
    pthread_mutex_unlock(&recursive);
  }
  return answer(right);
}

static atomic_int spins;
static atomic_int released;
static void* spin(void* number) {
  atomic_store(&spins, 1);
  while (!atomic_load(&released)) {
  }
  return number;
}
static void* release(void* number) {
  atomic_store(&released, 1);
  return number;
}
static int wait_by_spinning(void) {
  pthread_t spinner;
  pthread_t other;
  pthread_create(&spinner, NULL, spin, NULL);
  while (!atomic_load(&spins)) sched_yield();
  pthread_create(&other, NULL, release, NULL);
  return pthread_join(spinner, NULL) == 0 && pthread_join(other, NULL) == 0;
}

// ---- Ends -----------------------------------------------------------------------------------------

static int cleaned;
static void clean(void* argument) {
  (void)argument;
  ++cleaned;
}
/// Without the knowledge of the compiler that nobody returns.
static void (*volatile end_thread)(void*) = pthread_exit;
static void leave(int depth) {
  pthread_cleanup_push(clean, NULL);
  if (depth == 0) end_thread(NULL);
  else leave(depth - 1);
  pthread_cleanup_pop(0);
}
static void* leave_by_exit(void* number) {
  leave(2);
  return number;
}

static int ends[2];
static void* read_for_ever(void* number) {
  (void)number;
  char byte;
  const ssize_t got = read(ends[0], &byte, 1);
  return answer(got == -1 && errno == EINTR);
}

static void on_signal(int number) { (void)number; }

static void* print_last(void* number) {
  puts("right");
  return number;
}

// ---- Stacks, children -----------------------------------------------------------------------------

__attribute__((noinline)) static int sum(volatile char* above, int depth) {
  volatile char room[1024];
  room[0] = (char)depth;
  if (depth == 0) return *above;
  const int below = sum(room, depth - 1);
  return below + room[0];
}
static void* recurse(void* number) {
  (void)number;
  volatile char top = 1;
  volatile int result = sum(&top, 5000);
  (void)result;
  return NULL;
}

static void* nothing(void* number) {
  (void)number;
  return NULL;
}
static void* wait_for_release(void* number) {
  while (!atomic_load(&released)) usleep(100);
  return number;
}
/// A join that does not wait.
static int try_join(void) {
  pthread_t one;
  void* result = NULL;
  pthread_create(&one, NULL, wait_for_release, &one);
  const int early = pthread_tryjoin_np(one, &result);
  atomic_store(&released, 1);
  int late;
  while ((late = pthread_tryjoin_np(one, &result)) == EBUSY) usleep(100);
  return early == EBUSY && late == 0 && result == &one;
}
static void* have_child(void* number) {
  (void)number;
  const pid_t child = fork();
  if (child == 0) _exit(run(nothing, 2) ? 7 : 1);
  int status = 0;
  return answer(waitpid(child, &status, 0) == child && WIFEXITED(status) &&
                WEXITSTATUS(status) == 7);
}

// ---------------------------------------------------------------------------------------------------

static int ask(const char* name) {
  if (strcmp(name, "own") == 0) return run(own, threads);
  if (strcmp(name, "address") == 0) return run(address, threads);
  if (strcmp(name, "strerror") == 0) return run(keep_strerror, threads);
  if (strcmp(name, "uselocale") == 0) return run(set_locale, threads);
  if (strcmp(name, "sigmask") == 0) return run(set_mask, threads);
  if (strcmp(name, "spin") == 0) return wait_by_spinning();
  if (strcmp(name, "recursion") == 0) return run(recurse, 1);
  if (strcmp(name, "fork") == 0) return run(have_child, 1);
  if (strcmp(name, "tryjoin") == 0) return try_join();
  if (strcmp(name, "exit") == 0) return run(leave_by_exit, 1) && cleaned == 3;
  if (strcmp(name, "key") == 0) {
    pthread_key_create(&key, destroy);
    return run(use_key, threads) && destroyed == threads;
  }
  if (strcmp(name, "recursive") == 0) {
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&recursive, &kind);
    return run(lock_twice, threads);
  }
  if (strcmp(name, "kill") == 0 || strcmp(name, "cancel") == 0) {
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, NULL);
    pthread_t reader;
    if (pipe(ends) != 0 || pthread_create(&reader, NULL, read_for_ever, NULL) != 0) return 0;
    usleep(100 * 1000);  // it reads by then; if not, the signal is lost, and the answer is wrong
    const int error = name[0] == 'k' ? pthread_kill(reader, SIGUSR1) : pthread_cancel(reader);
    if (error != 0) {
      puts(strerrorname_np(error));
      exit(0);
    }
    void* result = &reader;
    pthread_join(reader, &result);
    return name[0] == 'k' ? result == NULL : result == PTHREAD_CANCELED;
  }
  if (strcmp(name, "main") == 0) {
    pthread_t last;
    pthread_create(&last, NULL, print_last, NULL);
    pthread_exit(NULL);
  }
  fprintf(stderr, "no case is called '%s'\n", name);
  exit(2);
}

int main(int count, char** arguments) {
  if (count != 2) return 2;
  puts(ask(arguments[1]) ? "right" : "wrong");
  return 0;
}
