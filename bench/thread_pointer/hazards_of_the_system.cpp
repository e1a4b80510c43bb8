// SPDX-License-Identifier: Apache-2.0
#include "bench/thread_pointer/hazard.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>
#include <stdexcept>
#include <thread>

namespace bench::thread_pointer {
namespace {

std::string name_of_error(int error) { return error == 0 ? "0" : ::strerrorname_np(error); }

/// Ties the caller to the last processor; its number.
int move_to_last_processor() {
  cpu_set_t all;
  CPU_ZERO(&all);
  ::sched_getaffinity(0, sizeof all, &all);
  int last = 0;
  for (int i = 0; i != CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &all)) last = i;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(last, &one);
  ::sched_setaffinity(0, sizeof one, &one);
  return last;
}

// ---- Restartable sequences ------------------------------------------------------------------------

std::string processor_number(furnishing how) {
  const int last = move_to_last_processor();
  if (last == 0) return "right";  // with one processor nobody can tell
  const thread_block block(how);
  int found = -1;
  block.run([&] { found = ::sched_getcpu(); });
  return found == last ? "right" : std::to_string(found) + " on another";
}

/// Whether the kernel keeps the area of restartable sequences up to date that code finds by the thread pointer, as
/// allocators with a cache for each processor do.
std::string restartable_sequences(furnishing how) {
  if (__rseq_size == 0) return "updated";  // switched off by a tunable: nobody uses them
  const auto last = static_cast<std::uint32_t>(move_to_last_processor());
  const thread_block block(how);
  const auto processor = [](std::uintptr_t pointer) {
    const auto* const area = reinterpret_cast<const volatile struct rseq*>(
        pointer + static_cast<std::size_t>(__rseq_offset));
    return static_cast<std::uint32_t>(area->cpu_id);
  };
  ::sched_yield();
  if (processor(thread_pointer()) != last) return "not even the thread's is updated";
  std::uint32_t found = 0;
  block.run([&] { found = processor(thread_pointer()); });
  return found == last ? "updated" : "stale";
}

/// Adds one as allocators do to their lists for each processor: without a locked instruction, since the kernel begins the
/// sequence anew when it interrupts it; if it knows of it. The pauses make an interruption between the load and the store
/// likely.
[[gnu::noinline]] bool add_one(volatile long* counter) noexcept {
  asm goto volatile(
      ".pushsection __rseq_cs, \"aw\"\n"
      ".balign 32\n"
      "3: .long 0, 0\n"
      ".quad 1f, 2f - 1f, 4f\n"
      ".popsection\n"
      "leaq 3b(%%rip), %%rax\n"
      "movq %%rax, %%fs:8(%[area])\n"
      "1: movq (%[counter]), %%rcx\n"
      "pause; pause; pause; pause\n"
      "addq $1, %%rcx\n"
      "movq %%rcx, (%[counter])\n"
      "2:\n"
      ".pushsection .text.unlikely, \"ax\"\n"
      ".long %c[signature]\n"  // before every place that the kernel may continue at
      "4: jmp %l[interrupted]\n"
      ".popsection\n"
      :
      : [area] "r"(__rseq_offset), [counter] "r"(counter), [signature] "i"(RSEQ_SIG)
      : "rax", "rcx", "memory", "cc"
      : interrupted);
  return true;
interrupted:
  return false;
}

/// Two threads, each on a block of its own, count on one processor.
std::string counting(furnishing how) {
  if (__rseq_size == 0) return "exact";  // see above
  constexpr long each = 400'000;
  static volatile long counter = 0;
  move_to_last_processor();  // inherited by the threads
  std::atomic<int> ready{0};
  std::atomic<bool> off{false};
  const auto count = [&] {
    const thread_block block(how);
    block.run([&] {
      const auto* const area = reinterpret_cast<const volatile struct rseq*>(
          thread_pointer() + static_cast<std::size_t>(__rseq_offset));
      ready.fetch_add(1);
      while (ready != 2) ::sched_yield();
      if (static_cast<int>(area->cpu_id) < 0) {  // as whoever uses them has to ask
        off = true;
        return;
      }
      for (long i = 0; i != each; ++i)
        while (!add_one(&counter)) {
        }
    });
  };
  std::thread first(count), second(count);
  first.join();
  second.join();
  if (off) return "switched off";
  return counter == 2 * each ? "exact" : "counts are lost";
}

// ---- Robust mutexes -------------------------------------------------------------------------------

/// A process ends while its fiber has a robust mutex: what does who shares it see?
std::string robust_mutex(furnishing how) {
  void* const room = ::mmap(nullptr, sizeof(pthread_mutex_t), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED) throw std::bad_alloc();
  auto* const mutex = static_cast<pthread_mutex_t*>(room);
  pthread_mutexattr_t kind;
  ::pthread_mutexattr_init(&kind);
  ::pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
  ::pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
  ::pthread_mutex_init(mutex, &kind);
  const pid_t child = ::fork();
  if (child == 0) {
    const thread_block block(how);
    block.run([&] { ::pthread_mutex_lock(mutex); });
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  return name_of_error(::pthread_mutex_trylock(mutex));
}

// ---- fork -----------------------------------------------------------------------------------------

std::string forking(furnishing how) {
  const thread_block block(how);
  pid_t child = -1;
  block.run([&] {
    child = ::fork();
    if (child == 0) ::_exit(7);
  });
  int status = 0;
  ::waitpid(child, &status, 0);
  if (WIFSIGNALED(status))
    return std::string("its child dies: SIG") + ::sigabbrev_np(WTERMSIG(status));
  return std::to_string(WEXITSTATUS(status));
}

// ---- setuid ---------------------------------------------------------------------------------------

/// A thread changes the user id of the process while another one is in a fiber. libc sends the other a signal, whose
/// handler sets a flag in the thread-locals that it finds, and is sent again until it sets that of the thread.
std::string user_id(furnishing how) {
  constexpr auto busy = std::chrono::milliseconds(300);
  std::atomic<bool> inside{false};
  std::atomic<bool> outside{false};
  std::thread other([&] {
    const thread_block block(how);
    block.run([&] {
      inside = true;
      const auto end = std::chrono::steady_clock::now() + busy;
      while (std::chrono::steady_clock::now() < end) {
      }
      outside = true;
    });
  });
  while (!inside) std::this_thread::yield();
  const int result = ::setuid(::getuid());
  const bool waited = outside;
  other.join();
  return name_of_error(result) + (waited ? ", once the fiber has been left" : ", at once");
}

// ---- Libraries loaded late ------------------------------------------------------------------------

std::string late_library(furnishing how, const char* file) {
  const thread_block block(how);
  void* const library = ::dlopen(file, RTLD_NOW);
  if (library == nullptr) throw std::runtime_error(::dlerror());
  const auto read = reinterpret_cast<int (*)()>(::dlsym(library, "read_late_value"));
  int value = -1;
  block.run([&] { value = read(); });
  return std::to_string(value);
}
std::string late_static(furnishing how) { return late_library(how, LATE_STATIC_LIBRARY); }
std::string late_dynamic(furnishing how) { return late_library(how, LATE_DYNAMIC_LIBRARY); }

}  // namespace

std::vector<hazard> hazards_of_the_system() {
  return {
      {"sched_getcpu()", "right", processor_number, "0 on another", nullptr, nullptr},
      {"its rseq area", "updated", restartable_sequences, "stale", "stale", "stale"},
      {"restartable sequences that count", "exact", counting, "counts are lost", "switched off",
       "switched off"},
      {"a robust mutex, its process ends", "EOWNERDEAD", robust_mutex, "0", "EBUSY", "EBUSY"},
      {"fork()", "7", forking, "its child dies: SIGSEGV", nullptr, nullptr},
      {"setuid() by another thread", "0, at once", user_id, "0, once the fiber has been left",
       "0, once the fiber has been left", "0, once the fiber has been left"},
      {"static thread_local of a library loaded later", "42", late_static, "0", "0", "0"},
      {"dynamic thread_local of such a library", "42", late_dynamic, nullptr, nullptr, nullptr},
  };
}

}  // namespace bench::thread_pointer
