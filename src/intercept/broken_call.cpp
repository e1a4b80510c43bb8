// SPDX-License-Identifier: Apache-2.0
#include "intercept/broken_call.hpp"

#include <signal.h>
#include <time.h>

#include <atomic>
#include <cerrno>
#include <mutex>

#include "intercept/install.hpp"
#include "intercept/interruptions.hpp"

namespace tendril::detail {
namespace {

void do_nothing(int) {}

constexpr int none = 0;
constexpr int never_again = -1;
std::atomic<int> reserved{none};
/// Calls that have begun and have not ended.
std::atomic<unsigned> begun{0};

// By libc's own function: neither the front nor a sanitizer is to see a handler of the program's in it.

bool is_ours(int signal) noexcept {
  struct sigaction now {};
  return real().sigaction(signal, nullptr, &now) == 0 && now.sa_handler == &do_nothing;
}

bool take(int signal) noexcept {
  struct sigaction now {};
  if (real().sigaction(signal, nullptr, &now) != 0) return false;
  if (now.sa_handler == &do_nothing) return true;  // another thread was quicker
  if ((now.sa_flags & SA_SIGINFO) != 0 || now.sa_handler != SIG_DFL) return false;
  struct sigaction ours {};
  ours.sa_handler = &do_nothing;  // without SA_RESTART
  sigfillset(&ours.sa_mask);
  return real().sigaction(signal, &ours, nullptr) == 0;
}

int signal_for_a_call() noexcept {
  int seen = reserved.load(std::memory_order_seq_cst);
  if (seen == never_again || !any_handlers()) return none;
  if (seen != none && is_ours(seen)) return seen;
  for (int n = SIGRTMAX - 4; n >= SIGRTMIN; --n) {
    if (!take(n)) continue;
    // Two that choose at the same time choose the same.
    reserved.compare_exchange_strong(seen, n, std::memory_order_seq_cst);
    return n;
  }
  return none;
}

sigset_t set_of(int signal) noexcept {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, signal);
  return one;
}

}  // namespace

void broken_call::begin() noexcept {
  // Dekker's with give_back_signal(): it sees us, or we see that there is none any more.
  begun.fetch_add(1, std::memory_order_seq_cst);
  const int signal = signal_for_a_call();
  {
    const std::lock_guard hold(lock_);
    thread_ = ::pthread_self();
    signal_ = signal;
    stage_ = stage::inside;
  }
  if (signal == none) return;
  const sigset_t one = set_of(signal);
  ::pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
}

[[gnu::noinline]] void broken_call::end() noexcept {
  const int error = errno;
  bool hit = false;
  {
    const std::lock_guard hold(lock_);
    stage_ = stage::over;
    hit = hit_;
  }
  if (signal_ != none) {
    const sigset_t one = set_of(signal_);
    ::pthread_sigmask(SIG_BLOCK, &one, nullptr);
    const timespec at_once{0, 0};
    while (hit && real().sigtimedwait(&one, nullptr, &at_once) == signal_) {
    }
  }
  begun.fetch_sub(1, std::memory_order_seq_cst);
  errno = error;
}

bool broken_call::break_now() noexcept {
  const std::lock_guard hold(lock_);
  if (stage_ != stage::inside) return true;
  if (signal_ == none || !is_ours(signal_)) return false;
  hit_ = true;
  ::pthread_kill(thread_, signal_);
  return true;
}

void give_back_signal() noexcept {
  const int signal = reserved.exchange(never_again, std::memory_order_seq_cst);
  if (signal == none || signal == never_again || begun.load(std::memory_order_seq_cst) != 0) return;
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  if (is_ours(signal)) real().sigaction(signal, &standard, nullptr);
}

}  // namespace tendril::detail
