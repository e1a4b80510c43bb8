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

struct native_double {
  std::byte* low = nullptr;
  platform::segment header{};
};

// Read from wherever a test runs; fibers do not switch in between.
thread_local native_double* active = nullptr;

#if TENDRIL_SWITCH_NATIVE
void write_limit(std::uintptr_t limit) { asm volatile("movq %0, %%fs:0x70" : : "r"(limit)); }

struct dressing {
  dressing() {
    void* const memory = ::mmap(nullptr, double_bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TENDRIL_CHECK(memory != MAP_FAILED, "a megabyte of address space is to be had");
    stack.low = static_cast<std::byte*>(memory);
    stack.header.limit =
        (reinterpret_cast<std::uintptr_t>(stack.low) + 4096) | platform::native_tag;
    saved = platform::tendril_thread_stacks;
    platform::tendril_thread_stacks.native_top = stack.low + double_bytes;
    platform::tendril_thread_stacks.native = &stack.header;
    active = &stack;
    // A limit as the first segment of a fiber has it; whose, does not matter.
    const std::byte here{};
    write_limit((reinterpret_cast<std::uintptr_t>(&here) - 65536) & ~platform::limit_tag_mask);
  }
  ~dressing() {
    write_limit(0);
    active = nullptr;
    platform::tendril_thread_stacks = saved;
    ::munmap(stack.low, double_bytes);
  }
  native_double stack;
  platform::thread_stacks saved;
};
#endif

}  // namespace

bool on_double() noexcept {
  const std::byte here{};
  return active != nullptr && &here >= active->low && &here < active->low + double_bytes;
}

bool in_third_place() noexcept { return active != nullptr; }

std::uintptr_t limit_word_now() noexcept { return platform::stack_limit(); }

void note_foreign_call() noexcept {
  ++foreign_calls;
  if (on_double() != in_third_place()) ++misplaced_calls;
}

void run_on_thread(const std::function<void()>& f) { std::thread(f).join(); }

void run_on_fiber(const std::function<void()>& f) {
  runtime rt({.workers = 1});
  rt.run([&] { fiber({.stack = {.bytes = std::size_t{256} << 10}}, f).join(); });
  rt.drain();
}

void run_dressed_up(const std::function<void()>& f) {
  if constexpr (!detail::has_native_stacks) return run_on_thread(f);
#if TENDRIL_SWITCH_NATIVE
  std::thread([&] {
    const dressing d;
    f();
  }).join();
#endif
}

}  // namespace tendril::test
