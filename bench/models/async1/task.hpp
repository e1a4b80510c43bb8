// SPDX-License-Identifier: Apache-2.0
//
// async1: methods that are written as coroutines and behave, and cost, as C#'s async methods do on .NET
// without Runtime Async.
//
//   async1::task<int> outer() { co_return 1 + co_await inner(); }
//
// What the machinery does at each call, and where (docs/models.md says what each costs):
//
//   call           the frame (frames.hpp); both contexts saved       promise::initial_suspend
//                  then the body runs at once, on the caller's thread
//   done at once   contexts restored; the result in a cached Task    promise::deliver, final_awaiter
//                  or a new one (task), or in the handle itself (value_task)
//   first await    a Task is allocated and becomes the caller's      promise::suspending
//   that suspends  handle; contexts restored for the caller
//   each such      the execution context is captured; the method is  promise::suspending,
//                  hung on the awaited task's list, or handed with    await_continuation
//                  the SynchronizationContext to be posted there
//   resumption     by who completes the awaited task, inline, or by  promise::move_next,
//                  the pool: contexts saved, the captured one put     run_or_post
//                  in force, the body goes on, contexts restored
//   exception      caught at the end of each method, kept in its      promise::unhandled_exception,
//                  Task, thrown again by whoever awaits that          await_resume
//   end            the Task is completed, its continuations run       final_awaiter
//
// A handle is filled in while the method runs for the first time: C++ gives the handle's place to the
// coroutine before the body begins (no copy is made of what get_return_object returns, where it is of the
// function's own type), and until the first suspension the caller cannot have touched it.
//
// `Features` switches parts of it off, to see what they cost: figures of the model are those of `dotnet`.
#pragma once

#include "bench/models/async1/contexts.hpp"
#include "bench/models/async1/frames.hpp"
#include "bench/models/async1/task_core.hpp"
#include "bench/models/async1/thread_pool.hpp"

#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <variant>

namespace bench::async1 {

/// All that .NET does.
struct dotnet {
  static constexpr bool contexts = true;       ///< saved, captured, restored
  static constexpr bool cached_tasks = true;   ///< small results need no new Task
  static constexpr bool pooled_frames = true;  ///< false: operator new for each call
  static constexpr bool shared_tasks = true;   ///< false: Tasks know one thread only, no atomics
};

template <class T, class Features>
class task;
template <class T, class Features>
class value_task;

namespace detail {

/// What resuming needs to know of a suspended method: .NET's IAsyncStateMachineBox.
struct box : continuation {
  using continuation::continuation;
  execution_context* captured = nullptr;  // one reference
};

/// Posts a method to the SynchronizationContext it was in, unless it is current anyway.
struct posted_continuation final : continuation {
  posted_continuation(box& m, synchronization_context& where) noexcept
      : continuation(&post), method(m), context(where) {}
  static void post(continuation* self) noexcept {
    auto* const p = static_cast<posted_continuation*>(self);
    if (synchronization_context::current() == &p->context) {
      deliver(p);
      return;
    }
    p->context.post(&deliver, p);
  }
  static void deliver(void* self) noexcept {
    auto* const p = static_cast<posted_continuation*>(self);
    box& m = p->method;
    delete p;
    m.run(&m);
  }
  box& method;
  synchronization_context& context;
};

/// What is no async1 method and waits for one: .NET's OnCompleted(Action).
struct foreign_continuation final : continuation {
  explicit foreign_continuation(std::coroutine_handle<> h) noexcept
      : continuation([](continuation* c) noexcept {
          auto* const self = static_cast<foreign_continuation*>(c);
          const std::coroutine_handle<> handle = self->who;
          delete self;
          handle.resume();
        }),
        who(h) {}
  std::coroutine_handle<> who;
};

/// Hangs a suspended method on a task. `current`: its context, if it is to be resumed there.
template <bool shared>
void resume_after(task_core& awaited, box& method, synchronization_context* current) {
  continuation* c = &method;
  if (current != nullptr) c = new posted_continuation(method, *current);
  if (awaited.add<shared>(*c)) return;
  // Completed meanwhile. It does not go on here, where the method is still being left.
  if (current != nullptr) current->post(&posted_continuation::deliver, c);
  else thread_pool::installed().post(*c);
}

template <class T>
struct result_holder {
  using stored = T;
};
template <>
struct result_holder<void> {
  using stored = std::monostate;
};

/// Common to the promises of task and value_task. `Handle` is what the method returns.
template <class T, class Handle, class Features>
class promise_base : public box {
 public:
  static void* operator new(std::size_t bytes) {
    if constexpr (Features::pooled_frames) return frame_lists::allocate(bytes);
    else return ::operator new(bytes);
  }
  static void operator delete(void* p, std::size_t bytes) noexcept {
    if constexpr (Features::pooled_frames) frame_lists::free(p, bytes);
    else ::operator delete(p);
  }

