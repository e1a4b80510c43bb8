// SPDX-License-Identifier: Apache-2.0
//
// Calls that cannot be made to park: libc's own function runs on another thread, and the fiber parks until it
// has ended. Two places for it:
//
//   on_pool()    libuv's few threads. For calls that end by themselves: a disk's
//   on_thread()  a thread for each call in progress, kept for the next ones. For calls that wait for somebody: another
//                process, a server, or another fiber. A pool of any fixed size deadlocks as soon as it is full of
//                calls that wait for what a fiber does only after a call of its own on that pool
//
// What goes along, both ways: errno and h_errno. There: the caller's locale. Not: the rest of what a thread
// has (resolver options, credentials of the thread, its name). Signals of the program's do not reach the call; they are
// handled by other threads. If one of those on_thread() is of a kind that handlers interrupt, and the fiber's is to be, its
// thread is made to give it up, and the fiber still waits for what became of it: see broken_call.hpp.
//
// A tasklet's stack may be copied away while it is parked, and others run at its addresses. f of on_thread()
// therefore owns everything that it touches: arguments are copied into it, results are returned by value. f of
// on_pool() may have references: the tasklet keeps its slot meanwhile (stack_hold.hpp), which is allowed because
// what it waits for is no fiber's doing. keep_slot{} says the same of a call on_thread(), where libc gives back
// pointers into a buffer of the caller's, which cannot be copied.
//
// No memory or no thread for it: the call is made in place, and the monitor sees to the worker.
#pragma once

#include <locale.h>

#include <atomic>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include <tendril/io.hpp>

#include "intercept/broken_call.hpp"
#include "intercept/symbols.hpp"
#include "sched/interruption.hpp"
#include "sched/stack_hold.hpp"

namespace tendril::detail {

/// One call, on the heap.
struct aside_call : pool_call {
  void (*body)(aside_call&) noexcept = nullptr;
  symbol what{};
  std::optional<interruptible> breaks{};  ///< by which handlers it is interrupted
  broken_call breaking;
  // The caller's, and then the call's.
  int error = 0;
  int resolver_error = 0;
  locale_t locale{};
  waiter* who = nullptr;
  std::atomic<bool> done{false};
  aside_call* next = nullptr;
};

/// Runs call.body elsewhere. Returns when it has been run, errno and h_errno being what it left.
/// \switch yes
void run_aside_on_pool(aside_call& call);
void run_aside_on_thread(aside_call& call);

template <class F>
struct aside_call_of final : aside_call {
  using value = std::invoke_result_t<F&>;
  explicit aside_call_of(F&& function) : f(std::move(function)) {
    body = [](aside_call& base) noexcept {
      auto& self = static_cast<aside_call_of&>(base);
      self.result.emplace(self.f());
    };
  }
  F f;
  std::optional<value> result{};
};

struct keep_slot {};

template <class F>
std::invoke_result_t<F&> on_pool(symbol what, F f) {
  const std::unique_ptr<aside_call_of<F>> call(new (std::nothrow) aside_call_of<F>(std::move(f)));
  if (call == nullptr) return f();
  call->what = what;
  const stack_hold references_stay;
  run_aside_on_pool(*call);
  return std::move(*call->result);
}

template <class F>
std::invoke_result_t<F&> on_thread(symbol what, std::optional<interruptible> breaks, F f) {
  const std::unique_ptr<aside_call_of<F>> call(new (std::nothrow) aside_call_of<F>(std::move(f)));
  if (call == nullptr) return f();
  call->what = what;
  call->breaks = breaks;
  run_aside_on_thread(*call);
  return std::move(*call->result);
}

template <class F>
std::invoke_result_t<F&> on_thread(symbol what, F f) {
  return on_thread(what, std::nullopt, std::move(f));
}

template <class F>
std::invoke_result_t<F&> on_thread(symbol what, keep_slot, F f,
                                   std::optional<interruptible> breaks = std::nullopt) {
  const stack_hold references_stay;
  return on_thread(what, breaks, std::move(f));
}

}  // namespace tendril::detail
