// SPDX-License-Identifier: Apache-2.0
#include "bench/scenario/allocations.hpp"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

constinit thread_local bench::allocation_counts counts;

void* allocate(std::size_t bytes) {
  ++counts.calls;
  counts.bytes += bytes;
  void* const p = std::malloc(bytes != 0 ? bytes : 1);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
void* allocate(std::size_t bytes, std::align_val_t alignment) {
  ++counts.calls;
  counts.bytes += bytes;
  const auto a = static_cast<std::size_t>(alignment);
  void* const p = std::aligned_alloc(a, (bytes + a - 1) / a * a);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

namespace bench {

[[gnu::noinline]] allocation_counts allocations_of_thread() noexcept { return counts; }

}  // namespace bench

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void* operator new(std::size_t bytes, std::align_val_t a) { return allocate(bytes, a); }
void* operator new[](std::size_t bytes, std::align_val_t a) { return allocate(bytes, a); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
