// SPDX-License-Identifier: Apache-2.0
//
// For code that is no coroutine and resumes coroutines of any type: callbacks, gates.
//
// One whose promise is a continuation of its own that wants to be told of suspensions (the async1 model) is
// told, and resumed through it; of the others a std::coroutine_handle is all that is needed.
#pragma once

#include <coroutine>
#include <utility>

namespace bench {

/// Whom to resume. Made in await_suspend, when nothing can fail any more.
class resumption {
 public:
  resumption() = default;
  template <class Promise>
  explicit resumption(std::coroutine_handle<Promise> h) {
    if constexpr (requires { h.promise().suspending(); }) {
      h.promise().suspending();
      argument_ = &h.promise();
      run_ = [](void* p) {
        auto* const promise = static_cast<Promise*>(p);
        promise->run(promise);
      };
    } else {
      argument_ = h.address();
      run_ = [](void* p) { std::coroutine_handle<>::from_address(p).resume(); };
    }
  }

  explicit operator bool() const noexcept { return run_ != nullptr; }
  void reset() noexcept { run_ = nullptr; }
  /// Once; empty from before the coroutine runs.
  void resume() { std::exchange(run_, nullptr)(argument_); }

 private:
  void (*run_)(void*) = nullptr;
  void* argument_ = nullptr;
};

}  // namespace bench
