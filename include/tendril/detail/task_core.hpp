// SPDX-License-Identifier: Apache-2.0
//
// What every coroutine of <tendril/task.hpp> has, whatever its result: its place in the chain of calls, how control
// goes back to who awaits it, and who owns its frame.
#pragma once

#include <tendril/config.hpp>
#include <tendril/detail/awaitable.hpp>
#include <tendril/detail/chain.hpp>
#include <tendril/detail/contract.hpp>
#include <tendril/detail/tail_transfer.hpp>

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

namespace tendril {

template <class T>
class task;

namespace detail {

class promise_core;

class task_base {
 public:
  task_base(const task_base&) = delete;
  task_base& operator=(const task_base&) = delete;

 protected:
  task_base() noexcept = default;
  explicit task_base(promise_core* p) noexcept : promise_(p) {}
  ~task_base() = default;

  promise_core* promise_ = nullptr;

  friend class promise_core;
  friend struct task_access;
};

/// Where a task is awaited by another, in the frame of that one.
struct call_site {
  task_base& callee;
};
/// Where the callee runs on the stack of who awaits it. `returned` is on that stack: it may be touched only in the
/// turn (chain.hpp) in which the call was made.
struct call_site_here : call_site {
  bool* returned = nullptr;
};

[[noreturn]] TENDRIL_API void throw_empty_task(const char* what);
[[noreturn]] TENDRIL_API void throw_awaits_itself();

/// What the promises of all tasks share.
class promise_core {
 public:
  static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
  static void operator delete(void* frame) noexcept { free_frame(frame); }

  struct at_end {
    bool await_ready() const noexcept { return false; }
    template <class P>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<P> h) const noexcept {
      promise_core& p = h.promise();
      return p.after ? p.after : p.end();
    }
    void await_resume() const noexcept {}
  };

  std::suspend_always initial_suspend() const noexcept { return {}; }
  at_end final_suspend() const noexcept { return {}; }
  void unhandled_exception() noexcept {
    error = std::current_exception();
    if (awaited_by != nullptr && awaited_by->passes) after = nullptr;  // to end()
  }

  /// Started, as part of `c`, by who is resumed at the end.
  void start_in(coroutine_chain* c, promise_core& caller, call_site& from) noexcept {
    chain = c;
    after = caller.self;
    awaited_by = &caller;
    site = &from;
    frame_head& head = head_of(self.address());
    if (head.block != nullptr && head.block->owner.load(std::memory_order_relaxed) == c)
      head.flags.store(frame_head::local, std::memory_order_relaxed);
  }
  /// The same, to run on the caller's stack: at its end, in the same turn, it sets *returned and resumes nobody.
  void start_here(coroutine_chain* c, promise_core& caller, call_site_here& from,
                  bool& returned) noexcept {
    start_in(c, caller, from);
    after = nullptr;
    called_here = true;
    turn = c->turn();
    from.returned = &returned;
  }
  /// The end, where `after` does not say whom to resume. Returns whom.
  TENDRIL_API std::coroutine_handle<> end() noexcept;

  std::coroutine_handle<> self;
  coroutine_chain* chain = nullptr;  ///< null: not started
  std::coroutine_handle<> after;     ///< null: it is for end() to find out
  promise_core* awaited_by = nullptr;
  call_site* site = nullptr;
  std::exception_ptr error;
  bool passes = false;
  bool called_here = false;  ///< site is a call_site_here
  std::uint32_t turn = 0;    ///< then: in which it was called

 private:
  std::coroutine_handle<> back() noexcept;
};

struct task_access {
  static promise_core* promise(const task_base& t) noexcept { return t.promise_; }
  static promise_core* release(task_base& t) noexcept { return std::exchange(t.promise_, nullptr); }
  /// \throws std::system_error invalid_argument: moved from, or awaited before
  static promise_core& to_start(const task_base& t, const char* what) {
    if (t.promise_ == nullptr || t.promise_->chain != nullptr) [[unlikely]]
      throw_empty_task(what);
    return *t.promise_;
  }
};

/// Destroys a coroutine that has ended or not begun.
struct frame_owner {
  promise_core* promise;
  explicit frame_owner(promise_core* p) noexcept : promise(p) {}
  frame_owner(const frame_owner&) = delete;
  frame_owner& operator=(const frame_owner&) = delete;
  ~frame_owner() { promise->self.destroy(); }
};

}  // namespace detail
}  // namespace tendril
