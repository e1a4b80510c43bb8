// SPDX-License-Identifier: Apache-2.0
//
// What many coroutines of any type wait for at once, until it is opened.
#pragma once

#include "bench/scenario/resumption.hpp"

#include <coroutine>
#include <utility>

namespace bench {

/// What coroutines of any type wait for.
class coroutine_gate {
  struct awaiter {
    coroutine_gate& gate;
    resumption who{};
    awaiter* next = nullptr;

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> h) {
      who = resumption(h);
      next = std::exchange(gate.first_, this);
    }
    void await_resume() const noexcept {}
  };

 public:
  awaiter wait() noexcept { return {*this}; }
  void open() {
    for (awaiter* w = std::exchange(first_, nullptr); w != nullptr;)
      std::exchange(w, w->next)->who.resume();
  }

 private:
  awaiter* first_ = nullptr;
};

}  // namespace bench