  promise_base() noexcept : box(&move_next) {}
  promise_base(const promise_base&) = delete;
  promise_base& operator=(const promise_base&) = delete;

  Handle get_return_object() noexcept { return Handle(*this); }
  std::suspend_never initial_suspend() noexcept {
    if constexpr (Features::contexts) saved_ = save_contexts();
    return {};
  }

  void unhandled_exception() {
    if (own_ != nullptr) {
      own_->fail(std::current_exception());
      return;
    }
    auto failed = std::make_unique<task_object<T>>(1);
    failed->fail(std::current_exception());
    failed->template complete<false>();
    handle_->adopt(failed.release());
  }

  /// The end: of a call that never suspended, as if it had been a function; else of the frame, and then
  /// whoever waits goes on.
  struct final_awaiter {
    promise_base& method;
    bool await_ready() const noexcept {
      if (method.own_ != nullptr) return false;
      if constexpr (Features::contexts) restore_contexts(method.saved_);
      return true;
    }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> h) noexcept {
      task_object<T>* const done = method.own_;
      h.destroy();  // and this awaiter with it
      done->template complete<Features::shared_tasks>();
      done->release();
    }
    void await_resume() const noexcept {}
  };
  final_awaiter final_suspend() noexcept { return {*this}; }

  /// Before each suspension: from here on another thread may resume the method as soon as it is hung
  /// somewhere.
  void suspending() {
    const bool first = own_ == nullptr;
    if (first) {
      own_ = new task_object<T>(2);
      handle_->adopt(own_);
      handle_ = nullptr;
    }
    if constexpr (Features::contexts) {
      this->captured = capture_context();
      if (first) restore_contexts(saved_);
    }
  }

 protected:
  template <class... U>
  void deliver(U&&... result) {
    if (own_ != nullptr) own_->emplace(std::forward<U>(result)...);
    else handle_->set(std::forward<U>(result)...);
  }

 private:
  friend Handle;

  /// Goes on after an await: AsyncStateMachineBox.MoveNext and ExecutionContext.RunInternal.
  static void move_next(continuation* self) noexcept {
    auto& method = static_cast<typename Handle::promise_type&>(static_cast<promise_base&>(*self));
    const auto h = std::coroutine_handle<typename Handle::promise_type>::from_promise(method);
    if constexpr (Features::contexts) {
      const saved_contexts before = save_contexts();
      enter_context(std::exchange(method.captured, nullptr));
      h.resume();
      restore_contexts(before);
    } else {
      h.resume();
    }
  }

  Handle* handle_ = nullptr;       // until the first suspension
  task_object<T>* own_ = nullptr;  // from then on; one reference
  saved_contexts saved_{};
};

template <class T, class Handle, class Features>
struct promise : promise_base<T, Handle, Features> {
  template <class U>
  requires std::is_constructible_v<T, U>
  void return_value(U&& value) { this->deliver(std::forward<U>(value)); }
};
template <class Handle, class Features>
struct promise<void, Handle, Features> : promise_base<void, Handle, Features> {
  void return_void() { this->deliver(); }
};

/// co_await of a task_core, in a method or in another kind of coroutine. False: the latter goes on at once.
template <class Features, class Promise>
bool await_continuation(task_core& awaited, std::coroutine_handle<Promise> h,
                        bool return_to_context) {
  if constexpr (std::is_base_of_v<box, Promise>) {
    auto& method = h.promise();
    synchronization_context* const current =
        return_to_context ? synchronization_context::current() : nullptr;
    method.suspending();
    resume_after<Features::shared_tasks>(awaited, method, current);
    return true;
  } else {
    auto c = std::make_unique<foreign_continuation>(h);
    if (!awaited.add<Features::shared_tasks>(*c)) return false;
    c.release();
    return true;
  }
}

/// A copy of the result where it can be copied, as any number may await; a move-only one is taken.
template <class T>
T result_of(task_object<T>& t) {
  t.throw_if_faulted();
  if constexpr (std::is_void_v<T>) return;
  else if constexpr (std::is_copy_constructible_v<T>) return t.value();
  else return std::move(t.value());
}

/// Awaits what somebody else keeps, without a handle of its own (g++ 12 copies an lvalue that is awaited).
template <class Awaitable>
struct configured {
  Awaitable& awaited;
  bool return_to_context;
  bool await_ready() const noexcept { return awaited.await_ready(); }
  template <class Promise>
  bool await_suspend(std::coroutine_handle<Promise> h) {
    return awaited.suspend(h, return_to_context);
  }
  decltype(auto) await_resume() { return awaited.await_resume(); }
};

}  // namespace detail

