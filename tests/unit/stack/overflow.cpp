// SPDX-License-Identifier: Apache-2.0
//
// Real overflows, on slices entered by makecontext: the unit under test is below the context layer.
// Each case dies in a child.
#include "stack/overflow.hpp"

#include "platform/memory.hpp"
#include "platform/signal_stack.hpp"
#include "platform/split_stack.hpp"
#include "stack/small_segments.hpp"
#include "stack/stack_cache.hpp"
#include "stack/stack_source.hpp"
#include "support/forked.hpp"
#include "support/recursion.hpp"

#include <doctest/doctest.h>

#include <signal.h>
#include <ucontext.h>

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>

using namespace tendril;
using namespace tendril::detail;

namespace {

constexpr unsigned k64 = 2;

ucontext_t back;

void on_slice(const stack_slice& slice, void (*body)()) {
  ucontext_t there;
  getcontext(&there);
  there.uc_stack.ss_sp = slice.low;
  there.uc_stack.ss_size = static_cast<std::size_t>(slice.high - slice.low);
  there.uc_link = &back;
  makecontext(&there, body, 0);
  swapcontext(&back, &there);
}

void name_it(const stack_slice&, fiber_description& out) noexcept {
  out.name = "greedy";
  out.id = 4711;
}

void write_to(std::byte* p) { *const_cast<volatile std::byte*>(p) = std::byte{1}; }

/// Installs what a worker has, then runs the body on a slice.
void with_slice(void (*body)(), stack_guard mode) {
  stack_source source({.guard = mode});
  stack_cache cache(source);
  platform::signal_stack signals;
  if (!signals.install() || !install_overflow_handler()) ::_exit(9);
  const stack_slice slice = cache.acquire(k64);
  on_slice(slice, body);
  cache.release(slice, k64);
}

std::string hex(const void* p) {
  char text[32];
  std::snprintf(text, sizeof text, "%p", p);
  return text;
}

std::uintptr_t limit_now = 0;

std::uintptr_t run_by_greedy(fiber_description& out) noexcept {
  out.name = "greedy";
  out.id = 4711;
  return limit_now;
}

void need(bool ok) {
  if (!ok) ::_exit(9);
}

/// The limit word of a segment of 2^shift bytes whose lowest frame byte is at `low`.
std::uintptr_t limit_word(const std::byte* low, unsigned shift) {
  return (reinterpret_cast<std::uintptr_t>(low) + 512) | platform::segment_tag(shift);
}

void expect_handler() {
  static platform::signal_stack signals;
  need(signals.install() && install_overflow_handler());
  set_describe_running(&run_by_greedy);
}

/// Runs off the n-th segment of a fresh slab.
void overflow_small(unsigned n, stack_guard mode) {
  expect_handler();
  small_segment_source source({.guard = mode});
  small_segment_cache cache(source);
  std::byte* base = cache.acquire();
  for (unsigned i = 0; i < n; ++i) base = cache.acquire();
  std::fprintf(stderr, "segment [%p, %p)\n", static_cast<void*>(base),
               static_cast<void*>(base + small_segment_bytes));
  limit_now = limit_word(base, platform::smallest_segment_shift);
  on_slice({base, base + small_segment_bytes - sizeof(platform::segment)},
           &test::run_off_the_stack);
}

/// The text between "segment " and the end of the first line.
std::string told_range(const test::child_result& r) {
  const auto at = r.error_output.find('[');
  return r.error_output.substr(at, r.error_output.find('\n') - at);
}

constexpr const char* segment_remedy =
    "; compile it with tendril::segmented, or call it by tendril::native_call, or run the fiber on "
    "stack_kind::reserved\n";

sigjmp_buf jump;
volatile int handled = 0;

}  // namespace

