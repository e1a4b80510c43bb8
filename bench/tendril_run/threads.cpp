// SPDX-License-Identifier: Apache-2.0
//
// libc's functions on threads, for threads that are fibers. A pthread_t that is libc's goes to libc's function.
//
// Threads that the runtime and its libraries start stay threads: their start routines lie in these libraries. (Of
// std::thread the routine lies in the C++ library, and what it is to call says whose it is.)
//
// What a fiber cannot be asked for says so on stderr, ten times at the most, and answers ENOTSUP: signals to it,
// cancellation, its processor time, joins with a deadline. Priorities and processors of its own are accepted and ignored.
#include "bench/tendril_run/green_thread.hpp"
#include "bench/tendril_run/program_locals.hpp"

#include <dlfcn.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

// For C only in libc's header.
extern "C" void __pthread_register_cancel(__pthread_unwind_buf_t*);
extern "C" void __pthread_unregister_cancel(__pthread_unwind_buf_t*);
extern "C" void __pthread_unwind_next(__pthread_unwind_buf_t*);

using bench::tendril_run::green_thread;

namespace {

/// libc's, or that of who stands before it: the next after ours.
template <class F>
F* next(F*, const char* name) noexcept {
  return reinterpret_cast<F*>(::dlsym(RTLD_NEXT, name));
}
#define TENDRIL_RUN_NEXT(name) static auto* const libc = next(&::name, #name)

bool lies_in(const void* address, const char* library) noexcept {
  Dl_info about;
  return ::dladdr(address, &about) != 0 && about.dli_fname != nullptr &&
         std::strstr(about.dli_fname, library) != nullptr;
}

bool is_the_runtimes(green_thread::function f, void* argument) noexcept {
  const auto* const code = reinterpret_cast<const void*>(f);
  if (lies_in(code, "libtendril") || lies_in(code, "libuv")) return true;
  // std::thread's state begins with a pointer to its virtual functions.
  return lies_in(code, "libstdc++") && argument != nullptr &&
         lies_in(*static_cast<const void* const*>(argument), "libtendril");
}

int not_supported(const char* what) noexcept {
  static std::atomic<int> said{0};
  if (said.fetch_add(1) < 10)
    std::fprintf(stderr, "tendril-run: %s: not for threads that are fibers\n", what);
  return ENOTSUP;
}

constexpr std::size_t least_stack = std::size_t{64} << 10;
constexpr std::size_t most_stack = std::size_t{8} << 20;  // the largest class of the runtime's

std::size_t stack_bytes_of(const pthread_attr_t* attributes) noexcept {
  std::size_t bytes = most_stack;
  if (attributes != nullptr) ::pthread_attr_getstacksize(attributes, &bytes);
  return bytes < least_stack ? least_stack : bytes > most_stack ? most_stack : bytes;
}

}  // namespace

#define TENDRIL_RUN_EXPORT extern "C" __attribute__((visibility("default")))

TENDRIL_RUN_EXPORT int pthread_create(pthread_t* to, const pthread_attr_t* attributes,
                                      void* (*f)(void*), void* argument) noexcept {
  TENDRIL_RUN_NEXT(pthread_create);
  if (bench::tendril_run::in_child() || is_the_runtimes(f, argument))
    return libc(to, attributes, f, argument);
  int state = PTHREAD_CREATE_JOINABLE;
  if (attributes != nullptr) ::pthread_attr_getdetachstate(attributes, &state);
  try {
    *to = green_thread::start(f, argument, stack_bytes_of(attributes),
                              state == PTHREAD_CREATE_DETACHED)
              ->handle();
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "tendril-run: no fiber: %s\n", e.what());
    return EAGAIN;
  }
}

TENDRIL_RUN_EXPORT int pthread_join(pthread_t thread, void** result) {
  TENDRIL_RUN_NEXT(pthread_join);
  green_thread* const g = green_thread::named(thread);
  if (g == nullptr) return libc(thread, result);
  if (g == green_thread::self()) return EDEADLK;
  void* const got = g->join();
  if (result != nullptr) *result = got;
  return 0;
}

