// SPDX-License-Identifier: Apache-2.0
#include "bench/tendril_run/program_locals.hpp"

#include <link.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace bench::tendril_run {
namespace {

// By the ABI of x86-64 the program's part ends at the thread pointer, rounded for its alignment.
std::size_t bytes = 0;
std::size_t below_thread_pointer = 0;
const void* image = nullptr;
std::size_t image_bytes = 0;

/// Whose are in this thread's block. Null: nobody's who wants to find them again.
[[gnu::tls_model("initial-exec")]] thread_local void* loaded = nullptr;

/// The first object is the program.
int look(dl_phdr_info* object, std::size_t, void*) noexcept {
  for (int i = 0; i != object->dlpi_phnum; ++i) {
    const auto& part = object->dlpi_phdr[i];
    if (part.p_type != PT_TLS) continue;
    const std::size_t alignment = part.p_align > 1 ? part.p_align : 1;
    bytes = part.p_memsz;
    below_thread_pointer = (bytes + alignment - 1) / alignment * alignment;
    image = reinterpret_cast<const void*>(object->dlpi_addr + part.p_vaddr);
    image_bytes = part.p_filesz;
  }
  return 1;
}

}  // namespace

bool find_program_locals() noexcept {
  ::dl_iterate_phdr(&look, nullptr);
  return bytes != 0;
}

std::size_t program_locals_bytes() noexcept { return bytes; }

void* make_program_locals() {
  auto* const made = static_cast<char*>(std::malloc(bytes));
  if (made == nullptr) throw std::bad_alloc();
  std::memcpy(made, image, image_bytes);
  std::memset(made + image_bytes, 0, bytes - image_bytes);
  return made;
}

// Not inlined: compilers keep addresses of thread-locals over calls that switch.
[[gnu::noinline]] void enter_program_locals(void* locals) noexcept {
  if (loaded == locals) return;
  std::uintptr_t pointer;
  asm volatile("movq %%fs:0x10, %0" : "=r"(pointer));
  void* const here = reinterpret_cast<void*>(pointer - below_thread_pointer);
  if (loaded != nullptr) std::memcpy(loaded, here, bytes);
  std::memcpy(here, locals, bytes);
  loaded = locals;
}

[[gnu::noinline]] void free_program_locals(void* locals) noexcept {
  if (loaded == locals) loaded = nullptr;
  std::free(locals);
}

}  // namespace bench::tendril_run