TEST_SUITE("overflow") {
  TEST_CASE("an overflow names the fiber, the address and the stack, shows a trace, and kills") {
    for (const stack_guard mode : {stack_guard::madvise, stack_guard::mprotect}) {
      if (mode == stack_guard::madvise && !platform::guards_supported()) continue;
      const auto result = test::run_forked([mode] {
        set_describe_stack(&name_it);
        with_slice(&test::run_off_the_stack, mode);
      });
      CAPTURE(result.error_output);
      CHECK(result.signal == SIGSEGV);
      CHECK(result.says("tendril: stack overflow in fiber 'greedy' (id 4711): address 0x"));
      CHECK(result.says("is in the guard page below its stack [0x"));
      CHECK(result.says(") of 64 KiB; give it a larger stack (fiber_options::stack.bytes)\n"));
      CHECK(result.says("[0x"));
      CHECK(result.says("(more frames)"));  // the trace went on into the fiber's stack
    }
  }

  TEST_CASE("an overflow on another thread is reported there") {
    const auto result = test::run_forked([] {
      std::thread([] { with_slice(&test::run_off_the_stack, stack_guard::mprotect); }).join();
    });
    CHECK(result.signal == SIGSEGV);
    CHECK(result.says("tendril: stack overflow in an unknown fiber: address"));
  }

  TEST_CASE("without a describer, and without a name, the message still stands") {
    const auto result = test::run_forked([] {
      set_describe_stack(+[](const stack_slice&, fiber_description& out) noexcept { out.id = 12; });
      with_slice(&test::run_off_the_stack, stack_guard::mprotect);
    });
    CHECK(result.says("stack overflow in fiber (id 12): address"));
  }

  TEST_CASE("a name is cut off and its control characters are replaced") {
    const auto result = test::run_forked([] {
      set_describe_stack(+[](const stack_slice&, fiber_description& out) noexcept {
        static const std::string name = "a\nb" + std::string(500, 'x');
        out.name = name.c_str();
        out.id = 1;
      });
      with_slice(&test::run_off_the_stack, stack_guard::mprotect);
    });
    CHECK(result.says(("'a?b" + std::string(61, 'x') + "' (id 1)").c_str()));
  }

  TEST_CASE("a stray write to a guard page is not called an overflow") {
    std::string address;
    const auto result = test::run_forked([] {
      stack_source source({.guard = stack_guard::mprotect});
      stack_cache cache(source);
      platform::signal_stack signals;
      if (!signals.install() || !install_overflow_handler()) ::_exit(9);
      set_describe_stack(&name_it);
      const stack_slice slice = cache.acquire(k64);
      std::fprintf(stderr, "at %s\n", hex(slice.low - 8).c_str());
      write_to(slice.low - 8);
    });
    CHECK(result.signal == SIGSEGV);
    CHECK(!result.says("stack overflow"));
    REQUIRE(result.error_output.rfind("at 0x", 0) == 0);
    address = result.error_output.substr(3, result.error_output.find('\n') - 3);
    CHECK(result.says(("tendril: bad access to " + address + ", in the guard page").c_str()));
    CHECK(result.says("of fiber 'greedy' (id 4711), by code on another stack"));
  }

  TEST_CASE("whether it is an overflow is the scheduler's to say when it knows") {
    const auto result = test::run_forked([] {
      stack_source source({.guard = stack_guard::mprotect});
      stack_cache cache(source);
      platform::signal_stack signals;
      if (!signals.install() || !install_overflow_handler()) ::_exit(9);
      set_describe_stack(+[](const stack_slice&, fiber_description& out) noexcept {
        out.id = 5;
        out.use = stack_use::current;
      });
      write_to(cache.acquire(k64).low - 8);
    });
    CHECK(result.says("tendril: stack overflow in fiber (id 5)"));
  }
}

