// SPDX-License-Identifier: Apache-2.0
#include "context/stack_image.hpp"

#include "base/sanitizer.hpp"
#include "context/image_patterns.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace tendril::detail {
namespace {

#if TENDRIL_ASAN || TENDRIL_TSAN

/// memcpy is intercepted by the sanitizers: this is not.
__attribute__((no_sanitize("address", "thread", "undefined"), noinline)) void copy_raw(
    void* to, const void* from, std::size_t bytes) noexcept {
  auto* t = static_cast<volatile unsigned char*>(to);
  const auto* f = static_cast<const volatile unsigned char*>(from);
  for (std::size_t i = 0; i != bytes; ++i) t[i] = f[i];
}

#else

inline void copy_raw(void* to, const void* from, std::size_t bytes) noexcept {
  std::memcpy(to, from, bytes);
}

#endif

#if TENDRIL_ASAN

constexpr bool has_shadow = true;
constexpr std::size_t shadow_bytes(std::size_t bytes) noexcept { return bytes / 8; }

unsigned char* shadow_of(const std::byte* address) noexcept {
  std::size_t scale = 0;
  std::size_t offset = 0;
  __asan_get_shadow_mapping(&scale, &offset);
  return reinterpret_cast<unsigned char*>((reinterpret_cast<std::uintptr_t>(address) >> scale) +
                                          offset);
}

#else

constexpr bool has_shadow = false;
constexpr std::size_t shadow_bytes(std::size_t) noexcept { return 0; }
unsigned char* shadow_of(const std::byte*) noexcept { return nullptr; }

#endif

#if TENDRIL_ASAN || TENDRIL_TSAN
constexpr bool plain_copies = false;
#else
constexpr bool plain_copies = true;
#endif

constexpr std::size_t words_for(std::size_t live) noexcept {
  return (live + shadow_bytes(live) + sizeof(std::uint64_t) - 1) / sizeof(std::uint64_t);
}

}  // namespace

bool stack_image::capture(const std::byte* low, const std::byte* top) noexcept {
  const auto live = static_cast<std::size_t>(top - low);
  const std::size_t needed = words_for(live) * sizeof(std::uint64_t);
  block* b = whole();
  if (b == nullptr || needed > b->capacity || needed * 2 < b->capacity) [[unlikely]] {
    void* const memory = std::malloc(sizeof(block) + needed);
    if (memory == nullptr) return false;
    b = ::new (memory) block;
    b->capacity = static_cast<std::uint32_t>(needed);
    replace(reinterpret_cast<std::uintptr_t>(b));
  }
  b->bytes = static_cast<std::uint32_t>(live);
  copy_raw(b->data(), low, live);
  if constexpr (has_shadow) {
    std::memset(b->data() + live, 0, needed - live);
    copy_raw(b->data() + live, shadow_of(low), shadow_bytes(live));
    // Whoever comes next finds a stack without red zones.
    unpoison(low, live);
  }
  return true;
}

std::size_t stack_image::restore(std::byte* top, const image_owner& owner) noexcept {
  if (folded()) [[unlikely]] {
    if constexpr (plain_copies) {
      const std::size_t live = bytes();
      reader(owner).read(top - live, SIZE_MAX);
      return live;
    }
    if (!unfold_whole(owner)) {
      std::fprintf(stderr, "tendril: no memory to bring back the stack of a tasklet (%zu bytes)\n",
                   bytes());
      std::abort();
    }
  }
  const block& b = *whole();
  const std::size_t live = b.bytes;
  std::byte* const low = top - live;
  unpoison(low, live);
  copy_raw(low, b.data(), live);
  if constexpr (has_shadow) copy_raw(shadow_of(low), b.data() + live, shadow_bytes(live));
  return live;
}

/// From folded to whole.
bool stack_image::unfold_whole(const image_owner& owner) noexcept {
  const std::byte* const fold = fold_data();
  const std::size_t needed = words_of_fold(fold) * sizeof(std::uint64_t);
  void* const memory = std::malloc(sizeof(block) + needed);
  if (memory == nullptr) return false;
  block* const b = ::new (memory) block;
  b->bytes = bytes_of_fold(fold);
  b->capacity = static_cast<std::uint32_t>(needed);
  reader(owner).read(b->data(), SIZE_MAX);
  replace(reinterpret_cast<std::uintptr_t>(b));
  return true;
}

bool stack_image::fold(image_patterns& patterns, const image_owner& owner) noexcept {
  const block& b = *whole();
  std::byte* const fold = patterns.fold(b.data(), words_for(b.bytes), b.bytes, owner);
  if (fold == nullptr) return false;
  replace(reinterpret_cast<std::uintptr_t>(fold) | folded_bit);
  return true;
}

std::size_t stack_image::bytes() const noexcept {
  if (folded()) return bytes_of_fold(fold_data());
  return word_ != 0 ? whole()->bytes : 0;
}

std::size_t stack_image::folded_bytes() const noexcept { return size_of_fold(fold_data()); }

/// Who inspects it while all threads are stopped (inspect.hpp) finds the one or the other between any two instructions.
void stack_image::replace(std::uintptr_t word) noexcept {
  const std::uintptr_t old = word_;
  std::atomic_signal_fence(std::memory_order_release);
  word_ = word;
  std::atomic_signal_fence(std::memory_order_release);
  if ((old & folded_bit) != 0) free_fold(reinterpret_cast<const std::byte*>(old & ~folded_bit));
  else std::free(reinterpret_cast<void*>(old));
}

void stack_image::drop() noexcept { replace(0); }

void spoil_stack(std::byte* low, std::byte* top) noexcept {
  const auto bytes = static_cast<std::size_t>(top - low);
  unpoison(low, bytes);
  std::memset(low, 0xDB, bytes);
  poison(low, bytes);
}

__attribute__((no_sanitize("address", "thread"), noinline)) const std::byte* find_unspoiled(
    const std::byte* low, const std::byte* top) noexcept {
  for (; low != top; ++low)
    if (*static_cast<const volatile std::byte*>(low) != std::byte{0xDB}) return low;
  return nullptr;
}

void unspoil_stack(std::byte* low, std::byte* top) noexcept {
  unpoison(low, static_cast<std::size_t>(top - low));
}

}  // namespace tendril::detail
