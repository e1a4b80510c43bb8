// SPDX-License-Identifier: Apache-2.0
//
// Contract: memory faults (SIGSEGV, SIGBUS) as calls, on a stack of their own.
//
// Idea: a fiber that has run off its stack has nothing left for a handler's frame, so every thread
// that runs fibers owns a signal_stack. One handler for the process asks one callback whether the
// fault is its business. If it is not, whoever handled the signal before is called as the kernel would
// have called him: with or without siginfo, under his mask, once only if he asked for that; and the
// default action stays what it was, down to the core file showing the faulting instruction.
//
// The handler is never taken out again: somebody may have chained to it, and would then call nothing.
#pragma once

#include <cstddef>

namespace tendril::platform {

struct memory_fault {
  int signal;
  const void* address;        ///< what was accessed; null when the processor did not tell
  const void* stack_pointer;  ///< of the faulting code; null when unknown
};

/// Runs on the signal stack, in the handler. True: reported; the process then dies of the signal.
/// False: not ours.
using fault_callback = bool (*)(const memory_fault&) noexcept;

/// Installs the handler for the process at the first call; later ones replace the callback only.
/// False when the system refuses.
bool handle_memory_faults(fault_callback callback) noexcept;

/// The calling thread's alternate signal stack. Installed and uninstalled by the thread that owns it,
/// not while a handler runs on it.
class signal_stack {
 public:
  signal_stack() noexcept = default;
  ~signal_stack() { uninstall(); }
  signal_stack(const signal_stack&) = delete;
  signal_stack& operator=(const signal_stack&) = delete;

  /// False when there is no memory. The thread's former signal stack comes back at uninstall: a
  /// sanitizer or another runtime may own it.
  bool install() noexcept;
  void uninstall() noexcept;
  bool installed() const noexcept { return mapping_ != nullptr; }
  bool contains(const void* address) const noexcept {
    const auto* const low = static_cast<const std::byte*>(mapping_);
    const auto* const at = static_cast<const std::byte*>(address);
    return low != nullptr && at >= low && at < low + mapping_bytes_;
  }

 private:
  void* mapping_ = nullptr;  ///< a guard page, then the stack
  std::size_t mapping_bytes_ = 0;
  void* former_low_ = nullptr;
  std::size_t former_bytes_ = 0;
};

}  // namespace tendril::platform
