// SPDX-License-Identifier: Apache-2.0
#include "context/stack_image.hpp"

#include "base/sanitizer.hpp"
#include "context/image_pack.hpp"
#include "context/image_patterns.hpp"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

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

constexpr std::size_t part_bytes = 2048;

/// Of a size that the compiler knows nothing of: else it has instructions of its own for it, `rep movsq` for one.
inline void copy_by_library(void* to, const void* from, std::size_t bytes) noexcept {
  asm volatile("" : "+r"(bytes));
  std::memcpy(to, from, bytes);
}

/// glibc's memcpy goes over to `rep movsb` at two to four kilobytes, which takes some 20 ns to start: two copies of 4 KiB
/// take 103 ns by one call each and 61 in parts, of 16 KiB 290 and 256. From about 32 KiB on, for which the
/// first-level cache has no room, one call is twice as fast.
__attribute__((noinline)) void copy_large(std::byte* to, const std::byte* from,
                                          std::size_t bytes) noexcept {
  constexpr std::size_t most_in_parts = std::size_t{20} << 10;
  if (bytes <= most_in_parts) {
    for (; bytes > part_bytes; bytes -= part_bytes) {
      copy_by_library(to, from, part_bytes);
      to += part_bytes;
      from += part_bytes;
    }
  }
  copy_by_library(to, from, bytes);
}

inline void copy_raw(void* to, const void* from, std::size_t bytes) noexcept {
  if (bytes <= part_bytes) [[likely]]
    copy_by_library(to, from, bytes);
  else copy_large(static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes);
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

constinit std::atomic<int> visits{0};
/// Replaced during visits; by `older`.
constinit std::atomic<image_word::block*> unseen{nullptr};

constexpr std::size_t words_for(std::size_t live) noexcept {
  return (live + shadow_bytes(live) + sizeof(std::uint64_t) - 1) / sizeof(std::uint64_t);
}

}  // namespace

/// For a capture of these bytes. Null: no memory.
stack_image::block* stack_image::allocate(std::size_t words) noexcept {
  constexpr std::size_t most_padding = 64 - alignof(std::uint64_t);
  void* const memory = std::malloc(sizeof(block) + most_padding + words * sizeof(std::uint64_t));
  if (memory == nullptr) return nullptr;
  auto* const b = ::new (memory) block;
  b->capacity = static_cast<std::uint32_t>(words);
  return b;
}

bool stack_image::make_block(const std::byte* low, const std::byte* top) noexcept {
  block* const b = allocate(words_for(static_cast<std::size_t>(top - low)));
  if (b == nullptr) return false;
  replace(reinterpret_cast<std::uintptr_t>(b));
  return true;
}

bool stack_image::capture_again(const std::byte* low, const std::byte* top,
                                image_size size) noexcept {
  const auto live = static_cast<std::size_t>(top - low);
  const std::size_t words = words_for(live);
  block* const b = whole();
  if (b == nullptr || words > b->capacity ||
      (size == image_size::exact ? words != b->capacity : words * 2 < b->capacity)) [[unlikely]]
    return false;
  b->again = 1;
  b->pad = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(low) -
                                      reinterpret_cast<std::uintptr_t>(b + 1)) &
           (63 & ~(alignof(std::uint64_t) - 1));
  b->bytes = static_cast<std::uint32_t>(live);
  copy_raw(b->data(), low, live);
  if constexpr (has_shadow) {
    std::memset(b->data() + live, 0, words * sizeof(std::uint64_t) - live);
    copy_raw(b->data() + live, shadow_of(low), shadow_bytes(live));
    // Whoever comes next finds a stack without red zones.
    unpoison(low, live);
  }
  return true;
}

