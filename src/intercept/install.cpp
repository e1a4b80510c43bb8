// SPDX-License-Identifier: Apache-2.0
//
// Finding the front, and what decides whether a call parks.
//
// Children. fork(): the front forgets the hooks, the child is plain libc. vfork(), and clone() called by
// hand: the child goes on with our thread's words, so that it looks like the fiber that called it; and
// after vfork() it shares our memory, so that closing a descriptor there must not wake who waits for
// it here. So everything that parks or changes what is known of a descriptor asks first for the process.
#include "intercept/install.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <system_error>

#include <tendril/detail/sanitizers.hpp>

#include "intercept/calls.hpp"
#include "intercept/interruptions.hpp"
#include "intercept/parking_lot.hpp"
#include "intercept/report.hpp"
#include "io/descriptor.hpp"
#include "sched/interception.hpp"
#include "sched/worker_thread.hpp"

namespace tendril::detail {
namespace {

const platform::real_calls* real_table = nullptr;
std::atomic<pid_t> process{0};

bool parks() noexcept {
  const worker_thread* const t = this_worker_thread();
  // A thread inside its worker runs the runtime's own code, which neither parks nor may be parked in. On a guest,
  // a thread of the program's that a call has made a fiber's for a while, nobody else could go on. A handler on the
  // signal stack cannot be left for another fiber, whose signals would be handled there, too.
  return t != nullptr && t->current != nullptr && !t->pinned() && !t->guest &&
         !t->hold.looks_inside() && !t->on_signal_stack();
}

// What a kind has in the table of hooks.
#define TENDRIL_HOOK_parks(name) TENDRIL_HOOK(name)
#define TENDRIL_HOOK_opens(name) TENDRIL_HOOK(name)
#define TENDRIL_HOOK_disk(name) TENDRIL_HOOK(name)
#define TENDRIL_HOOK_pool(name) TENDRIL_HOOK(name)
#define TENDRIL_HOOK_aside(name) TENDRIL_HOOK(name)
#define TENDRIL_HOOK_always(name) TENDRIL_HOOK(name)
#define TENDRIL_HOOK_own(name) TENDRIL_HOOK(name)
#define TENDRIL_HOOK_creates(name) nullptr
#define TENDRIL_HOOK_alone(name) nullptr
#define TENDRIL_INTERCEPT(kind, result, name, parameters, arguments, straight, fiber, differs) \
  TENDRIL_HOOK_##kind(name),
#define TENDRIL_INTERCEPT_ALIAS(name, of)

#define TENDRIL_HOOK(name) &calls::name
constexpr platform::intercept_hooks plain_hooks = {
    &real_table,        &parks,
    &descriptor_opened, &parking_lot::in_use,
    &lock_released,     &lock_waited_with,
    &handled_signals,   &attend_handlers,
    &handler_returned,  &posted_in_handler,
    &futex_in_handler,
#include "platform/intercept_symbols.def"
};
#undef TENDRIL_HOOK

/// A function that counts what becomes of a call of `function`.
template <symbol What, auto Function>
struct counted;
template <symbol What, class Result, class... Arguments, Result (*Function)(Arguments...)>
struct counted<What, Function> {
  static Result call(Arguments... arguments) {
    const call_watch watch(What);
    return Function(arguments...);
  }
};

#define TENDRIL_HOOK(name) &counted<symbol::name, &calls::name>::call
constexpr platform::intercept_hooks counting_hooks = {
    &real_table,        &parks,
    &descriptor_opened, &parking_lot::in_use,
    &lock_released,     &lock_waited_with,
    &handled_signals,   &attend_handlers,
    &handler_returned,  &posted_in_handler,
    &futex_in_handler,
#include "platform/intercept_symbols.def"
};
#undef TENDRIL_HOOK
#undef TENDRIL_INTERCEPT
#undef TENDRIL_INTERCEPT_ALIAS

std::atomic<bool> counting{false};
std::atomic<bool> in_place{false};

const platform::intercept_hooks* hooks() noexcept {
  return counting.load(std::memory_order_relaxed) ? &counting_hooks : &plain_hooks;
}

platform::install_function find_front() noexcept {
  return reinterpret_cast<platform::install_function>(
      ::dlsym(RTLD_DEFAULT, platform::install_symbol));
}

/// See front.hpp.
[[maybe_unused]] void warn_of_thread_sanitizer(const char* front) noexcept {
  Dl_info first;
  void* const poll = ::dlsym(RTLD_DEFAULT, "poll");
  if (poll == nullptr || ::dladdr(poll, &first) == 0 || std::strcmp(first.dli_fname, front) == 0)
    return;
  static std::atomic_flag said;
  if (!said.test_and_set(std::memory_order_relaxed))
    std::fprintf(
        stderr,
        "tendril: ThreadSanitizer will report races that are none: its own functions, in %s, come "
        "before tendril::intercept; run the program with LD_PRELOAD=%s\n",
        first.dli_fname, front);
}

/// Nothing would park: a program that counts on it would sooner or later wait for ever.
[[noreturn]] void refuse(const platform::install_answer& answer) {
  constexpr auto mine = platform::intercept_version_text();
  const auto* const theirs =
      static_cast<const char*>(::dlsym(RTLD_DEFAULT, platform::version_symbol));
  throw std::system_error(std::make_error_code(std::errc::not_supported),
                          std::string("runtime: ") + answer.front +
                              ", which comes before libc, is tendril::intercept " +
                              (theirs != nullptr ? theirs : "of a version that does not tell") +
                              ", and the tendril that this program is linked with is " +
                              mine.chars +
                              ": build and install both together, or, if it is preloaded "
                              "(LD_PRELOAD), run the program without it");
}

void install() {
  const platform::install_function front = find_front();
  if (front == nullptr) return;
  process.store(::getpid(), std::memory_order_relaxed);
  if (report_is_wanted()) counting.store(true, std::memory_order_relaxed);
  platform::install_answer answer;
  const auto result = front(platform::intercept_version(), hooks(), &answer);
  if (result == platform::install_result::other_version) refuse(answer);
  in_place.store(result == platform::install_result::installed, std::memory_order_relaxed);
  if (result == platform::install_result::installed) {
    attend_handlers();
    if constexpr (TENDRIL_TSAN) warn_of_thread_sanitizer(answer.front);
    return;
  }
  static std::atomic_flag said;
  if (said.test_and_set(std::memory_order_relaxed)) return;
  std::fprintf(
      stderr,
      "tendril: libc's calls will block: '%s' is found in %s, which comes before %s in lookup "
      "order; link tendril::intercept into the program itself, not into a library of its, and "
      "before libc, or preload it (LD_PRELOAD=%s)\n",
      answer.symbol, answer.found_in, answer.front, answer.front);
}

/// When the library goes (the process ends, or the plugin that contains it is unloaded) calls are libc's again.
struct uninstaller {
  ~uninstaller() {
    platform::install_answer answer;
    if (const auto front = find_front(); front != nullptr && real_table != nullptr) {
      front(platform::intercept_version(), nullptr, &answer);
      dismiss_attendant();
    }
  }
} const at_the_end;

}  // namespace

const platform::real_calls& real() noexcept { return *real_table; }

bool in_other_process() noexcept { return ::getpid() != process.load(std::memory_order_relaxed); }

[[gnu::noinline]] int errno_now() noexcept { return errno; }

[[gnu::noinline]] long finish(long result, int errno_before) noexcept {
  errno = result < 0 ? static_cast<int>(-result) : errno_before;
  return result < 0 ? -1 : result;
}

bool caller_parks() noexcept { return parks(); }

void descriptor_opened(int fd) noexcept {
  if (const descriptor* const d = find_descriptor(fd);
      d != nullptr && d->is_adopted() && !in_other_process())
    drop_descriptor(fd);
}

void install_interception() { install(); }

bool is_in_place() noexcept { return in_place.load(std::memory_order_relaxed); }

void count_calls(bool on) noexcept {
  if (counting.exchange(on, std::memory_order_relaxed) == on || !is_in_place()) return;
  platform::install_answer answer;
  find_front()(platform::intercept_version(), hooks(), &answer);
}

}  // namespace tendril::detail
