// SPDX-License-Identifier: Apache-2.0
#include "bench/thread_pointer/hazard.hpp"

#include <dlfcn.h>
#include <locale.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <exception>
#include <memory>
#include <stdexcept>
#include <thread>

extern "C" void call_guarded(void (*f)(void*), void* argument);

namespace bench::thread_pointer {
namespace {

std::string yes_or_no(bool yes) { return yes ? "yes" : "no"; }

std::string name_of_error(int error) { return error == 0 ? "0" : ::strerrorname_np(error); }

/// Runs f on a thread of its own, whose block is one that pthread_create() made.
template <class F>
std::string on_thread(F f) {
  std::string answer;
  std::thread([&] { answer = f(); }).join();
  return answer;
}

// ---- Guards ---------------------------------------------------------------------------------------

std::string stack_guard(furnishing how) {
  static const thread_block* block;
  block = new thread_block(how);
  call_guarded([](void*) { set_thread_pointer(block->pointer()); }, nullptr);
  return "returns";
}

std::string pointer_guard(furnishing how) {
  static const thread_block* block;
  static std::jmp_buf there;
  block = new thread_block(how);
  if (setjmp(there) == 0) {
    set_thread_pointer(block->pointer());
    std::longjmp(there, 1);
  }
  return "returns";
}

// ---- What other code finds in thread-locals -------------------------------------------------------

std::string ctype(furnishing how) {
  const thread_block block(how);
  bool letter = false;
  block.run([&] { letter = std::isalpha('a') != 0; });
  return yes_or_no(letter);
}

std::string locale(furnishing how) {
  const thread_block block(how);
  std::string text;
  block.run([&] {
    char room[32];
    std::snprintf(room, sizeof room, "%.2f", 1.5);
    text = room;
  });
  return text;
}

/// A locale for this flow alone.
std::string own_locale(furnishing how) {
  const thread_block block(how);
  const locale_t before = ::uselocale(nullptr);
  const locale_t other = ::newlocale(LC_ALL_MASK, "C", nullptr);
  bool inside = false;
  block.run([&] {
    ::uselocale(other);
    inside = ::uselocale(nullptr) == other;
  });
  return yes_or_no(inside && ::uselocale(nullptr) == before);
}

std::string own_errno(furnishing how) {
  const thread_block block(how);
  errno = EBADF;
  block.run([] { errno = EPIPE; });
  int inside = 0;
  std::thread([&] { block.run([&] { inside = errno; }); }).join();
  return name_of_error(errno) + " and, on another thread, " + name_of_error(inside);
}

std::string exceptions(furnishing how) {
  const thread_block block(how);
  std::string caught;
  try {
    throw std::runtime_error("outer");
  } catch (const std::exception&) {
    block.run([&] {
      caught = yes_or_no(std::current_exception() == nullptr);
      try {
        throw std::runtime_error("inner");
      } catch (const std::exception& e) {
        caught += std::string(", ") + e.what();
      }
    });
  }
  return caught;
}

struct loud {
  bool* gone;
  ~loud() {
    if (gone != nullptr) *gone = true;
  }
};
thread_local loud at_end{};
[[gnu::noinline]] void remember(bool* gone) { at_end.gone = gone; }

std::string destructors(furnishing how) {
  bool gone = false;
  {
    const thread_block block(how);
    block.run([&] { remember(&gone); });
  }
  return yes_or_no(gone);
}

/// With libc's private function for it.
std::string destructors_called(furnishing how) {
  const auto call = reinterpret_cast<void (*)()>(::dlsym(RTLD_DEFAULT, "__call_tls_dtors"));
  bool gone = false;
  {
    const thread_block block(how);
    block.run([&] {
      remember(&gone);
      call();
    });
  }
  return yes_or_no(gone);
}

std::string keys(furnishing how) {
  static bool destroyed = false;
  pthread_key_t key;
  ::pthread_key_create(&key, [](void*) { destroyed = true; });
  bool own = false;
  ::pthread_setspecific(key, &key);
  {
    const thread_block block(how);
    block.run([&] {
      own = ::pthread_getspecific(key) == nullptr;
      ::pthread_setspecific(key, &own);
    });
  }
  return "own: " + yes_or_no(own) + ", destroyed: " + yes_or_no(destroyed);
}

// ---- Who am I -------------------------------------------------------------------------------------

/// A second flow on the same thread asks for a recursive mutex that the first has.
std::string recursive_mutex(furnishing how) {
  const thread_block first(how), second(how);
  pthread_mutexattr_t kind;
  ::pthread_mutexattr_init(&kind);
  ::pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_t mutex;
  ::pthread_mutex_init(&mutex, &kind);
  int got = 0;
  first.run([&] { ::pthread_mutex_lock(&mutex); });
  second.run([&] { got = ::pthread_mutex_trylock(&mutex); });
  return name_of_error(got);
}

volatile sig_atomic_t handled_on = 0;
void note_thread(int) { handled_on = ::gettid(); }

/// Another thread sends a signal to the one whose handle pthread_self() gave.
std::string signal_to_handle(furnishing how) {
  ::signal(SIGUSR1, &note_thread);
  const thread_block block(how);
  pthread_t self{};
  block.run([&] { self = ::pthread_self(); });
  int result = -1;
  std::thread([&] { result = ::pthread_kill(self, SIGUSR1); }).join();
  return name_of_error(result) + (handled_on == ::gettid() ? ", to the thread" : "");
}

std::string kernels_number(furnishing how) {
  const thread_block block(how);
  pid_t inside = 0;
  block.run([&] { inside = ::gettid(); });
  return yes_or_no(inside == ::gettid());
}

/// By the page that the kernel gives each process for it.
std::string clock(furnishing how) {
  const thread_block block(how);
  timespec before{};
  timespec inside{};
  ::clock_gettime(CLOCK_MONOTONIC, &before);
  int result = -1;
  block.run([&] { result = ::clock_gettime(CLOCK_MONOTONIC, &inside); });
  return yes_or_no(result == 0 &&
                   (inside.tv_sec > before.tv_sec ||
                    (inside.tv_sec == before.tv_sec && inside.tv_nsec >= before.tv_nsec)));
}

std::string raising(furnishing how) {
  ::signal(SIGUSR1, &note_thread);
  const thread_block block(how);
  block.run([] { ::raise(SIGUSR1); });
  return yes_or_no(handled_on == ::gettid());
}

std::string own_stack(furnishing how) {
  return on_thread([how] {
    const thread_block block(how);
    std::string answer;
    block.run([&] {
      pthread_attr_t about;
      if (const int e = ::pthread_getattr_np(::pthread_self(), &about); e != 0) {
        answer = name_of_error(e);
        return;
      }
      void* low = nullptr;
      std::size_t bytes = 0;
      ::pthread_attr_getstack(&about, &low, &bytes);
      ::pthread_attr_destroy(&about);
      const auto here = reinterpret_cast<std::uintptr_t>(&low);
      answer =
          here - reinterpret_cast<std::uintptr_t>(low) < bytes ? "its own" : "the main thread's";
    });
    return answer;
  });
}

std::string thread_started(furnishing how) {
  const thread_block block(how);
  int result = 0;
  block.run([&] { std::thread([&] { result = 42; }).join(); });
  return std::to_string(result);
}

std::string thread_ended(furnishing how) {
  // The answer is given by who joins it: nothing comes back from pthread_exit().
  static const thread_block* block;
  block = new thread_block(how);
  std::thread([] { block->run([] { ::pthread_exit(nullptr); }); }).join();
  return "ends";
}

// ---- Memory ---------------------------------------------------------------------------------------

/// Not seen through by the compiler, which drops a malloc that is freed at once.
void allocate_and_free() {
  void* memory = std::malloc(24);
  asm volatile("" : "+r"(memory) : : "memory");
  std::free(memory);
}

int malloc_arenas() {
  char* text = nullptr;
  std::size_t size = 0;
  FILE* const out = ::open_memstream(&text, &size);
  ::malloc_info(0, out);
  std::fclose(out);
  int count = 0;
  for (const char* p = text; (p = std::strstr(p, "<heap nr=")) != nullptr; ++p) ++count;
  std::free(text);
  return count;
}

/// Arenas after many fibers have called malloc on one thread. Each keeps 64 or 128 MiB of addresses.
std::string arenas(furnishing how) {
  cpu_set_t usable;
  ::sched_getaffinity(0, sizeof usable, &usable);
  const int limit = 8 * CPU_COUNT(&usable);
  std::vector<std::unique_ptr<thread_block>> all;
  for (int i = 0; i != limit + 20; ++i) {
    all.push_back(std::make_unique<thread_block>(how));
    all.back()->run([] { allocate_and_free(); });
  }
  const int count = malloc_arenas();
  return count == 1 ? "1" : count == limit ? "8 for each processor" : std::to_string(count);
}

/// What is lost with each block that has called malloc: the cache that malloc makes for a thread.
std::string malloc_cache(furnishing how) {
  ::mallopt(M_ARENA_MAX, 1);
  constexpr std::size_t count = 1000;
  const auto in_use = [] { return ::mallinfo2().uordblks; };
  std::size_t before = 0;
  for (std::size_t i = 0; i != count + 1; ++i) {
    if (i == 1) before = in_use();
    const thread_block block(how);
    block.run([] { allocate_and_free(); });
  }
  return std::to_string((in_use() - before + count / 2) / count / 16 * 16) + " bytes";
}

}  // namespace

std::vector<hazard> hazards_of_threads() {
  constexpr const char* abort = "SIGABRT: *** stack smashing detected ***: terminated";
  return {
      {"return over a switch, guarded stack", "returns", stack_guard, abort, nullptr, nullptr},
      {"longjmp over a switch", "returns", pointer_guard, "SIGSEGV", nullptr, nullptr},
      {"isalpha('a')", "yes", ctype, "SIGSEGV", nullptr, nullptr},
      {"printf(\"%.2f\", 1.5)", "1.50", locale, "SIGSEGV", nullptr, nullptr},
      {"uselocale, its own", "yes", own_locale, nullptr, nullptr, nullptr},
      {"errno outside; inside, later", "EBADF and, on another thread, EPIPE", own_errno, nullptr,
       nullptr, nullptr},
      {"exceptions of its own, caught", "yes, inner", exceptions, nullptr, nullptr, nullptr},
      {"destructors of thread_local", "yes", destructors, "no", "no", "no"},
      {"the same, called by hand", "yes", destructors_called, nullptr, nullptr, nullptr},
      {"pthread_key_t", "own: yes, destroyed: yes", keys, "own: yes, destroyed: no",
       "own: yes, destroyed: no", "own: yes, destroyed: no"},
      {"another's recursive mutex", "EBUSY", recursive_mutex, "0", "0", nullptr},
      {"pthread_kill of its handle", "0, to the thread", signal_to_handle, "EINVAL", nullptr,
       "ESRCH"},
      {"gettid(): the thread's", "yes", kernels_number, nullptr, nullptr, nullptr},
      {"clock_gettime()", "yes", clock, nullptr, nullptr, nullptr},
      {"raise()", "yes", raising, nullptr, nullptr, nullptr},
      {"pthread_getattr_np: the stack", "its own", own_stack, "the main thread's",
       "the main thread's", "ESRCH"},
      {"pthread_create", "42", thread_started, nullptr, nullptr, nullptr},
      {"pthread_exit", "ends", thread_ended, "SIGSEGV", "SIGSEGV", "SIGSEGV"},
      {"arenas of malloc, many on a thread", "1", arenas, "8 for each processor",
       "8 for each processor", "8 for each processor"},
      {"lost by malloc when one ends", "0 bytes", malloc_cache, "688 bytes", "688 bytes",
       "688 bytes"},
  };
}

}  // namespace bench::thread_pointer
