// SPDX-License-Identifier: Apache-2.0
//
// co_await async1::from(f) in an async1 method: waiting for a tendril::future, so for a thunk or a fiber. One that
// is ready is taken without anything; else the method is hung on the future as on a task, and resumed where .NET
// resumes what a foreign thread completes: in the SynchronizationContext it was in, else on the pool.
#pragma once

#include "bench/models/async1/task.hpp"

#include <tendril/detail/waiting.hpp>
#include <tendril/future.hpp>

#include <coroutine>
#include <utility>

namespace bench::async1 {

template <class T>
class future_awaiter : private tendril::detail::continuation {
 public:
  explicit future_awaiter(tendril::future<T>&& f) noexcept : future_(std::move(f)) {}
  future_awaiter(const future_awaiter&) = delete;
  future_awaiter& operator=(const future_awaiter&) = delete;

  bool await_ready() const noexcept { return tendril::detail::future_access::is_ready(future_); }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> h) {
    method_ = &h.promise();
    context_ = synchronization_context::current();
    this->run = [](tendril::detail::continuation* c) noexcept {
      static_cast<future_awaiter*>(c)->resume();
    };
    h.promise().suspending();
    if (!tendril::detail::future_access::on_ready(future_, *this)) resume();
  }
  T await_resume() { return tendril::detail::future_access::take(future_); }

 private:
  void resume() noexcept {
    if (context_ != nullptr)
      context_->post(
          [](void* m) { static_cast<detail::box*>(m)->run(static_cast<detail::box*>(m)); },
          method_);
    else thread_pool::installed().post(*method_);
  }

  tendril::future<T> future_;
  detail::box* method_ = nullptr;
  synchronization_context* context_ = nullptr;
};

template <class T>
future_awaiter<T> from(tendril::future<T>&& f) noexcept {
  return future_awaiter<T>(std::move(f));
}

}  // namespace bench::async1