TEST_SUITE("segment_overflow") {
  TEST_CASE(
      "unsplit code that runs off a small segment is told from an overflow, with the remedy") {
    for (const stack_guard mode : {stack_guard::madvise, stack_guard::mprotect}) {
      if (mode == stack_guard::madvise && !platform::guards_supported()) continue;
      const auto result = test::run_forked([mode] { overflow_small(0, mode); });
      CAPTURE(result.error_output);
      CHECK(result.signal == SIGSEGV);
      CHECK(result.says(
          ("tendril: stack overflow in fiber 'greedy' (id 4711): code that was not compiled for "
           "segmented stacks ran past the reserve of a segment " +
           told_range(result) + " of 2 KiB, to address 0x")
              .c_str()));
      CHECK(result.says(segment_remedy));
      CHECK(!result.says("other fibers"));
      CHECK(!result.says("give it a larger stack"));
      CHECK(result.says(")[0x"));  // the trace
    }
  }

  TEST_CASE("that it ran through the segments of other fibers is said") {
    const auto result = test::run_forked([] { overflow_small(5, stack_guard::mprotect); });
    CAPTURE(result.error_output);
    CHECK(result.signal == SIGSEGV);
    CHECK(result.says((told_range(result) + " of 2 KiB, to address 0x").c_str()));
    CHECK(result.says(" beyond segments of other fibers, which may be damaged; compile it"));
  }

  TEST_CASE("a larger segment is a slice, and is told from a reserved stack by the limit word") {
    const auto run = [](bool segmented) {
      return test::run_forked([segmented] {
        expect_handler();
        set_describe_stack(&name_it);
        stack_source source({.guard = stack_guard::mprotect});
        stack_cache cache(source);
        const stack_slice slice = cache.acquire(3);
        if (segmented) limit_now = limit_word(slice.low, 17);
        on_slice(slice, &test::run_off_the_stack);
      });
    };
    const auto segmented = run(true);
    CAPTURE(segmented.error_output);
    CHECK(segmented.signal == SIGSEGV);
    CHECK(segmented.says("in fiber 'greedy' (id 4711): code that was not compiled for segmented"));
    CHECK(segmented.says(") of 128 KiB, to address 0x"));
    CHECK(segmented.says(segment_remedy));
    const auto reserved = run(false);
    CHECK(reserved.signal == SIGSEGV);
    CHECK(reserved.says(") of 128 KiB; give it a larger stack"));
    CHECK(!reserved.says("segment"));
  }

  TEST_CASE("a segment that is a mapping of its own is known too") {
    const auto result = test::run_forked([] {
      expect_handler();
      constexpr unsigned shift = 24;
      constexpr std::size_t bytes = std::size_t{1} << shift;
      auto* const base = static_cast<std::byte*>(platform::reserve_memory(bytes, bytes));
      const std::size_t page = platform::page_size();
      need(base != nullptr && platform::protect_none(base, page));
      limit_now = limit_word(base + page, shift);
      on_slice({base + page, base + 4 * page}, &test::run_off_the_stack);
    });
    CHECK(result.signal == SIGSEGV);
    CHECK(result.says(") of 16384 KiB, to address 0x"));
    CHECK(result.says(segment_remedy));
  }

  TEST_CASE("a stray write to the guard of a segment is not called an overflow") {
    enum { no_segment, own_but_left, native, another, on_another_stack };
    for (const int how : {no_segment, own_but_left, native, another, on_another_stack}) {
      const auto result = test::run_forked([how] {
        expect_handler();
        small_segment_source source({.guard = stack_guard::mprotect});
        small_segment_cache cache(source);
        std::byte* const base = cache.acquire();
        std::byte* other = base;
        while (slab_of(other) == slab_of(base)) other = cache.acquire();
        if (how == native) limit_now = (limit_word(base, 11) & ~std::uintptr_t{31}) | 31;
        if (how == own_but_left)  // the fiber has gone on to a larger one
          set_describe_stack(+[](const stack_slice&, fiber_description& out) noexcept {
            out.use = stack_use::current;
          });
        if (how == another) limit_now = limit_word(other, 11);
        if (how == on_another_stack) limit_now = limit_word(base, 11);
        write_to(base - 8);
      });
      CAPTURE(how);
      CAPTURE(result.error_output);
      CHECK(result.signal == SIGSEGV);
      CHECK(!result.says("stack overflow"));
      CHECK(result.says("tendril: bad access to 0x"));
      CHECK(result.says(", in the guard page below the stack [0x"));
      CHECK(result.says(") of 2 KiB of an unknown fiber, by code on another stack"));
    }
  }

  TEST_CASE("a broken canary names the caller's fiber and the remedy") {
    const auto result = test::run_forked([] {
      set_describe_stack(&name_it);
      small_segment_source source;
      small_segment_cache cache(source);
      std::byte* const base = cache.acquire();
      std::fprintf(stderr, "segment [%p, %p)\n", static_cast<void*>(base),
                   static_cast<void*>(base + small_segment_bytes));
      base[segment_canary_bytes - 1] = std::byte{1};
      check_segment_canary_word(base);
    });
    CHECK(result.signal == SIGABRT);
    CHECK(result.says(
        ("tendril: stack overflow in fiber 'greedy' (id 4711): code that was not compiled for "
         "segmented stacks ran past the reserve of a segment " +
         told_range(result) + " of 2 KiB, found when it parked or ended")
            .c_str()));
    CHECK(result.says(segment_remedy));
  }
}

TEST_SUITE("signal_stack") {
  TEST_CASE("is the thread's while installed, and gives back what was there before") {
    std::thread([] {
      stack_t start{};
      ::sigaltstack(nullptr, &start);
      {
        platform::signal_stack outer;
        if (!outer.install()) std::abort();
        platform::signal_stack inner;
        if (!inner.install() || !inner.install()) std::abort();
        stack_t now{};
        ::sigaltstack(nullptr, &now);
        if (!inner.contains(now.ss_sp) || outer.contains(now.ss_sp)) std::abort();
        if (now.ss_size < 64 * 1024) std::abort();
        inner.uninstall();
        ::sigaltstack(nullptr, &now);
        if (!outer.contains(now.ss_sp) || inner.installed()) std::abort();
      }
      stack_t end{};
      ::sigaltstack(nullptr, &end);
      if (end.ss_flags != start.ss_flags) std::abort();
      if ((end.ss_flags & SS_DISABLE) == 0 && end.ss_sp != start.ss_sp) std::abort();
    }).join();
  }

  TEST_CASE("without memory install fails and changes nothing") {
    platform::signal_stack stack;
    platform::fail_reservations(0, 1);
    CHECK(!stack.install());
    platform::fail_reservations(0, 0);
    CHECK(!stack.installed());
    CHECK(stack.install());
  }
}

