// SPDX-License-Identifier: Apache-2.0
#include "context/stack_image.hpp"

#include "base/sanitizer.hpp"

#include <cstdlib>
#include <cstring>

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

}  // namespace

bool stack_image::capture(const std::byte* low, const std::byte* top) noexcept {
  const auto live = static_cast<std::size_t>(top - low);
  const std::size_t needed = live + shadow_bytes(live);
  if (needed > capacity_ || needed * 2 < capacity_) [[unlikely]] {
    void* const fresh = std::malloc(needed);
    if (fresh == nullptr) return false;
    std::free(data_);
    data_ = static_cast<std::byte*>(fresh);
    capacity_ = static_cast<std::uint32_t>(needed);
  }
  bytes_ = static_cast<std::uint32_t>(live);
  copy_raw(data_, low, live);
  if constexpr (has_shadow) {
    copy_raw(data_ + live, shadow_of(low), shadow_bytes(live));
    // Whoever comes next finds a stack without red zones.
    unpoison(low, live);
  }
  return true;
}

void stack_image::restore(std::byte* top) const noexcept {
  std::byte* const low = top - bytes_;
  unpoison(low, bytes_);
  copy_raw(low, data_, bytes_);
  if constexpr (has_shadow) copy_raw(shadow_of(low), data_ + bytes_, shadow_bytes(bytes_));
}

void stack_image::drop() noexcept {
  std::free(data_);
  data_ = nullptr;
  bytes_ = capacity_ = 0;
}

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
