// SPDX-License-Identifier: Apache-2.0
//
// What .NET keeps for each thread and every async call looks at: the ExecutionContext (the values of
// AsyncLocal, flowing with control) and the SynchronizationContext (where what follows an await runs).
//
// An execution context is immutable: setting a value makes another one and makes it the thread's. A call
// saves the thread's two words when it starts and compares them when it leaves, which is all that it
// costs when nothing has changed. There a collector keeps a saved context alive; here the thread holds one
// reference, and the lowest bit of its word says that a call further out has saved the word: then
// setting a value leaves the reference to that call, which takes it back when it restores. So saving and
// restoring count nothing, as in the original; only a suspension does, when it captures the context.
//
// The words are the thread's, not a fiber's: the body of an async1 method must not park a fiber between two
// of its awaits (it would block a thread there, and here it may come back on another).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace bench::async1 {

class thread_pool;

/// .NET's SynchronizationContext.
class synchronization_context {
 public:
  virtual ~synchronization_context() = default;
  /// Queues run(argument), which runs later and exactly once.
  virtual void post(void (*run)(void* argument), void* argument) = 0;

  /// The calling thread's; null: none.
  static synchronization_context* current() noexcept;
  static void set_current(synchronization_context* c) noexcept;
};

/// Values of async_locals: immutable, counted.
class execution_context {
 public:
  using value = std::shared_ptr<const void>;

  const value* find(const void* key) const noexcept {
    for (const auto& [k, v] : values_)
      if (k == key) return &v;
    return nullptr;
  }
  /// A copy of `from` (null: empty) with that value changed; one reference, the caller's.
  static execution_context* with(const execution_context* from, const void* key, value v);

  void add_reference() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

 private:
  execution_context() = default;
  ~execution_context() = default;

  std::vector<std::pair<const void*, value>> values_;  // few: .NET has classes for one to four
  std::atomic<std::uint32_t> references_{1};
};

/// The word of a thread: its context, and whether somebody has saved it.
using context_word = std::uintptr_t;
inline constexpr context_word context_saved = 1;

struct thread_state {
  context_word execution = 0;
  synchronization_context* sync = nullptr;
  thread_pool* pool = nullptr;  ///< whose thread this is
  unsigned inlined = 0;         ///< continuations running one inside the other
};

inline constinit thread_local thread_state this_thread{};

inline synchronization_context* synchronization_context::current() noexcept {
  return this_thread.sync;
}
inline void synchronization_context::set_current(synchronization_context* c) noexcept {
  this_thread.sync = c;
}

inline execution_context* context_of(context_word w) noexcept {
  return reinterpret_cast<execution_context*>(w & ~context_saved);
}

/// What a call must leave behind as it was.
struct saved_contexts {
  context_word execution;
  synchronization_context* sync;
};

inline saved_contexts save_contexts() noexcept {
  thread_state& t = this_thread;
  const context_word e = t.execution;
  if (e != 0) t.execution = e | context_saved;
  return {e, t.sync};
}

void restore_changed_context(context_word saved) noexcept;

/// On the thread and in the reverse order of save_contexts().
inline void restore_contexts(const saved_contexts& saved) noexcept {
  thread_state& t = this_thread;
  if (t.sync != saved.sync) t.sync = saved.sync;
  const context_word unchanged = saved.execution != 0 ? saved.execution | context_saved : 0;
  if (t.execution != unchanged) [[unlikely]]
    restore_changed_context(saved.execution);
  else if (unchanged != saved.execution) t.execution = saved.execution;
}

/// The thread's context with a reference of its own; null: the default one.
inline execution_context* capture_context() noexcept {
  execution_context* const e = context_of(this_thread.execution);
  if (e != nullptr) e->add_reference();
  return e;
}

/// Makes a captured context the thread's, whose own has been saved.
inline void enter_context(execution_context* captured) noexcept {
  this_thread.execution = reinterpret_cast<context_word>(captured);
}

/// .NET's AsyncLocal<T>. Setting it is seen by what the setter calls or awaits, not by who called the
/// setter's async method.
template <class T>
class async_local {
 public:
  async_local() = default;
  async_local(const async_local&) = delete;
  async_local& operator=(const async_local&) = delete;

  /// A default-constructed T where none is set.
  T get() const {
    const execution_context* const e = context_of(this_thread.execution);
    const execution_context::value* const v = e != nullptr ? e->find(this) : nullptr;
    return v != nullptr ? *static_cast<const T*>(v->get()) : T();
  }
  void set(T value);

 private:
  T unused_{};  // so that two of them never share an address
};

void replace_context(execution_context* by) noexcept;

template <class T>
void async_local<T>::set(T value) {
  replace_context(execution_context::with(context_of(this_thread.execution), this,
                                          std::make_shared<const T>(std::move(value))));
}

}  // namespace bench::async1
