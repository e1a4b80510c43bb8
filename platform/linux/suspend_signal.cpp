// SPDX-License-Identifier: Apache-2.0
//
// A wrapped handler that looks through stacks begins at its own frame, in which it expects the kernel's with the
// interrupted registers. On a thread that is not the caller's and has an alternate stack for its own purposes, that
// frame is copied to where the kernel would have put it, and the handler called below it.
#include "platform/suspend_signal.hpp"

#include "platform/intercept.hpp"

#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace tendril::platform {
namespace {

struct sigaction wrapped {};
std::atomic<suspend_callback> tell{nullptr};
std::atomic<int> signal_now{0};

#if defined(__x86_64__)
constexpr bool can_move = true;
const std::byte* stack_pointer_of(const ucontext_t& c) noexcept {
  constexpr std::ptrdiff_t red_zone = 128;
  return reinterpret_cast<const std::byte*>(c.uc_mcontext.gregs[REG_RSP]) - red_zone;
}
void call_on(std::byte* stack, void (*f)(void*), void* argument) noexcept {
  asm volatile(
      "movq %%rsp, %%rbx\n\t"
      "movq %[stack], %%rsp\n\t"
      "call *%[f]\n\t"
      "movq %%rbx, %%rsp"
      : "+D"(argument), [f] "+r"(f), [stack] "+r"(stack)
      :
      : "rax", "rbx", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "xmm0", "xmm1", "xmm2", "xmm3",
        "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
        "xmm15", "memory", "cc");
}
#elif defined(__aarch64__)
constexpr bool can_move = true;
const std::byte* stack_pointer_of(const ucontext_t& c) noexcept {
  return reinterpret_cast<const std::byte*>(c.uc_mcontext.sp);
}
void call_on(std::byte* stack, void (*f)(void*), void* argument) noexcept {
  register void* x0 asm("x0") = argument;
  register void (*x9)(void*) asm("x9") = f;
  register std::byte* x10 asm("x10") = stack;
  asm volatile(
      "mov x19, sp\n\t"
      "mov sp, x10\n\t"
      "blr x9\n\t"
      "mov sp, x19"
      : "+r"(x0), "+r"(x9), "+r"(x10)
      :
      : "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x11", "x12", "x13", "x14", "x15", "x16",
        "x17", "x18", "x19", "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17",
        "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28", "v29", "v30",
        "v31", "memory", "cc");
}
#else
constexpr bool can_move = false;
const std::byte* stack_pointer_of(const ucontext_t&) noexcept {
  return static_cast<const std::byte*>(__builtin_frame_address(0));
}
void call_on(std::byte*, void (*f)(void*), void* argument) noexcept { f(argument); }
#endif

struct handled {
  int signal;
  siginfo_t* info;
  void* context;
};

void call_wrapped(void* argument) {
  const auto& h = *static_cast<handled*>(argument);
  if ((wrapped.sa_flags & SA_SIGINFO) != 0) wrapped.sa_sigaction(h.signal, h.info, h.context);
  else wrapped.sa_handler(h.signal);
}

/// The words of [from, end) below `top`; not instrumented, as red zones lie among them. Gives the lowest.
__attribute__((noinline, no_sanitize("address"))) std::byte* copy_below(
    const std::byte* top, const std::byte* from, const std::byte* end) noexcept {
  const std::size_t words = static_cast<std::size_t>(end - from) / sizeof(std::uintptr_t);
  std::uintptr_t lowest = reinterpret_cast<std::uintptr_t>(top) - words * sizeof(std::uintptr_t);
  lowest &= ~std::uintptr_t{63};
  auto* const to = reinterpret_cast<volatile std::uintptr_t*>(lowest);
  for (std::size_t i = 0; i != words; ++i) to[i] = reinterpret_cast<const std::uintptr_t*>(from)[i];
  return reinterpret_cast<std::byte*>(lowest);
}

void handle(int signal, siginfo_t* info, void* context) {
  const auto& c = *static_cast<const ucontext_t*>(context);
  const suspend_callback callback = tell.load(std::memory_order_acquire);
  const auto* const here = static_cast<const std::byte*>(__builtin_frame_address(0));
  const auto* const low = static_cast<const std::byte*>(c.uc_stack.ss_sp);
  const auto* const high = low + c.uc_stack.ss_size;
  interruption i{stack_pointer_of(c), nullptr};
  const bool has_stack = (c.uc_stack.ss_flags & SS_DISABLE) == 0 && here >= low && here < high;
  const bool was_there = has_stack && i.stack_pointer >= low && i.stack_pointer < high;
  // The frame of the signal, vector registers included, ends where the stack begins that it is on.
  i.saved_end = has_stack ? high : i.stack_pointer;
  handled h{signal, info, context};
  if (callback(&i)) {
    call_wrapped(&h);
    callback(nullptr);
  } else if (can_move && has_stack && !was_there) {
    const auto* const frame = static_cast<const std::byte*>(context);
    call_on(copy_below(static_cast<const std::byte*>(i.stack_pointer), frame, high), &call_wrapped,
            &h);
  } else {
    call_wrapped(&h);
  }
}

}  // namespace

bool wrap_suspend_signal(int signal, suspend_callback callback) noexcept {
  if (sigaction(signal, nullptr, &wrapped) != 0) return false;
  if ((wrapped.sa_flags & SA_SIGINFO) == 0 &&
      (wrapped.sa_handler == SIG_DFL || wrapped.sa_handler == SIG_IGN))
    return false;
  tell.store(callback, std::memory_order_release);
  signal_now.store(signal, std::memory_order_relaxed);
  struct sigaction mine = wrapped;
  mine.sa_flags |= SA_SIGINFO | sa_of_the_runtime;
  if constexpr (can_move) mine.sa_flags |= SA_ONSTACK;
  mine.sa_sigaction = &handle;
  return sigaction(signal, &mine, nullptr) == 0;
}

suspend_signal_held::suspend_signal_held() noexcept {
  sigset_t one;
  sigset_t before;
  sigemptyset(&one);
  sigaddset(&one, signal_now.load(std::memory_order_relaxed));
  ::pthread_sigmask(SIG_BLOCK, &one, &before);
  was_held_ = sigismember(&before, signal_now.load(std::memory_order_relaxed)) == 1;
}

suspend_signal_held::~suspend_signal_held() {
  if (was_held_) return;
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal_now.load(std::memory_order_relaxed));
  ::pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
}

}  // namespace tendril::platform