/// .NET's Task<T>: a counted handle of a heap object. Copy it to await it from several places.
///
/// \threads as std::shared_ptr: what it refers to may be used from several, a handle by one at a time
template <class T, class Features = dotnet>
class [[nodiscard]] task {
 public:
  using promise_type = detail::promise<T, task, Features>;

  task() noexcept = default;
  /// Takes over a reference.
  explicit task(task_object<T>* t) noexcept : object_(t) {}
  task(const task& other) noexcept : object_(other.object_) {
    if (object_ != nullptr) object_->add_reference();
  }
  task(task&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  task& operator=(task other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~task() {
    if (object_ != nullptr) object_->release();
  }

  bool valid() const noexcept { return object_ != nullptr; }
  bool is_completed() const noexcept { return object_->is_completed(); }
  /// GetAwaiter().GetResult(): blocks the thread until the task is complete.
  T get() {
    object_->wait();
    return await_resume();
  }
  /// ConfigureAwait. The task is kept by the caller.
  auto configure_await(bool return_to_context) noexcept {
    return detail::configured<task>{*this, return_to_context};
  }

  bool await_ready() const noexcept { return is_completed(); }
  template <class Promise>
  bool await_suspend(std::coroutine_handle<Promise> h) {
    return suspend(h, true);
  }
  T await_resume() { return detail::result_of(*object_); }

 private:
  template <class, class, class>
  friend class detail::promise_base;
  template <class>
  friend struct detail::configured;

  template <class Base>
  explicit task(Base& method) noexcept requires std::is_base_of_v<detail::box, Base> {
    method.handle_ = this;
  }
  template <class Promise>
  bool suspend(std::coroutine_handle<Promise> h, bool return_to_context) {
    return detail::await_continuation<Features>(*object_, h, return_to_context);
  }
  void adopt(task_object<T>* t) noexcept { object_ = t; }
  template <class... U>
  void set(U&&... value) {
    if constexpr (Features::cached_tasks) {
      if constexpr (std::is_void_v<T>) object_ = &completed_task;
      else if constexpr (std::is_scalar_v<T>) object_ = cached_task<T>(value...);
      if (object_ != nullptr) return;
    }
    object_ = new task_object<T>(task_core::kind::counted, std::forward<U>(value)...);
  }

  task_object<T>* object_ = nullptr;
};

/// .NET's ValueTask<T>: the result itself, or a Task. Awaited once.
template <class T, class Features = dotnet>
class [[nodiscard]] value_task {
 public:
  using promise_type = detail::promise<T, value_task, Features>;

  value_task() noexcept = default;
  value_task(value_task&& other) noexcept
      : object_(std::exchange(other.object_, nullptr)), here_(std::move(other.here_)) {}
  value_task& operator=(value_task&& other) noexcept {
    std::swap(object_, other.object_);
    std::swap(here_, other.here_);
    return *this;
  }
  ~value_task() {
    if (object_ != nullptr) object_->release();
  }

  bool is_completed() const noexcept { return object_ == nullptr || object_->is_completed(); }
  T get() {
    if (object_ != nullptr) object_->wait();
    return await_resume();
  }
  auto configure_await(bool return_to_context) noexcept {
    return detail::configured<value_task>{*this, return_to_context};
  }

  bool await_ready() const noexcept { return is_completed(); }
  template <class Promise>
  bool await_suspend(std::coroutine_handle<Promise> h) {
    return suspend(h, true);
  }
  T await_resume() {
    if (object_ != nullptr) return detail::result_of(*object_);
    if constexpr (!std::is_void_v<T>) return std::move(*here_);
  }

 private:
  template <class, class, class>
  friend class detail::promise_base;
  template <class>
  friend struct detail::configured;

  template <class Base>
  explicit value_task(Base& method) noexcept requires std::is_base_of_v<detail::box, Base> {
    method.handle_ = this;
  }
  template <class Promise>
  bool suspend(std::coroutine_handle<Promise> h, bool return_to_context) {
    return detail::await_continuation<Features>(*object_, h, return_to_context);
  }
  void adopt(task_object<T>* t) noexcept { object_ = t; }
  template <class... U>
  void set(U&&... value) {
    if constexpr (!std::is_void_v<T>) here_.emplace(std::forward<U>(value)...);
  }

  task_object<T>* object_ = nullptr;
  [[no_unique_address]] std::optional<typename detail::result_holder<T>::stored> here_;
};

/// TaskCompletionSource<T>: completes a task by hand.
///
/// \threads one completes it
template <class T, class Features = dotnet>
class completion_source {
 public:
  completion_source() : object_(new task_object<T>(1)) {}
  completion_source(const completion_source&) = delete;
  completion_source& operator=(const completion_source&) = delete;
  ~completion_source() { object_->release(); }

  task<T, Features> get_task() noexcept {
    object_->add_reference();
    return task<T, Features>(object_);
  }
  /// \throws std::logic_error  complete already
  template <class... U>
  void set_result(U&&... value) {
    const auto kept = checked();
    kept->emplace(std::forward<U>(value)...);
    kept->template complete<Features::shared_tasks>();
  }
  void set_exception(std::exception_ptr e) {
    const auto kept = checked();
    kept->fail(std::move(e));
    kept->template complete<Features::shared_tasks>();
  }

 private:
  struct releaser {
    void operator()(task_object<T>* t) const noexcept { t->release(); }
  };
  /// With a reference: who awaits the task may destroy the source before completing has returned.
  std::unique_ptr<task_object<T>, releaser> checked() const {
    if (object_->is_completed())
      throw std::logic_error("async1::completion_source: the task is complete already");
    object_->add_reference();
    return std::unique_ptr<task_object<T>, releaser>(object_);
  }
  task_object<T>* object_;
};

/// Task.FromResult, Task.CompletedTask.
template <class T>
task<T> from_result(T value) {
  if constexpr (std::is_scalar_v<T>)
    if (task_object<T>* const cached = cached_task<T>(value)) return task<T>(cached);
  return task<T>(new task_object<T>(task_core::kind::counted, std::move(value)));
}
inline task<void> completed() noexcept { return task<void>(&completed_task); }

/// Task.Yield(): goes on later: in the SynchronizationContext, else on the pool.
struct yield {
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> h) {
    auto& method = h.promise();
    synchronization_context* const current = synchronization_context::current();
    // What may fail comes before the method is marked as suspended.
    std::unique_ptr<detail::posted_continuation> posted;
    thread_pool* pool = nullptr;
    if (current != nullptr)
      posted = std::make_unique<detail::posted_continuation>(method, *current);
    else pool = this_thread.pool != nullptr ? this_thread.pool : &thread_pool::installed();
    method.suspending();
    if (current != nullptr) current->post(&detail::posted_continuation::deliver, posted.release());
    else pool->post(method);
  }
  void await_resume() const noexcept {}
};

namespace detail {

struct go_to_pool {
  thread_pool& pool;
  bool await_ready() const noexcept { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> h) {
    h.promise().suspending();
    pool.post(h.promise());
  }
  void await_resume() const noexcept {}
};

/// Task.Run: the task of a call that happens on the pool.
template <class F>
auto run_on_pool(thread_pool& pool, F& f) -> task<decltype(f().get())> {
  co_await go_to_pool{pool};
  co_return co_await f();
}

}  // namespace detail

template <class F>
auto thread_pool::run(F f) {
  return detail::run_on_pool(*this, f).get();
}

}  // namespace bench::async1
