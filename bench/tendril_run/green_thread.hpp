// SPDX-License-Identifier: Apache-2.0
//
// A thread of the program that is a fiber: what pthread_create() has made, and what pthread_t names. Reserved stack,
// as large as the program asks; it stays on one OS thread for life, since the code it runs keeps addresses of
// thread-locals.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <csetjmp>
#include <cstddef>
#include <mutex>
#include <vector>

namespace bench::tendril_run {

class green_thread {
 public:
  using function = void* (*)(void*);

  /// Starts it. Throws std::system_error, std::bad_alloc.
  static green_thread* start(function f, void* argument, std::size_t stack_bytes, bool detached);

  /// Of the calling fiber; null on threads.
  static green_thread* self() noexcept;
  /// Null: it names a thread of libc's.
  static green_thread* named(pthread_t handle) noexcept;
  pthread_t handle() const noexcept;

  void* join();
  bool has_ended() noexcept;
  void detach() noexcept;
  [[noreturn]] void exit(void* result) noexcept;
  /// After one of the frames below has cleaned up.
  [[noreturn]] void resume_exit() noexcept;

  void* value_of(pthread_key_t key) const noexcept;
  /// 0, or an error as pthread_setspecific() has it.
  int set_value(pthread_key_t key, const void* value) noexcept;

  // The C way of pthread_cleanup_push(): frames that pthread_exit() goes through, the last one first.
  void* cleanup = nullptr;

  void* stack_low = nullptr;
  std::size_t stack_bytes = 0;

  /// The program's thread-locals while others run. Null: all fibers of a thread share them.
  void* locals = nullptr;

 private:
  void run() noexcept;
  void destroy_values() noexcept;
  void release() noexcept;

  function function_ = nullptr;
  void* argument_ = nullptr;
  void* result_ = nullptr;
  std::jmp_buf end_;
  std::vector<void*> values_;
  std::mutex mutex_;
  std::condition_variable is_over_;
  bool over_ = false;
  int owners_ = 2;  ///< itself, and who joins or detaches it
};

/// main() has left by pthread_exit(): the process ends with the last fiber.
void main_thread_has_ended() noexcept;

/// Destructors of keys, for those that libc gives out.
void remember_key(pthread_key_t key, void (*destroy)(void*)) noexcept;

/// After fork(): the runtime's threads are not in the child, where all of this is libc's.
bool in_child() noexcept;

/// Makes hooks (platform/intercept.hpp) known that see to the program's thread-locals.
void install_hooks();

}  // namespace bench::tendril_run
