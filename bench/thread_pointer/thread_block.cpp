// SPDX-License-Identifier: Apache-2.0
#include "bench/thread_pointer/thread_block.hpp"

#include <asm/prctl.h>
#include <dlfcn.h>
#include <sys/auxv.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace bench::thread_pointer {
namespace {

constexpr unsigned long hwcap2_fsgsbase = 1UL << 1;

// Of the ABI between libc and compilers, from the thread pointer upwards.
constexpr std::size_t own_address = 0x00;
constexpr std::size_t own_address_again = 0x10;
constexpr std::size_t stack_guard = 0x28;
constexpr std::size_t pointer_guard = 0x30;

struct functions {
  void* (*allocate)(void*);
  void (*deallocate)(void*, bool);
  void (*static_info)(std::size_t*, std::size_t*);
  void (*prepare_ctype)();
  const std::uint32_t* size_of_thread;
  const std::uint32_t* number;  ///< bits, count, offset
  const std::uint32_t* list;
};

template <class T>
bool look_up(T& to, const char* name) noexcept {
  to = reinterpret_cast<T>(::dlsym(RTLD_DEFAULT, name));
  return to != nullptr;
}

const functions* find() noexcept {
  static functions f;
  static const bool found =
      look_up(f.allocate, "_dl_allocate_tls") && look_up(f.deallocate, "_dl_deallocate_tls") &&
      look_up(f.static_info, "_dl_get_tls_static_info") &&
      look_up(f.prepare_ctype, "__ctype_init") &&
      look_up(f.size_of_thread, "_thread_db_sizeof_pthread") &&
      look_up(f.number, "_thread_db_pthread_tid") && look_up(f.list, "_thread_db_pthread_list");
  return found ? &f : nullptr;
}

template <class T>
T& at(std::uintptr_t block, std::size_t offset) noexcept {
  return *reinterpret_cast<T*>(block + offset);
}

/// The head of libc's list of robust mutexes: between the number and what the kernel is told of it.
constexpr std::size_t robust_previous_after_number = 8;
constexpr std::size_t robust_list_after_number = 16;

}  // namespace

const char* missing() noexcept {
  if ((::getauxval(AT_HWCAP2) & hwcap2_fsgsbase) == 0)
    return "no FSGSBASE: the processor has none, or the kernel (before 5.9, or nofsgsbase) does "
           "not let programs "
           "use it";
  if (find() == nullptr)
    return "no _dl_allocate_tls or others of glibc's private functions that this is about";
  return nullptr;
}

void set_thread_pointer_by_call(std::uintptr_t value) noexcept {
  // Not by syscall(), which may write errno.
  long result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(SYS_arch_prctl), "D"(ARCH_SET_FS), "S"(value)
               : "rcx", "r11", "memory");
}

thread_block::thread_block(furnishing how) {
  if (const char* const why = missing()) throw std::runtime_error(why);
  const functions& f = *find();
  void* const made = f.allocate(nullptr);
  if (made == nullptr) throw std::bad_alloc();
  pointer_ = reinterpret_cast<std::uintptr_t>(made);
  at<std::uintptr_t>(pointer_, own_address) = pointer_;
  at<std::uintptr_t>(pointer_, own_address_again) = pointer_;
  if (how == furnishing::bare) return;

  const std::uintptr_t mine = thread_pointer();
  at<std::uintptr_t>(pointer_, stack_guard) = at<std::uintptr_t>(mine, stack_guard);
  at<std::uintptr_t>(pointer_, pointer_guard) = at<std::uintptr_t>(mine, pointer_guard);
  const std::size_t number = offset_of_number();
  // Above every number that the kernel gives (2^22), and below what libc's mutexes use of the word for flags.
  static std::atomic<int> next{1 << 23};
  at<int>(pointer_, number) =
      how == furnishing::numbered ? next.fetch_add(1, std::memory_order_relaxed) : ::gettid();
  for (const std::size_t list :
       {number + robust_previous_after_number, number + robust_list_after_number})
    at<std::uintptr_t>(pointer_, list) = pointer_ + number + robust_list_after_number;
  const std::size_t threads = offset_of_list();
  at<std::uintptr_t>(pointer_, threads) = pointer_ + threads;
  at<std::uintptr_t>(pointer_, threads + 8) = pointer_ + threads;
  if (__rseq_size != 0)
    at<int>(pointer_, static_cast<std::size_t>(__rseq_offset) + offsetof(struct rseq, cpu_id)) =
        RSEQ_CPU_ID_REGISTRATION_FAILED;
  run([](void* prepare) { reinterpret_cast<void (*)()>(prepare)(); },
      reinterpret_cast<void*>(f.prepare_ctype));
}

thread_block::~thread_block() { find()->deallocate(reinterpret_cast<void*>(pointer_), true); }

[[gnu::noinline]] void thread_block::run(void (*f)(void*), void* argument) const noexcept {
  const std::uintptr_t mine = thread_pointer();
  set_thread_pointer(pointer_);
  f(argument);
  set_thread_pointer(mine);
}

block_sizes sizes() {
  if (const char* const why = missing()) throw std::runtime_error(why);
  block_sizes s{};
  find()->static_info(&s.static_bytes, &s.alignment);
  s.thread_bytes = *find()->size_of_thread;
  return s;
}

std::size_t offset_of_number() { return find()->number[2]; }
std::size_t offset_of_list() { return find()->list[2]; }

}  // namespace bench::thread_pointer