TENDRIL_RUN_EXPORT int pthread_tryjoin_np(pthread_t thread, void** result) noexcept {
  TENDRIL_RUN_NEXT(pthread_tryjoin_np);
  green_thread* const g = green_thread::named(thread);
  if (g == nullptr) return libc(thread, result);
  return g->has_ended() ? ::pthread_join(thread, result) : EBUSY;
}

TENDRIL_RUN_EXPORT int pthread_timedjoin_np(pthread_t thread, void** result, const timespec* end) {
  TENDRIL_RUN_NEXT(pthread_timedjoin_np);
  return green_thread::named(thread) != nullptr ? not_supported("pthread_timedjoin_np")
                                                : libc(thread, result, end);
}

TENDRIL_RUN_EXPORT int pthread_clockjoin_np(pthread_t thread, void** result, clockid_t clock,
                                            const timespec* end) {
  TENDRIL_RUN_NEXT(pthread_clockjoin_np);
  return green_thread::named(thread) != nullptr ? not_supported("pthread_clockjoin_np")
                                                : libc(thread, result, clock, end);
}

TENDRIL_RUN_EXPORT int pthread_detach(pthread_t thread) noexcept {
  TENDRIL_RUN_NEXT(pthread_detach);
  green_thread* const g = green_thread::named(thread);
  if (g == nullptr) return libc(thread);
  g->detach();
  return 0;
}

TENDRIL_RUN_EXPORT pthread_t pthread_self() noexcept {
  TENDRIL_RUN_NEXT(pthread_self);
  const green_thread* const g = green_thread::self();
  return g != nullptr ? g->handle() : libc();
}

TENDRIL_RUN_EXPORT void pthread_exit(void* result) {
  TENDRIL_RUN_NEXT(pthread_exit);
  if (green_thread* const g = green_thread::self()) g->exit(result);
  if (::gettid() == ::getpid()) bench::tendril_run::main_thread_has_ended();
  libc(result);
  std::abort();
}

// ---- pthread_cleanup_push() of C, which libc's header makes of these ------------------------------

TENDRIL_RUN_EXPORT void __pthread_register_cancel(__pthread_unwind_buf_t* frame) {
  TENDRIL_RUN_NEXT(__pthread_register_cancel);
  green_thread* const g = green_thread::self();
  if (g == nullptr) return libc(frame);
  frame->__pad[0] = g->cleanup;
  g->cleanup = frame;
}

TENDRIL_RUN_EXPORT void __pthread_unregister_cancel(__pthread_unwind_buf_t* frame) {
  TENDRIL_RUN_NEXT(__pthread_unregister_cancel);
  green_thread* const g = green_thread::self();
  if (g == nullptr) return libc(frame);
  g->cleanup = frame->__pad[0];
}

TENDRIL_RUN_EXPORT void __pthread_unwind_next(__pthread_unwind_buf_t* frame) {
  TENDRIL_RUN_NEXT(__pthread_unwind_next);
  if (green_thread* const g = green_thread::self()) {
    g->cleanup = frame->__pad[0];
    g->resume_exit();
  }
  libc(frame);
  std::abort();
}

// ---- Values of keys -------------------------------------------------------------------------------

TENDRIL_RUN_EXPORT int pthread_key_create(pthread_key_t* key, void (*destroy)(void*)) noexcept {
  TENDRIL_RUN_NEXT(pthread_key_create);
  const int error = libc(key, destroy);
  if (error == 0) bench::tendril_run::remember_key(*key, destroy);
  return error;
}

TENDRIL_RUN_EXPORT int pthread_key_delete(pthread_key_t key) noexcept {
  TENDRIL_RUN_NEXT(pthread_key_delete);
  bench::tendril_run::remember_key(key, nullptr);
  return libc(key);
}

TENDRIL_RUN_EXPORT void* pthread_getspecific(pthread_key_t key) noexcept {
  TENDRIL_RUN_NEXT(pthread_getspecific);
  const green_thread* const g = green_thread::self();
  return g != nullptr ? g->value_of(key) : libc(key);
}

TENDRIL_RUN_EXPORT int pthread_setspecific(pthread_key_t key, const void* value) noexcept {
  TENDRIL_RUN_NEXT(pthread_setspecific);
  green_thread* const g = green_thread::self();
  return g != nullptr ? g->set_value(key, value) : libc(key, value);
}

