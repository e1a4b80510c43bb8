// SPDX-License-Identifier: Apache-2.0
//
// The heap Task: what an async1 method gives when it cannot finish at once. Any number of handles, any number
// of awaiters, from any thread; a result or an exception, for ever.
//
// One word, as .NET's m_continuationObject with the state of completion in it:
//
//   0 pending   1 completed   p one continuation   p|2 a continuation_list
//
// The first awaiter puts itself there by a compare-and-swap; a second makes the list and puts that; later ones
// append under the list's lock. Completing exchanges the word for 1 and runs what was there. A continuation
// runs inline on who completes, unless a SynchronizationContext is current there, or too many already run one
// inside the other (.NET asks how much stack is left): then it goes to the pool.
//
// .NET has a second word of state flags and so a second atomic operation at completion, a holder object
// around an exception, and checks for debuggers and event tracing: left out, to the model's advantage.
#pragma once

#include "bench/models/async1/contexts.hpp"
#include "bench/models/async1/thread_pool.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace bench::async1 {

/// Runs c on the calling thread if .NET would, else on the pool.
void run_or_post(continuation& c) noexcept;

class task_core {
 public:
  enum class kind : bool { counted, immortal };

  bool is_completed() const noexcept { return word_.load(std::memory_order_acquire) == completed; }
  bool is_faulted() const noexcept { return error_ != nullptr; }
  /// Of a completed task.
  void throw_if_faulted() const {
    if (error_ != nullptr) [[unlikely]]
      std::rethrow_exception(error_);
  }

  /// Has c run once the task is complete; false: it is complete.
  ///
  /// \throws std::bad_alloc  from the second on
  template <bool shared>
  bool add(continuation& c) {
    std::uintptr_t expected = 0;
    if constexpr (shared) {
      if (word_.compare_exchange_strong(expected, word_of(c), std::memory_order_acq_rel,
                                        std::memory_order_acquire)) [[likely]]
        return true;
    } else {
      expected = word_.load(std::memory_order_relaxed);
      if (expected == 0) [[likely]] {
        word_.store(word_of(c), std::memory_order_relaxed);
        return true;
      }
    }
    return expected != completed && add_another(c, expected);
  }
  /// The result or the exception is there. Called once.
  template <bool shared>
  void complete() noexcept {
    std::uintptr_t old = completed;
    if constexpr (shared) {
      old = word_.exchange(completed, std::memory_order_acq_rel);
    } else {
      old = word_.load(std::memory_order_relaxed);
      word_.store(completed, std::memory_order_relaxed);
    }
    if (old != 0) run_continuations(old);
  }
  void fail(std::exception_ptr e) noexcept { error_ = std::move(e); }

  /// Blocks the thread until the task is complete: Task.Wait without its AggregateException.
  void wait();

  void add_reference() noexcept {
    if (kind_ == kind::counted) references_.fetch_add(1, std::memory_order_relaxed);
  }
  void release() noexcept {
    if (kind_ == kind::immortal) return;
    // The only reference left cannot become two behind our back.
    if (references_.load(std::memory_order_acquire) == 1 ||
        references_.fetch_sub(1, std::memory_order_acq_rel) == 1)
      destroy_(this);
  }

 protected:
  task_core(void (*destroy)(task_core*) noexcept, std::uint32_t references, kind k,
            bool complete_at_birth) noexcept
      : word_(complete_at_birth ? completed : 0),
        references_(references),
        kind_(k),
        destroy_(destroy) {}
  ~task_core();

 private:
  struct continuation_list {
    std::mutex mutex;
    std::vector<continuation*> all;
  };
  static constexpr std::uintptr_t completed = 1;
  static constexpr std::uintptr_t is_list = 2;
  static std::uintptr_t word_of(continuation& c) noexcept {
    return reinterpret_cast<std::uintptr_t>(&c);
  }
  bool add_another(continuation& c, std::uintptr_t seen);
  void run_continuations(std::uintptr_t word) noexcept;

  std::atomic<std::uintptr_t> word_;
  std::atomic<std::uint32_t> references_;
  kind kind_;
  void (*destroy_)(task_core*) noexcept;
  std::exception_ptr error_;
  continuation_list* used_list_ = nullptr;  // an adder may still be looking at it
};

/// With its result.
template <class T>
class task_object final : public task_core {
 public:
  explicit task_object(std::uint32_t references) noexcept
      : task_core(&destroy, references, kind::counted, false) {}
  /// Complete from the beginning.
  template <class... U>
  task_object(kind k, U&&... value) : task_core(&destroy, 1, k, true) {
    emplace(std::forward<U>(value)...);
  }
  ~task_object() {
    if (has_value_) std::destroy_at(std::addressof(value()));
  }

  template <class... U>
  void emplace(U&&... value) {
    ::new (static_cast<void*>(storage_)) T(std::forward<U>(value)...);
    has_value_ = true;
  }
  T& value() noexcept { return *std::launder(reinterpret_cast<T*>(storage_)); }

 private:
  static void destroy(task_core* t) noexcept { delete static_cast<task_object*>(t); }

  bool has_value_ = false;
  alignas(T) std::byte storage_[sizeof(T)];
};

template <>
class task_object<void> final : public task_core {
 public:
  explicit task_object(std::uint32_t references) noexcept
      : task_core(&destroy, references, kind::counted, false) {}
  explicit task_object(kind k) noexcept : task_core(&destroy, 1, k, true) {}
  void emplace() noexcept {}
  void value() noexcept {}

 private:
  static void destroy(task_core* t) noexcept { delete static_cast<task_object*>(t); }
};

/// The completed tasks that .NET keeps: Task.CompletedTask, both bools, the integers -1 to 8, and zero of the
/// other types of numbers. Variables of the namespace: no access asks whether they are initialised.
inline constexpr auto immortal = task_core::kind::immortal;
inline task_object<void> completed_task{immortal};
inline task_object<bool> completed_bools[2]{{immortal, false}, {immortal, true}};
inline task_object<int> completed_ints[10]{
    {immortal, -1}, {immortal, 0}, {immortal, 1}, {immortal, 2}, {immortal, 3},
    {immortal, 4},  {immortal, 5}, {immortal, 6}, {immortal, 7}, {immortal, 8}};
template <class T>
inline task_object<T> completed_zero{immortal, T()};

/// Null: a new one is needed.
template <class T>
task_object<T>* cached_task(const T& value) noexcept {
  if constexpr (std::is_same_v<T, bool>) return &completed_bools[value ? 1 : 0];
  else if constexpr (std::is_same_v<T, int>)
    return value >= -1 && value <= 8 ? &completed_ints[value + 1] : nullptr;
  else if constexpr (std::is_integral_v<T> || std::is_pointer_v<T>)
    return value == T() ? &completed_zero<T> : nullptr;
  else return nullptr;
}

}  // namespace bench::async1
