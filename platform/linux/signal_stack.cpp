// SPDX-License-Identifier: Apache-2.0
#include "platform/signal_stack.hpp"

#include "platform/memory.hpp"

#include <signal.h>
#include <sys/auxv.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <mutex>

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

namespace tendril::platform {
namespace {

std::atomic<fault_callback> callback_now{nullptr};

/// Who had the signal before us. Written before our handler is installed.
struct former_action {
  struct sigaction action {};
  std::atomic<bool> spent{false};  ///< SA_RESETHAND: called once already
};
former_action former_segv;
former_action former_bus;

former_action& former_of(int signal) noexcept {
  return signal == SIGBUS ? former_bus : former_segv;
}

const void* stack_pointer_of([[maybe_unused]] const void* context) noexcept {
#if defined(__x86_64__)
  const auto* uc = static_cast<const ucontext_t*>(context);
  return reinterpret_cast<const void*>(uc->uc_mcontext.gregs[REG_RSP]);
#elif defined(__aarch64__)
  const auto* uc = static_cast<const ucontext_t*>(context);
  return reinterpret_cast<const void*>(uc->uc_mcontext.sp);
#else
  return nullptr;
#endif
}

/// Lets the default action come. A fault comes again when the handler returns and the instruction
/// repeats, so that the core shows it and not us; a signal that was sent has to be sent again. It is
/// blocked until the handler returns.
void leave_to_default(int signal, bool is_fault) noexcept {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  sigemptyset(&standard.sa_mask);
  ::sigaction(signal, &standard, nullptr);
  if (!is_fault) ::raise(signal);
}

void pass_on(int signal, siginfo_t* info, void* context, bool is_fault) noexcept {
  former_action& former = former_of(signal);
  const struct sigaction& action = former.action;
  const bool with_info = (action.sa_flags & SA_SIGINFO) != 0;
  if (!with_info && action.sa_handler == SIG_IGN) {
    if (!is_fault) return;
    return leave_to_default(signal, true);  // the kernel does not let a fault be ignored either
  }
  const bool once =
      (static_cast<unsigned>(action.sa_flags) & static_cast<unsigned>(SA_RESETHAND)) != 0;
  if ((!with_info && action.sa_handler == SIG_DFL) ||
      (once && former.spent.exchange(true, std::memory_order_relaxed))) {
    return leave_to_default(signal, is_fault);
  }
  // sa_mask was copied into our own action, so it is in force already. The signal itself is blocked
  // unless he did not want that.
  sigset_t own;
  sigset_t before;
  const bool nested = (action.sa_flags & SA_NODEFER) != 0;
  if (nested) {
    sigemptyset(&own);
    sigaddset(&own, signal);
    ::pthread_sigmask(SIG_UNBLOCK, &own, &before);
  }
  if (with_info) action.sa_sigaction(signal, info, context);
  else action.sa_handler(signal);
  if (nested) ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void on_signal(int signal, siginfo_t* info, void* context) noexcept {
  const int saved_errno = errno;
  // Faults have codes above zero; kill(), sigqueue() and raise() zero or less.
  const bool is_fault = info->si_code > 0;
  const fault_callback callback = callback_now.load(std::memory_order_acquire);
  const memory_fault fault{signal, info->si_addr, stack_pointer_of(context)};
  if (is_fault && callback != nullptr && callback(fault)) leave_to_default(signal, true);
  else pass_on(signal, info, context, is_fault);
  errno = saved_errno;
}

bool install_handler(int signal) noexcept {
  former_action& former = former_of(signal);
  // First asked, then replaced: our handler must find `former` filled in from its first call on.
  if (::sigaction(signal, nullptr, &former.action) != 0) return false;
  struct sigaction ours {};
  ours.sa_sigaction = &on_signal;
  ours.sa_mask = former.action.sa_mask;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | (former.action.sa_flags & SA_RESTART);
  return ::sigaction(signal, &ours, nullptr) == 0;
}

/// The kernel's frame (with AVX-512 and AMX state up to 11 KiB) and a backtrace's needs.
std::size_t signal_stack_bytes() noexcept {
  const std::size_t page = page_size();
  const std::size_t wanted = (std::size_t{64} << 10) + ::getauxval(AT_MINSIGSTKSZ);
  return (wanted + page - 1) / page * page;
}

}  // namespace

bool handle_memory_faults(fault_callback callback) noexcept {
  static std::mutex mutex;
  static bool installed = false;
  const std::lock_guard lock(mutex);
  callback_now.store(callback, std::memory_order_release);
  if (!installed) installed = install_handler(SIGSEGV) && install_handler(SIGBUS);
  return installed;
}

bool signal_stack::install() noexcept {
  if (installed()) return true;
  const std::size_t page = page_size();
  const std::size_t bytes = page + signal_stack_bytes();
  void* mapping = reserve_memory(bytes, page);
  if (mapping == nullptr) return false;
  if (!install_guard(mapping, page)) protect_none(mapping, page);  // else without: better than none
  stack_t ours{};
  ours.ss_sp = static_cast<std::byte*>(mapping) + page;
  ours.ss_size = bytes - page;
  stack_t former{};
  if (::sigaltstack(&ours, &former) != 0) {
    release_memory(mapping, bytes);
    return false;
  }
  if ((former.ss_flags & SS_DISABLE) == 0) {
    former_low_ = former.ss_sp;
    former_bytes_ = former.ss_size;
  }
  mapping_ = mapping;
  mapping_bytes_ = bytes;
  return true;
}

void signal_stack::uninstall() noexcept {
  if (!installed()) return;
  stack_t now{};
  ::sigaltstack(nullptr, &now);
  // Somebody else's by now: theirs stays, and so must ours, which they may put back.
  if (!contains(now.ss_sp)) return;
  stack_t former{};
  if (former_low_ != nullptr) {
    former.ss_sp = former_low_;
    former.ss_size = former_bytes_;
  } else {
    former.ss_flags = SS_DISABLE;
  }
  ::sigaltstack(&former, nullptr);
  release_memory(mapping_, mapping_bytes_);
  mapping_ = former_low_ = nullptr;
  mapping_bytes_ = former_bytes_ = 0;
}

}  // namespace tendril::platform