// ---- What is asked of a thread --------------------------------------------------------------------

TENDRIL_RUN_EXPORT int pthread_getattr_np(pthread_t thread, pthread_attr_t* attributes) noexcept {
  TENDRIL_RUN_NEXT(pthread_getattr_np);
  const green_thread* const g = green_thread::named(thread);
  if (g == nullptr) return libc(thread, attributes);
  const int error = ::pthread_attr_init(attributes);
  return error != 0 ? error : ::pthread_attr_setstack(attributes, g->stack_low, g->stack_bytes);
}

TENDRIL_RUN_EXPORT int pthread_setname_np(pthread_t thread, const char* name) noexcept {
  TENDRIL_RUN_NEXT(pthread_setname_np);
  return green_thread::named(thread) != nullptr ? 0 : libc(thread, name);
}

TENDRIL_RUN_EXPORT int pthread_getname_np(pthread_t thread, char* name, size_t size) noexcept {
  TENDRIL_RUN_NEXT(pthread_getname_np);
  if (green_thread::named(thread) == nullptr) return libc(thread, name, size);
  constexpr char text[] = "fiber";
  if (size < sizeof text) return ERANGE;
  std::memcpy(name, text, sizeof text);
  return 0;
}

TENDRIL_RUN_EXPORT int pthread_setaffinity_np(pthread_t thread, size_t size,
                                              const cpu_set_t* processors) noexcept {
  TENDRIL_RUN_NEXT(pthread_setaffinity_np);
  return green_thread::named(thread) != nullptr ? 0 : libc(thread, size, processors);
}

TENDRIL_RUN_EXPORT int pthread_getaffinity_np(pthread_t thread, size_t size,
                                              cpu_set_t* processors) noexcept {
  TENDRIL_RUN_NEXT(pthread_getaffinity_np);
  if (green_thread::named(thread) == nullptr) return libc(thread, size, processors);
  return ::sched_getaffinity(::getpid(), size, processors) == 0 ? 0 : errno;
}

TENDRIL_RUN_EXPORT int pthread_setschedparam(pthread_t thread, int policy,
                                             const sched_param* parameters) noexcept {
  TENDRIL_RUN_NEXT(pthread_setschedparam);
  return green_thread::named(thread) != nullptr ? 0 : libc(thread, policy, parameters);
}

TENDRIL_RUN_EXPORT int pthread_getschedparam(pthread_t thread, int* policy,
                                             sched_param* parameters) noexcept {
  TENDRIL_RUN_NEXT(pthread_getschedparam);
  if (green_thread::named(thread) == nullptr) return libc(thread, policy, parameters);
  *policy = SCHED_OTHER;
  parameters->sched_priority = 0;
  return 0;
}

TENDRIL_RUN_EXPORT int pthread_setschedprio(pthread_t thread, int priority) noexcept {
  TENDRIL_RUN_NEXT(pthread_setschedprio);
  return green_thread::named(thread) != nullptr ? 0 : libc(thread, priority);
}

TENDRIL_RUN_EXPORT int pthread_kill(pthread_t thread, int signal) noexcept {
  TENDRIL_RUN_NEXT(pthread_kill);
  if (green_thread::named(thread) == nullptr) return libc(thread, signal);
  return signal == 0 ? 0 : not_supported("pthread_kill");
}

TENDRIL_RUN_EXPORT int pthread_sigqueue(pthread_t thread, int signal,
                                        const union sigval value) noexcept {
  TENDRIL_RUN_NEXT(pthread_sigqueue);
  return green_thread::named(thread) != nullptr ? not_supported("pthread_sigqueue")
                                                : libc(thread, signal, value);
}

TENDRIL_RUN_EXPORT int pthread_cancel(pthread_t thread) {
  TENDRIL_RUN_NEXT(pthread_cancel);
  return green_thread::named(thread) != nullptr ? not_supported("pthread_cancel") : libc(thread);
}

TENDRIL_RUN_EXPORT int pthread_getcpuclockid(pthread_t thread, clockid_t* clock) noexcept {
  TENDRIL_RUN_NEXT(pthread_getcpuclockid);
  return green_thread::named(thread) != nullptr ? not_supported("pthread_getcpuclockid")
                                                : libc(thread, clock);
}