TEST_SUITE("memory_faults") {
  TEST_CASE("a fault that is not ours takes the default action, silently") {
    const auto result = test::run_forked([] {
      if (!install_overflow_handler()) ::_exit(9);
      void* p = platform::reserve_memory(4096, 4096);
      platform::protect_none(p, 4096);
      write_to(static_cast<std::byte*>(p));
    });
    CHECK(result.signal == SIGSEGV);
    CHECK(result.error_output.empty());
  }

  TEST_CASE("a signal that was sent takes the default action too") {
    for (const int signal : {SIGSEGV, SIGBUS}) {
      const auto result = test::run_forked([signal] {
        if (!install_overflow_handler()) ::_exit(9);
        ::raise(signal);
      });
      CHECK(result.signal == signal);
    }
  }

  TEST_CASE("a sent signal that was ignored stays ignored, a fault kills nevertheless") {
    const auto result = test::run_forked([] {
      ::signal(SIGSEGV, SIG_IGN);
      if (!install_overflow_handler()) ::_exit(9);
      ::raise(SIGSEGV);
      std::fprintf(stderr, "survived\n");
      void* p = platform::reserve_memory(4096, 4096);
      platform::protect_none(p, 4096);
      write_to(static_cast<std::byte*>(p));
    });
    CHECK(result.says("survived"));
    CHECK(result.signal == SIGSEGV);
  }

  TEST_CASE("a former handler with siginfo gets the fault's address and may jump out") {
    const auto result = test::run_forked([] {
      static void* page = platform::reserve_memory(4096, 4096);
      platform::protect_none(page, 4096);
      struct sigaction action {};
      action.sa_flags = SA_SIGINFO;
      action.sa_sigaction = [](int, siginfo_t* info, void*) {
        handled = info->si_addr == page ? 1 : -1;
        siglongjmp(jump, 1);
      };
      ::sigaction(SIGSEGV, &action, nullptr);
      if (!install_overflow_handler()) ::_exit(9);
      for (int i = 0; i < 3; ++i) {
        handled = 0;
        if (sigsetjmp(jump, 1) == 0) write_to(static_cast<std::byte*>(page));
        if (handled != 1) ::_exit(3);
      }
    });
    CHECK(result.exit_code == 0);
  }

  TEST_CASE("a former plain handler is called plainly, under its mask") {
    const auto result = test::run_forked([] {
      struct sigaction action {};
      sigaddset(&action.sa_mask, SIGUSR1);
      action.sa_handler = [](int signal) {
        sigset_t blocked;
        ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
        handled = signal == SIGSEGV && sigismember(&blocked, SIGUSR1) == 1 &&
                          sigismember(&blocked, SIGSEGV) == 1
                      ? 1
                      : -1;
      };
      ::sigaction(SIGSEGV, &action, nullptr);
      if (!install_overflow_handler()) ::_exit(9);
      ::raise(SIGSEGV);
      if (handled != 1) ::_exit(3);
      handled = 0;
      ::raise(SIGSEGV);
      if (handled != 1) ::_exit(4);
    });
    CHECK(result.exit_code == 0);
  }

  TEST_CASE("SA_NODEFER and SA_RESETHAND of the former handler are kept") {
    const auto result = test::run_forked([] {
      struct sigaction action {};
      action.sa_flags = static_cast<int>(SA_NODEFER | static_cast<unsigned>(SA_RESETHAND));
      action.sa_handler = [](int signal) {
        sigset_t blocked;
        ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
        std::fprintf(stderr, "once %d\n", sigismember(&blocked, signal));
      };
      ::sigaction(SIGSEGV, &action, nullptr);
      if (!install_overflow_handler()) ::_exit(9);
      ::raise(SIGSEGV);
      ::raise(SIGSEGV);
    });
    CHECK(result.signal == SIGSEGV);
    CHECK(result.error_output == "once 0\n");
  }

  TEST_CASE("installing twice does not chain to itself") {
    const auto result = test::run_forked([] {
      if (!install_overflow_handler() || !install_overflow_handler()) ::_exit(9);
      ::raise(SIGSEGV);
    });
    CHECK(result.signal == SIGSEGV);
  }
}
