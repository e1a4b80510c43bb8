// SPDX-License-Identifier: Apache-2.0
#include "places.hpp"

#include "base/check.hpp"
#include "platform/split_stack.hpp"

#include <tendril/fiber.hpp>
#include <tendril/runtime.hpp>

#include <sys/mman.h>

#include <cstdint>
#include <thread>

namespace tendril::test {
namespace {

constexpr std::size_t double_bytes = std::size_t{1} << 20;

std::atomic<bool> third_place{false};

struct in_third {
  in_third() { third_place = true; }
  ~in_third() { third_place = false; }
};

#if TENDRIL_SWITCH_NATIVE
void write_limit(std::uintptr_t limit) { asm volatile("movq %0, %%fs:0x70" : : "r"(limit)); }

/// Gives the calling thread a native stack and the limit word of a fiber.
struct dressing {
  dressing() {
    low = static_cast<std::byte*>(::mmap(nullptr, double_bytes, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    TENDRIL_CHECK(low != MAP_FAILED, "a megabyte of address space is to be had");
    header.limit = (reinterpret_cast<std::uintptr_t>(low) + 4096) | platform::native_tag;
    saved = platform::tendril_thread_stacks;
    platform::tendril_thread_stacks.native_top = low + double_bytes;
    platform::tendril_thread_stacks.native = &header;
    platform::tendril_thread_stacks.native_limit = header.limit;
    // As the first segment of a fiber has it; whose, does not matter.
    const std::byte here{};
    write_limit(((reinterpret_cast<std::uintptr_t>(&here) - 65536) & ~platform::limit_tag_mask) |
                platform::smallest_segment_tag);
  }
  ~dressing() {
    write_limit(0);
    platform::tendril_thread_stacks = saved;
    ::munmap(low, double_bytes);
  }
  std::byte* low;
  platform::segment header{};
  platform::thread_stacks saved;
};
#endif

}  // namespace

bool on_native_stack() noexcept {
#if TENDRIL_SWITCH_NATIVE
  const std::byte here{};
  const platform::thread_stacks& mine = platform::tendril_thread_stacks;
  return mine.native != nullptr &&
         &here<mine.native_top&& reinterpret_cast<std::uintptr_t>(&here)> mine.native->limit;
#else
  return false;
#endif
}

bool in_third_place() noexcept { return third_place; }

std::uintptr_t limit_word_now() noexcept { return platform::stack_limit(); }

void note_foreign_call() noexcept {
  ++foreign_calls;
  if (on_native_stack() != in_third_place()) ++misplaced_calls;
}

void run_on_thread(const std::function<void()>& f) { std::thread(f).join(); }

void run_on_fiber(const std::function<void()>& f) {
  runtime rt({.workers = 1});
  rt.run([&] { fiber({.stack = {.bytes = std::size_t{256} << 10}}, f).join(); });
  rt.drain();
}

void run_dressed_up(const std::function<void()>& f) {
#if TENDRIL_SWITCH_NATIVE
  if (detail::has_native_stacks) {
    const in_third guard;
    std::thread([&] {
      const dressing d;
      f();
    }).join();
    return;
  }
#endif
  run_on_thread(f);
}

void run_on_segments(const std::function<void()>& f) {
  const in_third guard;
  runtime rt({.workers = 1});
  rt.run([&] { fiber({.stack = {.kind = stack_kind::segmented}}, f).join(); });
  rt.drain();
}

}  // namespace tendril::test
