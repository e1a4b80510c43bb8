// SPDX-License-Identifier: Apache-2.0
#include "bench/models/async1/contexts.hpp"

namespace bench::async1 {

execution_context* execution_context::with(const execution_context* from, const void* key,
                                           value v) {
  auto made = std::unique_ptr<execution_context, void (*)(execution_context*)>(
      new execution_context, [](execution_context* e) { e->release(); });
  if (from != nullptr) made->values_ = from->values_;
  for (auto& [k, old] : made->values_)
    if (k == key) {
      old = std::move(v);
      return made.release();
    }
  made->values_.emplace_back(key, std::move(v));
  return made.release();
}

void replace_context(execution_context* by) noexcept {
  const context_word old = std::exchange(this_thread.execution, reinterpret_cast<context_word>(by));
  if (old != 0 && (old & context_saved) == 0) context_of(old)->release();
}

void restore_changed_context(context_word saved) noexcept {
  const context_word now = std::exchange(this_thread.execution, saved);
  // Unmarked, the thread holds a reference; perhaps one more to the very context that was saved.
  if (now != 0 && (now & context_saved) == 0) context_of(now)->release();
}

}  // namespace bench::async1
