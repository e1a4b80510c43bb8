// SPDX-License-Identifier: Apache-2.0
//
// A block of thread-local storage that belongs to no thread: what a fiber would have if each had thread-locals of
// its own. libc makes it as it does for a new thread (_dl_allocate_tls: the static TLS of all libraries, the
// vector of the dynamic ones, and room for its own struct pthread), and the thread pointer, FS, is set to it by
// wrfsbase.
//
// libc fills in the rest of struct pthread in pthread_create(), which nobody else can call for that alone. So a
// block is *bare*, or is *furnished* by us with what can be known from outside: fields at fixed places of the
// ABI, and those whose places libc tells debuggers (_thread_db_...).
//
// For measuring what that does and what it breaks, see docs/decisions/thread-per-fiber.md. Not part of the library: all
// of this is private to one version of libc. x86-64, glibc.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bench::thread_pointer {

enum class furnishing {
  bare,       ///< as libc's allocator leaves it, with the two words that point to itself
  furnished,  ///< guards, lists, restartable sequences off, tables of ctype; the thread's number
  numbered,   ///< the same with a number of its own in place of the thread's
};

/// Why this machine or libc has none of it; null: they have.
const char* missing() noexcept;

inline std::uintptr_t thread_pointer() noexcept {
  std::uintptr_t value;
  asm volatile("movq %%fs:0x10, %0" : "=r"(value));  // its own address, by the ABI
  return value;
}

/// Compilers keep the thread pointer, and addresses made of it, over this: no thread-local is to be used in
/// the same function before and after.
[[gnu::always_inline]] inline void set_thread_pointer(std::uintptr_t value) noexcept {
  asm volatile("wrfsbase %0" : : "r"(value) : "memory");
}

/// The way without FSGSBASE.
void set_thread_pointer_by_call(std::uintptr_t value) noexcept;

class thread_block {
 public:
  /// Throws std::bad_alloc; std::runtime_error with missing().
  explicit thread_block(furnishing how);
  ~thread_block();
  thread_block(const thread_block&) = delete;
  thread_block& operator=(const thread_block&) = delete;

  std::uintptr_t pointer() const noexcept { return pointer_; }

  /// Runs f(argument) on this stack with these thread-locals.
  void run(void (*f)(void*), void* argument) const noexcept;
  template <class F>
  void run(F&& f) const noexcept {
    run([](void* p) { (*static_cast<F*>(p))(); }, &f);
  }

 private:
  std::uintptr_t pointer_;
};

struct block_sizes {
  std::size_t
      static_bytes;  ///< thread-locals of the program and its libraries, a reserve, struct pthread
  std::size_t thread_bytes;  ///< of these struct pthread
  std::size_t alignment;
};
block_sizes sizes();

/// Where libc keeps things in its struct pthread; from what it tells debuggers.
std::size_t offset_of_number();
std::size_t offset_of_list();

}  // namespace bench::thread_pointer
