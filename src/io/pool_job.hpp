// SPDX-License-Identifier: Apache-2.0
//
// A request of libuv that a fiber waits for: its end, its cancellation from another worker.
//
// On the heap, counted: by the fiber, by the loop until the request's callback, by a cancellation on
// its way to the loop's owner. So whoever is last frees it, and a fiber may give a request up that can
// no longer be cancelled.
//
// Who may call what: the constructor and start() on the fiber, in the scope of one worker_use; finish() in the request's callback, that
// is, on the owner. finished_ is written there under the lock: read by others under it, by the owner
// without.
#pragma once

#include <atomic>
#include <mutex>

#include <tendril/detail/waiting.hpp>

#include "io/io_loop.hpp"

namespace tendril::detail {

class pool_job {
 public:
  pool_job() noexcept : loop_(io_loop::here()) {}
  pool_job(const pool_job&) = delete;
  pool_job& operator=(const pool_job&) = delete;

  void unref() noexcept {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  /// Parks until finish(); the outcome says if it was given up instead. on_context: see wait_options.
  outcome wait(bool cancelable, const char* reason, bool on_context = true) {
    waiter* const self = current_waiter();
    lock_.lock();
    if (finished_) {
      lock_.unlock();
      return outcome::signalled;
    }
    wait_node& node = own_node(self);
    waiters_.push_back(node);
    return wait_locked(lock_, waiters_, node,
                       {.cancelable = cancelable, .reason = reason, .on_context = on_context});
  }

  /// Has the owner take the request back if it has not begun; finish() comes either way.
  void cancel() noexcept {
    if (const io_loop::owner_use owner(loop_); owner) {
      if (!finished_) uv_cancel(request());
      return;
    }
    references_.fetch_add(1, std::memory_order_relaxed);
    cancellation_.job = this;
    cancellation_.run = [](loop_task& task) noexcept {
      pool_job& job = *static_cast<cancel_task&>(task).job;
      if (!job.finished_) uv_cancel(job.request());  // the owner is who sets finished_
      job.unref();
    };
    loop_.post(cancellation_);
  }

 protected:
  virtual ~pool_job() = default;
  virtual uv_req_t* request() noexcept = 0;

  /// Right before the request is given to the loop; undone by not_started().
  uv_loop_t* start() noexcept {
    loop_.add_request();
    references_.fetch_add(1, std::memory_order_relaxed);
    return loop_.uv();
  }
  void not_started() noexcept {
    loop_.remove_request();
    references_.fetch_sub(1, std::memory_order_relaxed);
  }

  /// In the request's callback; results have been stored. May free the job.
  void finish() noexcept {
    waiter* who = nullptr;
    {
      std::lock_guard hold(lock_);
      finished_ = true;
      if (wait_node* node = waiters_.pop_front()) who = complete(*node);
    }
    loop_.remove_request();
    if (who != nullptr) unpark(who);
    unref();
  }

 private:
  struct cancel_task : loop_task {
    pool_job* job = nullptr;
  };

  io_loop& loop_;
  std::atomic<int> references_{1};
  tiny_lock lock_;
  wait_list waiters_;
  bool finished_ = false;
  cancel_task cancellation_{};
};

/// The fiber's reference.
struct pool_job_unref {
  void operator()(pool_job* j) const noexcept { j->unref(); }
};
template <class Job>
using pool_job_ptr = std::unique_ptr<Job, pool_job_unref>;

}  // namespace tendril::detail