std::size_t stack_image::restore(std::byte* top, const image_owner& owner) noexcept {
  if (is_small()) [[unlikely]] {
    if constexpr (plain_copies) {
      const std::size_t live = bytes();
      copy_small(top - live, owner);
      return live;
    }
    if (!make_whole(owner)) {
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

/// All that a folded or packed one stands for.
void stack_image::copy_small(std::byte* to, const image_owner& owner) const noexcept {
  if (folded()) {
    reader(owner).read(to, SIZE_MAX);
    return;
  }
  pack_reader in = reader();
  while (const std::size_t n = in.read(to)) to += n;
}

bool stack_image::make_whole(const image_owner& owner) noexcept {
  block* const b = allocate(folded() ? words_of_fold(small_data())
                                     : image_bytes_of_pack(small_data()) / sizeof(std::uint64_t));
  if (b == nullptr) return false;
  b->bytes = static_cast<std::uint32_t>(bytes());
  copy_small(b->data(), owner);
  replace(reinterpret_cast<std::uintptr_t>(b));
  return true;
}

bool stack_image::fold(image_patterns& patterns, const image_owner& owner) noexcept {
  const block& b = *whole();
  std::byte* const fold = patterns.fold(b.data(), words_for(b.bytes), b.bytes, owner);
  if (fold == nullptr) return false;
  make_small(reinterpret_cast<std::uintptr_t>(fold) | folded_bit);
  return true;
}

bool stack_image::pack() noexcept {
  const block& b = *whole();
  std::byte* const pack = make_pack(b.data(), words_for(b.bytes) * sizeof(std::uint64_t), b.bytes);
  if (pack == nullptr) return false;
  make_small(reinterpret_cast<std::uintptr_t>(pack) | packed_bit);
  return true;
}

std::size_t image_word::bytes() const noexcept {
  if (folded()) return bytes_of_fold(small_data());
  if (packed()) return stack_bytes_of_pack(small_data());
  return word_ != 0 ? whole()->bytes : 0;
}

std::size_t image_word::small_bytes() const noexcept {
  return folded() ? size_of_fold(small_data()) : size_of_pack(small_data());
}

/// Who inspects it while all threads are stopped (inspect.hpp) finds the one or the other between any two instructions.
std::uintptr_t stack_image::exchange(std::uintptr_t word) noexcept {
  const std::uintptr_t old = word_;
  std::atomic_signal_fence(std::memory_order_release);
  // Release: a visit that finds it sees what it points to.
  std::atomic_ref(word_).store(word, std::memory_order_release);
  std::atomic_signal_fence(std::memory_order_release);
  return old;
}

void stack_image::replace(std::uintptr_t word) noexcept {
  const std::uintptr_t old = exchange(word);
  const auto* const small = reinterpret_cast<const std::byte*>(old & ~tag_bits);
  if ((old & folded_bit) != 0) free_fold(small);
  else if ((old & packed_bit) != 0) free_pack(small);
  else std::free(reinterpret_cast<void*>(old));
}

/// From whole to what takes less.
void stack_image::make_small(std::uintptr_t word) noexcept {
  auto* const old = reinterpret_cast<block*>(exchange(word));
  if (!image_visit::none_before()) {
    old->older = unseen.load(std::memory_order_relaxed);
    while (!unseen.compare_exchange_weak(old->older, old, std::memory_order_release,
                                         std::memory_order_relaxed)) {
    }
    return;
  }
  std::free(old);
  if (unseen.load(std::memory_order_relaxed) == nullptr) [[likely]]
    return;
  block* rest = unseen.exchange(nullptr, std::memory_order_acquire);
  while (rest != nullptr) std::free(std::exchange(rest, rest->older));
}

image_visit::image_visit() noexcept {
  visits.fetch_add(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with none_before()'s
}
// Release: what was looked at is freed afterwards.
image_visit::~image_visit() { visits.fetch_sub(1, std::memory_order_release); }

/// Store-load with image_visit(): a word, or a flag, was replaced before we look for visits; a visit announces itself
/// before it looks at words. Either we see it, or it sees the new word.
bool image_visit::none_before() noexcept {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return visits.load(std::memory_order_acquire) == 0;
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
