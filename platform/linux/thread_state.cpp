// SPDX-License-Identifier: Apache-2.0
//
// From /proc/self/task: a thread may read those of its own process whatever the ptrace settings are.
// "syscall" holds the number, six arguments, the stack pointer and the instruction pointer; "running" when
// the thread is in no system call; "-1", sp and pc when it is blocked otherwise, as by a page fault.
#include "platform/thread_state.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace tendril::platform {
namespace {

/// False when there is no such file.
bool read_task_file(thread_number thread, const char* name, char* text, std::size_t size) noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/%s", thread, name);
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const ssize_t n = ::read(file, text, size - 1);
  ::close(file);
  if (n <= 0) return false;
  text[n] = '\0';
  return true;
}

}  // namespace

thread_number this_thread_number() noexcept {
  return static_cast<thread_number>(::syscall(SYS_gettid));
}

thread_activity activity_of(thread_number thread) noexcept {
  char text[512];
  if (!read_task_file(thread, "stat", text, sizeof text)) return thread_activity::unknown;
  // "7 (name) S ...": the name may hold anything, so the last parenthesis counts.
  const char* const end = std::strrchr(text, ')');
  if (end == nullptr || end[1] != ' ') return thread_activity::unknown;
  switch (end[2]) {
    case 'R':
      return thread_activity::running;
    case 'S':
    case 'D':
      return thread_activity::blocked;
    case 'T':
    case 't':
      return thread_activity::stopped;
    default:
      return thread_activity::unknown;
  }
}

blocked_call blocked_call_of(thread_number thread) noexcept {
  char text[256];
  if (!read_task_file(thread, "syscall", text, sizeof text)) return {};
  long number = -1;
  unsigned long long arguments[6], sp = 0, pc = 0;
  if (std::sscanf(text, "%ld %llx %llx %llx %llx %llx %llx %llx %llx", &number, &arguments[0],
                  &arguments[1], &arguments[2], &arguments[3], &arguments[4], &arguments[5], &sp,
                  &pc) != 9 &&
      std::sscanf(text, "-1 %llx %llx", &sp, &pc) != 2)
    return {};
  return {number, reinterpret_cast<const void*>(pc), reinterpret_cast<const void*>(sp)};
}

namespace {

/// The object that has `address` in a segment that may be executed.
struct code_search {
  std::uintptr_t address;
  std::uintptr_t object = 0;  ///< the address of its headers; 0: none, it is no code

  static std::uintptr_t object_of(std::uintptr_t address) noexcept {
    code_search search{address};
    ::dl_iterate_phdr(&look, &search);
    return search.object;
  }

 private:
  static int look(dl_phdr_info* info, std::size_t, void* argument) noexcept {
    auto& search = *static_cast<code_search*>(argument);
    for (int i = 0; i != info->dlpi_phnum; ++i) {
      const auto& part = info->dlpi_phdr[i];
      if (part.p_type != PT_LOAD || (part.p_flags & PF_X) == 0) continue;
      if (search.address - (info->dlpi_addr + part.p_vaddr) >= part.p_memsz) continue;
      search.object = reinterpret_cast<std::uintptr_t>(info->dlpi_phdr);
      return 1;
    }
    return 0;
  }
};

/// Not instrumented: the owner may be writing there.
__attribute__((noinline, no_sanitize("address", "thread"))) std::uintptr_t peek(
    const std::uintptr_t* word) noexcept {
  return *static_cast<const volatile std::uintptr_t*>(word);
}

}  // namespace

const void* likely_caller(const blocked_call& call, const void* low, const void* high) noexcept {
  if (call.stack_pointer < low || call.stack_pointer >= high) return nullptr;
  const std::uintptr_t here =
      code_search::object_of(reinterpret_cast<std::uintptr_t>(call.instruction));
  auto* word = static_cast<const std::uintptr_t*>(call.stack_pointer);
  constexpr int most = 512;  // words: what a few frames of a C library take
  for (int i = 0; i != most && word < high; ++i, ++word) {
    const std::uintptr_t value = peek(word);
    if (value < 4096) continue;
    const std::uintptr_t object = code_search::object_of(value);
    if (object != 0 && object != here) return reinterpret_cast<const void*>(value);
  }
  return nullptr;
}

std::size_t likely_trace(const blocked_call& call, const void* low, const void* high,
                         const void** frames, std::size_t most) noexcept {
  if (call.stack_pointer < low || call.stack_pointer >= high) return 0;
  auto* word = static_cast<const std::uintptr_t*>(call.stack_pointer);
  constexpr int most_words = 512;
  std::size_t n = 0;
  for (int i = 0; i != most_words && word < high && n != most; ++i, ++word) {
    const std::uintptr_t value = peek(word);
    if (value >= 4096 && code_search::object_of(value) != 0)
      frames[n++] = reinterpret_cast<const void*>(value);
  }
  return n;
}

void describe_address(const void* address, char* text, std::size_t size) noexcept {
  Dl_info found{};
  if (address == nullptr || ::dladdr(address, &found) == 0) {
    std::snprintf(text, size, "%p", address);
    return;
  }
  const char* file = found.dli_fname != nullptr ? found.dli_fname : "?";
  if (const char* const slash = std::strrchr(file, '/')) file = slash + 1;
  const auto* const at = static_cast<const char*>(address);
  if (found.dli_sname != nullptr)
    std::snprintf(text, size, "%s+0x%tx (%s)", found.dli_sname,
                  at - static_cast<const char*>(found.dli_saddr), file);
  else std::snprintf(text, size, "%s+0x%tx", file, at - static_cast<const char*>(found.dli_fbase));
}

}  // namespace tendril::platform
