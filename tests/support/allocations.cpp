// SPDX-License-Identifier: Apache-2.0
//
// Replaces the global operator new of the test program that links it. malloc stays below it, so that
// AddressSanitizer still sees each block.
#include "support/allocations.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <utility>

namespace {

std::atomic<std::uint64_t> calls{0};
thread_local bool fails_next = false;

// Out of line: fibers call it on more than one thread.
[[gnu::noinline]] bool take_failure() noexcept {
  asm volatile("" : : : "memory");
  return std::exchange(fails_next, false);
}

void* allocate(std::size_t bytes, std::size_t alignment) {
  calls.fetch_add(1, std::memory_order_relaxed);
  if (take_failure()) throw std::bad_alloc();
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* const p = alignment <= alignof(std::max_align_t) ? std::malloc(bytes != 0 ? bytes : 1)
                                                         : std::aligned_alloc(alignment, rounded);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace

namespace tendril::test {

std::uint64_t allocations() noexcept { return calls.load(std::memory_order_relaxed); }

[[gnu::noinline]] void fail_next_allocation() noexcept {
  asm volatile("" : : : "memory");
  fails_next = true;
}

}  // namespace tendril::test

void* operator new(std::size_t bytes) { return allocate(bytes, 1); }
void* operator new[](std::size_t bytes) { return allocate(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t a) {
  return allocate(bytes, static_cast<std::size_t>(a));
}
void* operator new[](std::size_t bytes, std::align_val_t a) {
  return allocate(bytes, static_cast<std::size_t>(a));
}
// A sanitizer's own would not go with the deletes below.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return allocate(bytes, 1);
  } catch (...) {
    return nullptr;
  }
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
